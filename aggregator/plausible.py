"""What no agent can mean: numbers that would bend or break what is counted for the whole fleet.

A node may lie about itself; it must not bring others down by it. An epoch or position near the end of what can be
written down would end every later write of the journal. Pure; knows no connection.
"""

from __future__ import annotations

import math

from msgspec import Struct
from msgspec.structs import fields

from fleet.messages import VMS_PER_NODE_MAX, Delta, FromAgent, FullState, Hello
from fleet.model import NodeFacts

NUMBER_MAX = 10**15  # epochs begin anew at milliseconds since 1970 after a loss, so they are far below
POSITION_MAX = 10**12  # a thousand events a second for thirty years
CPU_M_MAX = 10**8
MEMORY_BYTES_MAX = 2**50
LEAST = -1


def fault_of(message: FromAgent) -> str:
    """Return what cannot be meant, in a few words; empty if all can."""
    if fault := _numbers(message, type(message).__name__):
        return fault
    if isinstance(message, Delta | FullState) and len(message.vms) > VMS_PER_NODE_MAX:
        return f"{len(message.vms)} VMs are reported, a node may have {VMS_PER_NODE_MAX}"
    if isinstance(message, Hello):
        highest = message.highest
        if highest is not None and not (0 <= highest.term <= POSITION_MAX and 0 <= highest.position <= POSITION_MAX):
            return f"it says that it obeyed term {highest.term} up to {highest.position}"
        return _capacity(message.facts)
    if isinstance(message, Delta) and message.facts is not None:
        return _capacity(message.facts)
    return ""


def _capacity(facts: NodeFacts) -> str:
    if 0 <= facts.cpu_m <= CPU_M_MAX and 0 <= facts.memory_bytes <= MEMORY_BYTES_MAX:
        return ""
    return f"it says that it has {facts.cpu_m} millicores and {facts.memory_bytes} bytes of memory"


def _numbers(value: object, where: str) -> str:
    """Look at every number in a message; depth and length are bounded by its type and the frame's size."""
    if isinstance(value, bool | str) or value is None:
        return ""
    if isinstance(value, int):
        return "" if LEAST <= value <= NUMBER_MAX else f"{where} is {value}"
    if isinstance(value, float):
        return "" if math.isfinite(value) and LEAST <= value <= NUMBER_MAX else f"{where} is {value}"
    if isinstance(value, Struct):
        inner = ((field.name, getattr(value, field.name)) for field in fields(value))
    elif isinstance(value, dict):
        inner = ((where, one) for one in value.values())
    elif isinstance(value, tuple | list):
        inner = ((where, one) for one in value)
    else:
        return ""
    return next((fault for name, one in inner if (fault := _numbers(one, name))), "")
