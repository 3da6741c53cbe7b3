"""What makes a fence device that very device, the node's own, and able to prove anything (safety.md, readiness).

A rung is one device or several that are asked and ordered together (a machine with two power supplies).
Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import structs

from aggregator.core.objects import FencingDevice, FencingRung, NodeSpec
from fleet.model import NodeFacts

_ADDRESS_PARAMS = ("ip", "ipaddr")
VOUCHED_BY_OPERATOR = "Operator"
POWER_OFF = "PowerOff"
CRASH_KERNEL = "CrashKernel"
PROOFS = (POWER_OFF, CRASH_KERNEL)
CRASH_LISTENER = "fence_kdump"
_NO = ("", "0", "no", "false", "off")

PROVES_NOTHING = {
    **dict.fromkeys(
        ("brocade", "cisco_mds", "compute", "ifmib", "mpath", "sanbox2", "scsi"),
        "it cuts a machine off its fabric and leaves it running",
    ),
    "dummy": "it answers for a file, not for a machine",
    "ack_manual": "it asks a person; use virtward fence NODE --confirm-off",
    "evacuate": "it moves instances of another system",
    "heuristics_ping": "it pings, and never switches power",
    "kdump": "it listens for a crash kernel, and never switches power",
    "sbd": "it writes a message to a disk, and cannot see whether it was obeyed",
}
"""fence_* programs whose `off` is no proof that a machine is inert, and why."""


def devices_of(rung: FencingRung) -> tuple[FencingDevice, ...]:
    """Return the rung's devices, whether it was written with one or with several."""
    alone = FencingDevice(agent=rung.agent, params=rung.params, identity=rung.identity, guid=rung.guid)
    return rung.devices or (alone,)


def alone(rung: FencingRung, device: int) -> FencingRung:
    """Return the rung as if one of its devices were the only one: what a hand is told to ask."""
    one = devices_of(rung)[device]
    return structs.replace(rung, agent=one.agent, params=one.params, identity=one.identity, guid=one.guid, devices=())


def places(spec: NodeSpec) -> list[tuple[int, int]]:
    """Return (rung, device) of every device of the ladder, in the order their readiness is kept."""
    return [(r, d) for r, rung in enumerate(spec.fencing) for d in range(len(devices_of(rung)))]


def place_of(spec: NodeSpec, rung: int, device: int) -> int | None:
    """Return where a device's readiness is kept; None if the ladder has no such device any more."""
    found = places(spec)
    return found.index((rung, device)) if (rung, device) in found else None


def device_of(device: FencingDevice) -> str:
    """Return one string that changes when anything about the device changes."""
    params = " ".join(f"{key}={device.params[key]}" for key in sorted(device.params))
    return f"{device.agent} {params} identity={device.identity} guid={device.guid}"


def unusable(agent: str, params: Mapping[str, str]) -> str:
    """Return why a device can never prove that a machine is off, or an empty text."""
    why = PROVES_NOTHING.get(agent.removeprefix("fence_"), "")
    if why:
        return f"{agent} is not asked: {why}; use a program that switches power"
    for name, value in params.items():
        if name.replace("-", "_") == "missing_as_off" and value.strip().lower() not in _NO:
            return f"{agent} is not asked: missing_as_off says off about a machine it cannot find; remove it"
    return ""


def identity_problem(device: FencingDevice, facts: NodeFacts | None) -> str:
    """Return why the device is not shown to be the node's own; empty if it is."""
    if device.identity == VOUCHED_BY_OPERATOR:
        return ""
    if facts is None or facts.bmc is None:
        return (
            "the node reports no management controller of its own; "
            "write identity: Operator into the entry to vouch for it"
        )
    address = next((device.params[p] for p in _ADDRESS_PARAMS if p in device.params), "")
    if facts.bmc.address != address:
        return f"the entry names {address or 'no address'}, but the node's own controller is at {facts.bmc.address}"
    if device.guid and device.guid.lower() != facts.bmc.guid.lower():
        return f"the entry names GUID {device.guid}, but the node's own is {facts.bmc.guid}"
    return ""


def is_anothers(device: FencingDevice, facts: NodeFacts) -> bool:
    """Return whether a node with these facts finds this very device in itself, though it is written for another."""
    if facts.bmc is None or device.identity == VOUCHED_BY_OPERATOR:
        return False
    address = next((device.params[p] for p in _ADDRESS_PARAMS if p in device.params), "")
    return bool(address) and facts.bmc.address == address


def listener_problem(device: FencingDevice, facts: NodeFacts | None) -> str:
    """Return why a crash kernel that is heard would not be shown to be the node's; empty if it would."""
    if device.identity == VOUCHED_BY_OPERATOR:
        return ""
    names = [name.strip() for name in device.params.get("nodename", "").split(",")]
    own = list(facts.addresses.values()) if facts is not None else []
    strange = [name for name in names if name not in own]
    if strange:
        return (
            f"nodename {', '.join(strange)} is no address that the node reports; "
            "write one, or identity: Operator to vouch for it"
        )
    return ""
