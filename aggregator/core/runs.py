"""Orders that are over, bindings that are proven inert, runs that have ended.

A run ends when nothing is left that could run it: its last binding is freed, each by a proof.
What the end means (Succeeded, Failed, Stopped, Evicted) follows from what was ordered first
and from what the node saw second. Pure.
"""

from __future__ import annotations

from aggregator.core.actions import CloseSession
from aggregator.core.draft import Draft
from aggregator.core.events import (
    BindingFreed,
    NodeState,
    OrderClosed,
    ProofKind,
    RunEnded,
    RunOutcome,
    RunRestarted,
    SessionDoubted,
    VmRemoved,
)
from aggregator.core.health import HUNG
from aggregator.core.host_state import record_words
from aggregator.core.lookups import can_order, current_report, open_orders
from aggregator.core.nodes import beats_again
from aggregator.core.proofs import binding_proof
from aggregator.core.state import NodeRecord, OrderRecord, State, VmRecord
from fleet.messages import MigrateVm, ReceiveVm, RescueVm, StartVm, UndefineVm
from fleet.model import EndReason, LedgerState, QemuState

STARTS = (StartVm,)
ANSWER_S_MAX = 5.0
COPY_SHOWS_S_MAX = 10.0  # an agent that beats has reported a copy by then
UNANSWERED_S_MAX = 15.0  # an agent says at once that it has an order, however long the deed may take
ACCEPTED_IS_ENOUGH = (ReceiveVm,)
"""Orders whose acceptance is all that is waited for: the rest shows in the VM's reports."""


def decide_orders(draft: Draft) -> None:
    """Close orders that were answered, dropped, or left behind in an older session."""
    for order_id, record in draft.state.orders.items():
        outcome = _outcome(draft.state, record)
        if outcome:
            draft.add(
                OrderClosed(
                    at=draft.now,
                    order_id=order_id,
                    vm=record.vm,
                    outcome=outcome,
                    reason=record.message or record.code or record.dropped,
                    cause=draft.state.position,
                )
            )


def _outcome(state: State, record: OrderRecord) -> str:
    """Return what became of an order; empty while it is open."""
    order = record.order
    if record.dropped:
        return "Dropped"
    if record.outcome is not None:
        return str(record.outcome)
    if isinstance(order.body, ACCEPTED_IS_ENOUGH) and record.accepted:
        return "Done"
    node = state.nodes.get(record.node)
    if not record.vm and node is not None and node.session == order.session:
        return ""  # about a VM that was removed: its node answers, or opens another session
    if node is None or record.vm not in state.vms:
        return "Overtaken"
    if _released_beyond(state, record):
        return "Overtaken"
    if node.boot_id != order.session.boot_id and node.connected:
        return "NeverBegan" if not record.accepted else "Overtaken"
    if node.inert is not None and node.inert.at >= record.issued_at:
        return "Overtaken"
    if node.connected and node.session is not None and node.session != order.session:
        return _across_sessions(state, record)
    return ""


def _released_beyond(state: State, record: OrderRecord) -> bool:
    """Return whether the node released the VM at the order's epoch: nothing is left to be done there."""
    report = current_report(state, state.vms[record.vm], record.node)
    if report is None or isinstance(record.order.body, (*STARTS, UndefineVm)):
        return False  # a start's own answer says why it failed; what is undefined was released before
    return report.released and report.epoch >= record.order.epoch


def _across_sessions(state: State, record: OrderRecord) -> str:
    """A newer session stands: what is not in the agent's hands now will never begin."""
    node = state.nodes[record.node]
    if any(hand.order_id == record.order.order_id for hand in node.in_hand):
        return ""
    if not node.complete:
        return ""
    report = current_report(state, state.vms[record.vm], record.node)
    reached = report is not None and report.epoch >= record.order.epoch
    if record.accepted or reached:
        return "Overtaken"
    return "NeverBegan"


def decide_bindings(draft: Draft) -> None:
    """Free every binding that has a proof."""
    state = draft.state
    for vm in state.derived.active_vms:
        for binding in vm.bindings:
            found = binding_proof(state, vm, binding)
            if found is None or _is_hand_over_in_doubt(state, vm, binding.node, found[0]):
                continue
            proof, end = found
            if end is EndReason.MIGRATED and _copy_may_be_anywhere(draft, vm, binding.node):
                continue
            draft.add(
                BindingFreed(
                    at=draft.now,
                    vm=vm.name,
                    node=binding.node,
                    boot_id=binding.boot_id,
                    epoch=binding.epoch,
                    proof=proof,
                    end=end,
                    cause=vm.fact,
                )
            )


def decide_doubts(draft: Draft) -> None:
    """Ask a node anew that cannot prove, in its standing session, that a start never began there.

    The order is answered or lost and the VM does not show: a second copy of the order could still
    be taken in this session, never in the next one.
    """
    state = draft.state
    for vm in state.derived.active_vms:
        for binding in vm.bindings:
            node = state.nodes.get(binding.node)
            if node is None or not node.connected or node.doubted or not node.complete:
                continue
            if node.boot_id != binding.boot_id or node.session_since > binding.since or node.ledger is LedgerState.LOST:
                continue  # another session was asked already, or could not be believed
            if binding.why != "start" or any(r.node == node.name for r in open_orders(state, vm)):
                continue
            report = current_report(state, vm, node.name)
            if report is not None and (report.epoch >= binding.epoch or report.state is not QemuState.GONE):
                continue
            if draft.due(binding.since + ANSWER_S_MAX):
                _ask_anew(draft, node, f"{vm.name} may yet be started there by an order that was not carried out")
                return
    _doubt_unanswered(draft)


def _doubt_unanswered(draft: Draft) -> None:
    """Ask a node anew that beats and says nothing of an order: it was lost on its way, or may still arrive.

    The next session tells whether it was begun; where it was not, it can begin no more.
    """
    for order_id, record in draft.state.orders.items():
        node = draft.state.nodes.get(record.node)
        if record.accepted or record.outcome is not None or record.dropped:
            continue
        if node is None or node.doubted or node.state is not NodeState.UP or node.session != record.order.session:
            continue
        if draft.due(record.issued_at + UNANSWERED_S_MAX):
            _ask_anew(draft, node, f"{order_id} for {record.vm or record.order.name} was never answered")
            return


def _ask_anew(draft: Draft, node: NodeRecord, why: str) -> None:
    draft.add(SessionDoubted(at=draft.now, node=node.name, reason=why, cause=node.fact))
    draft.act(CloseSession(decided_at=draft.now, node=node.name, why="asked anew"))


def _is_hand_over_in_doubt(state: State, vm: VmRecord, node: str, proof: ProofKind) -> bool:
    """Return whether a target's "not here" is only the time before its incoming half appears."""
    migration = state.migrations.get(vm.migration)
    if migration is None or migration.target != node or proof is not ProofKind.NOT_HERE:
        return False
    return any(
        r.vm == vm.name and isinstance(r.order.body, MigrateVm | RescueVm | ReceiveVm) for r in state.orders.values()
    )


def _copy_may_be_anywhere(draft: Draft, vm: VmRecord, source: str) -> bool:
    """Return whether a VM was moved by a migration that this store has lost, and not every node has spoken since.

    Its two agents end such a hand-over among themselves, and the target may be cut off from us just then.
    """
    state, seen = draft.state, vm.reports.get(source)
    migration = state.migrations.get(vm.migration)
    if seen is None or (migration is not None and migration.source == source):
        return False
    if not draft.due(seen.at + COPY_SHOWS_S_MAX):
        return True
    others = [n for n in state.nodes.values() if n.name != source and n.approved and n.machine_id]
    return any(n.inert is None and not (n.complete and beats_again(draft, n)) for n in others)


def decide_runs(draft: Draft) -> None:
    """End runs that nothing is left of, take note of those that agents began; remove deleted VMs."""
    for vm in draft.state.derived.active_vms:
        _note_restart(draft, vm)
        if vm.run_open and not vm.bindings:
            outcome = outcome_of(draft.state, vm)
            draft.add(
                RunEnded(
                    at=draft.now,
                    vm=vm.name,
                    run=vm.run,
                    outcome=outcome,
                    reason=_why_ended(vm),
                    cause=vm.fact,
                )
            )
        elif vm.deleting and not vm.bindings and not open_orders(draft.state, vm):
            _remove(draft, vm)


def _note_restart(draft: Draft, vm: VmRecord) -> None:
    """Follow an owner's agent that began a run by itself: nobody else gives a run of this epoch a number."""
    report = current_report(draft.state, vm, vm.owner)
    if report is None or not vm.run_open or report.epoch != vm.epoch or report.run <= vm.run:
        return
    why = "it had failed, and its agent started it again while no aggregator answered"
    draft.add(RunRestarted(at=draft.now, vm=vm.name, node=vm.owner, run=report.run, reason=why, cause=vm.fact))


def _remove(draft: Draft, vm: VmRecord) -> None:
    """Have a deleted VM undefined where it is known, then let it go. Nodes that are away: leftovers.py."""
    for name in vm.reports:
        node = draft.state.nodes.get(name)
        report = current_report(draft.state, vm, name)
        if node is None or report is None or not can_order(node) or name in vm.undefined_on:
            continue
        if not draft.due(vm.retry_at):
            return
        if report.state is QemuState.GONE:
            why = "; ".join(("it is deleted", *([f"{record} goes with it"] if (record := record_words(vm)) else [])))
            draft.order(node, vm, UndefineVm(reason="deleted"), epoch=vm.epoch_top, reason=why)
    if not draft.transitions:
        draft.add(VmRemoved(at=draft.now, vm=vm.name, reason="deleted", cause=vm.fact))


def outcome_of(state: State, vm: VmRecord) -> RunOutcome:
    """Return what a run that is over comes to: our own word first, then what the node saw.

    A guest that powers off while its host is being shut down was asked to: that is no wish of its own.
    """
    if vm.stopping is not None:
        return vm.stopping
    owner = state.nodes.get(vm.owner)
    if owner is not None and owner.host_stopping and vm.last_end is not EndReason.NOT_ENDED:
        return RunOutcome.EVICTED
    if vm.last_end in {EndReason.POWEROFF, EndReason.DESTROYED}:
        return RunOutcome.SUCCEEDED
    if vm.last_end is EndReason.ISOLATED:
        return RunOutcome.EVICTED
    return RunOutcome.FAILED


def _why_ended(vm: VmRecord) -> str:
    if vm.run_void:
        return "it never began"
    if vm.last_end is EndReason.NOT_ENDED:
        return "its node is gone"
    if vm.stopping is RunOutcome.FAILED:
        return HUNG
    return {
        EndReason.POWEROFF: "the guest powered off",
        EndReason.DESTROYED: "somebody ended it on its host",
        EndReason.CRASHED: "it crashed" if vm.run_reached_running else "it did not start",
        EndReason.ORDERED: "ended by order",
        EndReason.ISOLATED: "its agent ended it without the aggregator, as its isolation policy asks",
        EndReason.MIGRATED: "its migration ended without a copy",
    }[vm.last_end]
