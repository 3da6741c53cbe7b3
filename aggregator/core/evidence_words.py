"""Observations of a silent node in words: who was asked, where, what came back, how its connection ended. Pure."""

from __future__ import annotations

from aggregator.core import events as ev
from aggregator.core.events import Event
from aggregator.core.state import NodeRecord

DEVICE = "its fence device"


def observer_of(event: Event) -> str:
    """Return whose word an observation is; empty for what is no observation."""
    if isinstance(event, ev.ProbeAnswered):
        return event.prober
    return DEVICE if isinstance(event, ev.FenceAnswered) else ""


def probe_words(event: ev.ProbeAnswered) -> str:
    """Return what a peer saw, plane by plane: `h2 asked it on control: agent, libvirt: no answer within 1 s`."""
    planes: dict[str, dict[str, list[str]]] = {}
    for result in event.results:
        came = "answers" if result.answered else result.detail or "no answer"
        planes.setdefault(result.plane, {}).setdefault(came, []).append(result.port)
    seen = "; ".join(
        f"on {plane}: " + ", ".join(f"{' and '.join(ports)}: {came}" for came, ports in outcomes.items())
        for plane, outcomes in planes.items()
    )
    return f"{event.prober} asked it {seen}"


def power_words(event: ev.FenceAnswered) -> str:
    """Return what a fence device said."""
    return f"{event.answer}" + (f": {event.line}" if event.line else "")


def end_words(node: NodeRecord) -> str:
    """Return what the end of a node's connection tells of the node."""
    if node.connected:
        return "its connection shows no end: its power or a cable may be gone, or everything on it stands still"
    if not node.ended_how:
        return "it has had no connection since the aggregator started"
    if node.ended_how == "goodbye":
        return "its agent said goodbye and ended"
    if not node.ended_by_it:
        return f"its connection was ended by us ({node.ended_how})"
    if node.via:
        return f"its connection was ended by {node.via}, which carried it: that says nothing of {node.name}"
    return f"its connection was {node.ended_how} by its own kernel: the host lived then, its agent is gone or gave up"
