"""What a node's own controller says of another node's fence device. Assigns to the state; called by fold only.

Two devices that are swapped are seen from either end: a node that is cut off cannot tell that its controller is
another's now, but the node that finds it in itself can.
"""

from __future__ import annotations

from aggregator.core.fencing_device import device_of, devices_of, is_anothers
from aggregator.core.state import NodeRecord, State


def take_controller(state: State, node: NodeRecord) -> None:
    """A node finds a controller in itself that is written for another, which may be cut off and unable to say so."""
    facts = node.facts
    if facts is None or facts.bmc is None:
        return
    for other in state.nodes.values():
        if other.name == node.name:
            continue
        devices = [device for rung in other.spec.fencing for device in devices_of(rung)]
        for device, ready in zip(devices, other.readiness, strict=False):
            if ready.device == device_of(device) and is_anothers(device, facts):
                ready.identity, ready.found_in = "", node.name
                ready.problem = f"{node.name} finds this controller in itself: the devices may have been swapped"
