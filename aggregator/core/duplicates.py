"""A VM that runs twice: who says so, which copy is ended, and which is left to a person (S8).

A copy is ended only if its epoch is lower than the owner's and the owner's node, in a session of its own
and by a beat of this moment, reports its own copy running at the owner's epoch. So the run that goes on is
seen before the other one is destroyed. Equal or higher epochs, copies of no epoch (nobody ordered them), and
whatever an agent cannot tell are left alone and named. Pure.
"""

from __future__ import annotations

from aggregator.core.arming import why_held
from aggregator.core.draft import Draft
from aggregator.core.events import SecondRunEnded, SecondRunSeen
from aggregator.core.lookups import ALIVE, current_report, doubt_over_at, open_orders, running_on
from aggregator.core.moments import rfc3339
from aggregator.core.nodes import beats_again
from aggregator.core.state import NodeRecord, SecondRun, State, VmRecord
from fleet.messages import DestroyVm
from fleet.model import LedgerState, QemuState, VmReport


def decide_second_runs(draft: Draft) -> None:
    """Say it when a VM runs twice, and when it does so no longer."""
    for vm in draft.state.derived.active_vms:
        second = vm.second_run
        if len(vm.reports) < 2 and second is None:  # noqa: PLR2004
            continue
        running = tuple(running_on(draft.state, vm))
        if len(running) > 1:
            if second is None or second.over_at or second.nodes != running:
                why = "two nodes report a running QEMU of it"
                draft.add(SecondRunSeen(at=draft.now, vm=vm.name, nodes=running, reason=why, cause=vm.fact))
        elif second is not None and not second.over_at:
            where = f"only {running[0]} runs it" if running else "no node reports it running"
            draft.add(SecondRunEnded(at=draft.now, vm=vm.name, reason=where, cause=vm.fact))


def decide_duplicates(draft: Draft) -> None:
    """Order every copy ended that is older than the run that the owner's node reports."""
    for vm in draft.state.derived.active_vms:
        if len(vm.reports) < 2:  # noqa: PLR2004
            continue
        for name in vm.reports:
            node, copy = draft.state.nodes.get(name), current_report(draft.state, vm, name)
            if node is None or copy is None or name == vm.owner or copy.state not in ALIVE:
                continue
            if not why_left_alone(draft, vm, node, copy) and not _is_being_ended(draft, vm, node):
                reason = f"it is older than the run on {vm.owner}, which is seen running at epoch {vm.epoch}"
                draft.order(node, vm, DestroyVm(run=copy.run), epoch=copy.epoch, reason=reason)


def _is_being_ended(draft: Draft, vm: VmRecord, node: NodeRecord) -> bool:
    ordered = any(record.node == node.name for record in open_orders(draft.state, vm))
    return ordered or not draft.due(vm.retry_at)


def why_left_alone(draft: Draft, vm: VmRecord, node: NodeRecord, copy: VmReport) -> str:
    """Return why the copy on this node is not ended by virtward; empty if it is."""
    state = draft.state
    if vm.migration:
        return "it is being migrated"
    if not copy.epoch:
        return f"nobody ordered the copy on {node.name}: it has no epoch"
    if copy.epoch >= vm.epoch:
        return f"the copy on {node.name} has epoch {copy.epoch}, which is not lower than epoch {vm.epoch} of its owner"
    if problem := _owner_is_unseen(draft, vm):
        return problem
    if state.behind:
        return "the store is older than what agents have obeyed"
    if not draft.due(doubt_over_at(state)):
        return f"the aggregator doubts itself: {state.doubt}"
    if held := why_held(state, node=node.name, vm=vm.name):
        return held
    if node.ledger is LedgerState.LOST:
        return f"{node.name} has lost its ledger and obeys no order"
    return "" if beats_again(draft, node) else f"{node.name} does not beat"


def _owner_is_unseen(draft: Draft, vm: VmRecord) -> str:
    """Return why it is not sure that the owner's node runs the VM at this moment; empty if it is."""
    owner = draft.state.nodes.get(vm.owner)
    if owner is None or not vm.run_open:
        return "it has no owner"
    report = current_report(draft.state, vm, owner.name)
    if report is None or report.state is not QemuState.RUNNING:
        return f"its owner {owner.name} does not report it running"
    if (report.epoch, report.run) != (vm.epoch, vm.run):
        return f"its owner {owner.name} reports run {report.run} at epoch {report.epoch}, not the one that was ordered"
    if owner.via or not beats_again(draft, owner):
        return f"its owner {owner.name} does not beat directly at this moment"
    return ""


def second_run_words(draft: Draft, vm: VmRecord, second: SecondRun) -> tuple[str, str]:
    """Return (what is wrong, what a person can do) for an incident."""
    check = f"check the guest's disk, then restart it, which closes this: virtward restart {vm.name}"
    where = " and ".join(second.nodes)
    since = f"seen {rfc3339(second.seen_at)}"
    if second.since < second.seen_at - 1:
        since += f", perhaps since {rfc3339(second.since)}"
    if second.over_at:
        return f"{vm.name} ran twice: on {where} ({since}), until {rfc3339(second.over_at)}", check
    title = f"{vm.name} runs twice: on {where} ({since}); "
    left = _left_alone(draft, vm)
    if not left:
        return f"{title}the older copy is being ended", check
    way = f"its owner is {vm.owner or 'nobody'}; end the wrong one on its host at once: virsh destroy {vm.name}"
    return f"{title}nothing is ended: {left}", f"{way}; then {check}"


def _left_alone(draft: Draft, vm: VmRecord) -> str:
    """Return why a second run is left to a person; empty if every copy but the owner's is being ended."""
    state = draft.state
    words = [_why(draft, vm, state, name) for name in running_on(state, vm) if name != vm.owner]
    return "; ".join(dict.fromkeys(word for word in words if word))


def _why(draft: Draft, vm: VmRecord, state: State, name: str) -> str:
    node, copy = state.nodes.get(name), current_report(state, vm, name)
    return why_left_alone(draft, vm, node, copy) if node is not None and copy is not None else ""
