"""Halves of migrations, and permits for them, that nobody knows any more: the store that knew them went back.

Where such a copy is all that is left of a VM, its guest's memory is lost with its source; it binds the VM and
would keep it down for ever. Beside the VM's own run it would bind it to a node for ever. It is discarded for the
recorded reason that no migration of that VM leads there and that it is not the VM; its agent refuses if the copy
has run (S8, S13). A source that such a migration has left finished is ended, and its run begun anew. Pure: decides.
"""

from __future__ import annotations

from aggregator.core.arming import why_held
from aggregator.core.copies import end_source, is_stuck_finished
from aggregator.core.draft import Draft
from aggregator.core.lookups import HALVES, can_order, current_report, open_orders
from aggregator.core.state import Binding, State, VmRecord
from fleet.messages import DiscardIncoming
from fleet.model import QemuState

WAIT_S = 10.0  # two agents that know of each other end a hand-over without us


def decide_orphans(draft: Draft) -> None:
    """Have the halves discarded that stand alone, or beside the run on its owner's node."""
    state = draft.state
    for vm in state.derived.active_vms:
        if vm.migration:
            continue
        if vm.run_open and vm.stopping is None and is_stuck_finished(draft, vm, vm.owner):
            end_source(draft, vm, state.nodes[vm.owner])
            continue
        alone = len(vm.bindings) == 1
        for binding in vm.bindings:
            if _is_half(state, vm, binding) and (alone or (binding.node != vm.owner and _runs_at_home(state, vm))):
                _discard(draft, vm, binding)


def _is_half(state: State, vm: VmRecord, binding: Binding) -> bool:
    """Return whether there is an incoming half, or the mere permit for one at an epoch that is nobody's."""
    report = current_report(state, vm, binding.node)
    if report is None:
        return False
    return report.state in HALVES or (
        report.state is QemuState.GONE and not report.released and report.epoch > vm.epoch
    )


def _runs_at_home(state: State, vm: VmRecord) -> bool:
    report = current_report(state, vm, vm.owner)
    return report is not None and report.state is QemuState.RUNNING and report.epoch == vm.epoch


def _discard(draft: Draft, vm: VmRecord, binding: Binding) -> None:
    node, report = draft.state.nodes[binding.node], current_report(draft.state, vm, binding.node)
    if report is None or not can_order(node) or open_orders(draft.state, vm):
        return
    if why_held(draft.state, node=node.name, vm=vm.name):
        return
    if draft.due(max(vm.retry_at, node.session_since + WAIT_S, binding.since + WAIT_S)):
        body = DiscardIncoming(migration="")
        why = "no migration leads here any more, and nothing else of it is left"
        draft.order(node, vm, body, epoch=max(report.epoch, vm.epoch), reason=why)
