"""Whether virtward may act by itself now, and on whom: the one place that is asked.

A fleet, a node or a VM is disarmed by a person, with an end or until it is armed again. Nothing in that
scope is then fenced, started, restarted or moved by virtward itself; it goes on to watch, to convict, to take
proofs and to keep incidents. What a person asks for by name (start, stop, migrate, drain, fence) is done, what
was ordered before goes on to its end, and a fence begins no further rung. Pure.
"""

from __future__ import annotations

from aggregator.core.draft import Draft
from aggregator.core.events import DisarmEnded
from aggregator.core.moments import rfc3339
from aggregator.core.state import Disarming, State, VmRecord


def acts(state: State) -> bool:
    """Return whether the fleet acts at all, for people's orders too, or only observes."""
    return state.config.mode == "Act"


def scope_key(node: str = "", vm: str = "") -> str:
    """Return under which key a scope is kept; no name is the whole fleet."""
    return f"node {node}" if node else f"vm {vm}" if vm else ""


def why_held(state: State, node: str = "", vm: str = "") -> str:
    """Return why nothing may be done by itself to this node or VM now; empty if it may."""
    if not acts(state):
        return "the fleet only observes (mode Observe)"
    for key in ("", *([f"node {node}"] if node else []), *([f"vm {vm}"] if vm else [])):
        if key in state.disarmed:
            return disarmed_words(state.disarmed[key])
    return ""


def why_vm_held(state: State, vm: VmRecord) -> str:
    """Return why the VM is neither started nor moved by itself: for its own sake, its last node's, or the fleet's."""
    return why_held(state, node=vm.home or vm.owner, vm=vm.name)


def scope_words(node: str, vm: str) -> str:
    """Return whom a scope names, for people."""
    return f"node {node}" if node else f"VM {vm}" if vm else "the fleet"


def disarmed_words(record: Disarming) -> str:
    """Return a disarming in words: whom it holds, until when, by whom."""
    end = f"until {rfc3339(record.until)}" if record.until else "until it is armed again"
    by = f" by {record.who}" if record.who else ""
    return f"{scope_words(record.node, record.vm)} is disarmed{by} {end}"


def arm_command(record: Disarming) -> str:
    """Return the command that ends a disarming."""
    return "virtward arm" + (f" --node {record.node}" if record.node else f" --vm {record.vm}" if record.vm else "")


def decide_arming(draft: Draft) -> None:
    """Arm again whatever was disarmed for a time that is over."""
    for record in draft.state.disarmed.values():
        if record.until and draft.due(record.until):
            draft.add(DisarmEnded(at=draft.now, node=record.node, vm=record.vm, reason="its time is over"))
