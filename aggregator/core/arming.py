"""Whether virtward may act by itself now, and on whom: the one place that is asked.

A fleet, a node, a VM or all that a label selector matches is disarmed by a person, with an end or until it is
armed again. Nothing in that scope is then fenced, started, restarted or moved by virtward itself; it goes on to
watch, to convict, to take proofs and to keep incidents. What a person asks for by name (start, stop, migrate, drain,
fence) is done, what was ordered before goes on to its end, and a fence begins no further rung. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from aggregator.core.draft import Draft
from aggregator.core.events import DisarmEnded
from aggregator.core.moments import rfc3339
from aggregator.core.selector import read_selector, selects
from aggregator.core.state import Disarming, State, VmRecord


def acts(state: State) -> bool:
    """Return whether the fleet acts at all, for people's orders too, or only observes."""
    return state.config.mode == "Act"


def scope_key(node: str = "", vm: str = "", selector: str = "") -> str:
    """Return under which key a scope is kept; no name is the whole fleet."""
    return f"node {node}" if node else f"vm {vm}" if vm else f"label {selector}" if selector else ""


def holding(state: State, node: str = "", vm: str = "") -> Iterator[Disarming]:
    """Yield every disarming that holds this node or VM: the fleet's, its own, those whose selector it matches."""
    for record in state.disarmed.values():
        if record.selector:
            if _matches(state, record.selector, node, vm):
                yield record
        elif (not record.node and not record.vm) or (node and record.node == node) or (vm and record.vm == vm):
            yield record


def _matches(state: State, text: str, node: str, vm: str) -> bool:
    selector = read_selector(text)
    objects = (state.nodes.get(node), state.vms.get(vm))
    return any(found is not None and selects(selector, found.labels) for found in objects)


def why_held(state: State, node: str = "", vm: str = "") -> str:
    """Return why nothing may be done by itself to this node or VM now; empty if it may."""
    if not acts(state):
        return "the fleet only observes (mode Observe)"
    return next((disarmed_words(record) for record in holding(state, node, vm)), "")


def why_vm_held(state: State, vm: VmRecord) -> str:
    """Return why the VM is neither started nor moved by itself: for its own sake, its last node's, or the fleet's."""
    return why_held(state, node=vm.home or vm.owner, vm=vm.name)


def is_vm_disarmed(state: State, vm: str) -> bool:
    """Return whether a person disarmed this VM, by its name or its labels."""
    return any(record.vm or record.selector for record in holding(state, vm=vm))


def scope_words(node: str, vm: str, selector: str = "") -> str:
    """Return whom a scope names, for people."""
    labelled = f"everything labelled {selector}" if selector else "the fleet"
    return f"node {node}" if node else f"VM {vm}" if vm else labelled


def disarmed_words(record: Disarming) -> str:
    """Return a disarming in words: whom it holds, until when, by whom."""
    end = f"until {rfc3339(record.until)}" if record.until else "until it is armed again"
    by = f" by {record.who}" if record.who else ""
    return f"{scope_words(record.node, record.vm, record.selector)} is disarmed{by} {end}"


def arm_command(record: Disarming) -> str:
    """Return the command that ends a disarming."""
    labelled = f" -l '{record.selector}'" if record.selector else ""
    scope = f" --node {record.node}" if record.node else f" --vm {record.vm}" if record.vm else labelled
    return f"virtward arm{scope}"


def decide_arming(draft: Draft) -> None:
    """Arm again whatever was disarmed for a time that is over."""
    for record in draft.state.disarmed.values():
        if record.until and draft.due(record.until):
            node, vm, selector = record.node, record.vm, record.selector
            draft.add(DisarmEnded(at=draft.now, node=node, vm=vm, selector=selector, reason="its time is over"))
