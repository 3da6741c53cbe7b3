"""Halves of migrations that nobody knows any more: the store that knew them went back, or they were begun by hand.

Where such a copy is all that is left of a VM, its guest's memory is lost with its source; it binds the VM and
would keep it down for ever. It is discarded for the recorded reason that no migration of that VM leads there
and that nothing else is bound; its agent refuses if the copy has run (S8, S13). Pure: decides.
"""

from __future__ import annotations

from aggregator.core.arming import why_held
from aggregator.core.draft import Draft
from aggregator.core.lookups import can_order, current_report, open_orders
from aggregator.core.state import Binding, State, VmRecord
from fleet.messages import DiscardIncoming
from fleet.model import QemuState

HALVES = (QemuState.INCOMING, QemuState.ARRIVED)
WAIT_S = 10.0  # two agents that know of each other end a hand-over without us


def decide_orphans(draft: Draft) -> None:
    """Have the halves discarded that stand alone."""
    state = draft.state
    for vm in state.derived.active_vms:
        if len(vm.bindings) == 1 and not vm.migration and _is_half(state, vm, vm.bindings[0]):
            _discard(draft, vm, vm.bindings[0])


def _is_half(state: State, vm: VmRecord, binding: Binding) -> bool:
    report = current_report(state, vm, binding.node)
    return report is not None and report.state in HALVES


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
