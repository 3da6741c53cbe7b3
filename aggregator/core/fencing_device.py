"""What makes a fence device that very device, and the node's own (safety.md, readiness)."""

from __future__ import annotations

from aggregator.core.objects import FencingRung
from fleet.model import NodeFacts

_ADDRESS_PARAMS = ("ip", "ipaddr")
VOUCHED_BY_OPERATOR = "Operator"


def device_of(rung: FencingRung) -> str:
    """Return one string that changes when anything about the device changes."""
    params = " ".join(f"{key}={rung.params[key]}" for key in sorted(rung.params))
    return f"{rung.agent} {params} identity={rung.identity} guid={rung.guid}"


def identity_problem(rung: FencingRung, facts: NodeFacts | None) -> str:
    """Return why the device is not shown to be the node's own; empty if it is."""
    if rung.identity == VOUCHED_BY_OPERATOR:
        return ""
    if facts is None or facts.bmc is None:
        return (
            "the node reports no management controller of its own; "
            "write identity: Operator into the entry to vouch for it"
        )
    address = next((rung.params[p] for p in _ADDRESS_PARAMS if p in rung.params), "")
    if facts.bmc.address != address:
        return f"the entry names {address or 'no address'}, but the node's own controller is at {facts.bmc.address}"
    if rung.guid and rung.guid.lower() != facts.bmc.guid.lower():
        return f"the entry names GUID {rung.guid}, but the node's own is {facts.bmc.guid}"
    return ""
