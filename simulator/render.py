"""A story's output: a line per event as it happens, and the summary; for people and as JSON.

Knows transitions and facts only by their fields and by the core's own words for them. Decides
nothing.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from aggregator.core import events as ev
from aggregator.core import history
from aggregator.core.events import Event, NodeStateChanged, Transition
from aggregator.core.state import State
from simulator.checkers import Violation
from simulator.world import World

NOT_SHOWN = ("at", "reason", "cause")


class Line(Struct, frozen=True):
    """One event. fields: what JSON shows of it, in order; detail: what people read."""

    t: float
    event: str
    node: str
    vm: str
    fields: dict[str, object]
    reason: str
    cause: int
    detail: str

    def json(self) -> dict[str, object]:
        head: dict[str, object] = {"t": self.t, "event": self.event}
        return head | self.fields | {"reason": self.reason, "cause": self.cause}

    def text(self) -> str:
        words = "; ".join(part for part in (self.detail, self.reason) if part)
        subject = " ".join(part for part in (self.node, self.vm) if part)
        return f"{self.t:9.3f}  {self.event:<18} {subject:<8} {words}".rstrip()


def line_of(event: Transition, state: State, t: float) -> Line:
    """Render a transition. state: after it was folded."""
    node, vm = history.subject_of(state, event)
    return Line(
        t=round(t, 3),
        event=history.kind_of(event),
        node=node,
        vm=vm,
        fields=_fields(event),
        reason=event.reason,
        cause=event.cause,
        detail=history.detail_of(event),
    )


def _fields(event: Event) -> dict[str, object]:
    found: dict[str, object] = {}
    for name in event.__struct_fields__:
        value = getattr(event, name)
        hidden = name in NOT_SHOWN or (name == "state" and isinstance(event, NodeStateChanged))
        if hidden or value in ("", None, (), {}):
            continue
        if isinstance(event, ev.OrderIssued) and name == "order":
            order = event.order
            kind = str(order.body.__struct_config__.tag)
            found |= {"order": order.order_id, "kind": kind, "epoch": order.epoch}
        else:
            found[name] = msgspec.to_builtins(value)
    return found


def fault_text(t: float, words: str) -> str:
    """Return the line of something that the story does to the world."""
    return f"{t:9.3f}  * {words}"


class Fence(Struct):
    """One `off` order, or a node that was found off. rung counts from 1."""

    t: float
    node: str
    rung: int
    outcome: str
    proof: str | None


class VmSummary(Struct):
    node: str | None
    phase: str
    starts: int
    downtime_s: float


class NodeSummary(Struct):
    state: str


class Summary(Struct):
    """What interfaces.md fixes for the last line."""

    vms: dict[str, VmSummary]
    nodes: dict[str, NodeSummary]
    fences: list[Fence]
    violations: list[Violation]

    def text(self) -> str:
        lines = ["summary"]
        for name, vm in self.vms.items():
            place = f"on {vm.node}" if vm.node else "nowhere"
            down = f"{vm.downtime_s:.1f} s down"
            lines.append(f"  {name:<8} {vm.phase} {place}, {vm.starts} starts, {down}")
        lines.append("  " + ", ".join(f"{name} {node.state}" for name, node in self.nodes.items()))
        lines += [f"  fence {f.node} at {f.t:.3f}: {f.outcome}, proof {f.proof or 'none'}" for f in self.fences]
        lines += [f"  VIOLATION of {bad.invariant} at {bad.t:.3f}: {bad.text}" for bad in self.violations]
        if not self.violations:
            lines.append("  no violation")
        return "\n".join(lines)


def summary_of(world: World, fences: list[Fence], violations: list[Violation]) -> Summary:
    """Sum up: truth from the world, phases and states as the aggregator shows them."""
    state = world.aggregator.state
    vms = {}
    for truth in world.truth.vms.values():
        record = state.vms.get(truth.vm)
        running = truth.running()
        vms[truth.vm] = VmSummary(
            node=running[0].host if running else None,
            phase=str(record.phase) if record is not None else "Deleted",
            starts=truth.starts,
            downtime_s=round(world.truth.downtime_s(truth), 3),
        )
    nodes = {name: NodeSummary(str(node.state)) for name, node in state.nodes.items()}
    rounded = [Violation(round(v.t, 3), v.invariant, v.text) for v in violations]
    return Summary(vms, nodes, fences, rounded)
