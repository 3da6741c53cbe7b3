"""What must be so of every order when it is decided. Pure. See invariants.py."""

from __future__ import annotations

from collections.abc import Sequence

from aggregator.core import events as ev
from aggregator.core.events import Transition
from aggregator.core.lookups import current_report
from aggregator.core.state import State
from fleet.messages import DestroyVm, DiscardIncoming, StartVm, UndefineVm
from fleet.model import QemuState

Decided = Sequence[Transition]
POWER = ("off", "on")


def carries_all(state: State, event: ev.OrderIssued, decided: Decided) -> str:
    """S3: this leader, the session that stands, an epoch that exists."""
    order, node = event.order, state.nodes.get(event.node)
    told, leader = order.leader, state.leader
    if (told.term, told.instance) != (leader.term, leader.instance) or told.position <= leader.position:
        return f"{order.order_id} to {event.node} names a leadership that is not this one"
    if node is None or not node.connected or node.session != order.session:
        return f"{order.order_id} to {event.node} names session {order.session.number}, which does not stand"
    vm = state.vms.get(event.vm)
    if vm is None or order.uuid != vm.uuid:
        return "" if isinstance(order.body, UndefineVm) else f"{order.order_id} names a VM that is not known"
    begun = [e for e in decided if isinstance(e, ev.StartDecided | ev.MigrationChanged) and e.vm == event.vm]
    if isinstance(order.body, StartVm):
        if any((e.epoch, e.node) == (order.epoch, event.node) for e in begun if isinstance(e, ev.StartDecided)):
            return ""
        return f"{order.order_id} starts {event.vm} at epoch {order.epoch}, which was not decided with it"
    if order.epoch > max([vm.epoch_top, *(e.epoch for e in begun)]):
        return f"{order.order_id} for {event.vm} names epoch {order.epoch}; known is {vm.epoch_top}"
    return ""


def leads(state: State, event: Transition, _decided: Decided) -> str:
    """S5: one that only reconciles acts on nobody."""
    harmless = isinstance(event, ev.FenceAsked) and event.question not in POWER
    if not state.behind or harmless:
        return ""
    return f"{type(event).__name__} is decided while this aggregator only reconciles: {state.behind}"


def ends_for_a_reason(state: State, event: ev.OrderIssued, _decided: Decided) -> str:
    """S8: never absence; a copy ends only below the owner's epoch, while the owner's node says that its own runs."""
    order, vm = event.order, state.vms.get(event.vm)
    body = order.body
    if not isinstance(body, DestroyVm | UndefineVm | DiscardIncoming):
        return ""
    what = f"{order.order_id} ({type(body).__name__} of {order.name} on {event.node})"
    if not event.reason:
        return f"{what} has no reason"
    if isinstance(body, UndefineVm):
        return "" if vm is None or vm.deleting else f"{what}: nobody has deleted the VM"
    if vm is None:
        return f"{what} names a VM that is not known"
    if isinstance(body, DiscardIncoming):
        at_home = vm.owner == event.node and vm.run_open and order.epoch >= vm.epoch
        return f"{what} would end the VM itself, at epoch {order.epoch}" if at_home else ""
    if order.epoch > vm.epoch:
        return f"{what} names epoch {order.epoch}, the owner's is {vm.epoch}"
    if order.epoch < vm.epoch:
        owner = current_report(state, vm, vm.owner)
        if vm.owner == event.node or owner is None or owner.state is not QemuState.RUNNING:
            return f"{what} ends a copy though {vm.owner or 'no node'} does not say that its own runs"
    return ""


def is_new(state: State, event: ev.OrderIssued, decided: Decided) -> str:
    """S12: an order's id is used once."""
    order_id = event.order.order_id
    twice = sum(1 for e in decided if isinstance(e, ev.OrderIssued) and e.order.order_id == order_id) > 1
    return f"{order_id} is issued a second time" if twice or order_id in state.orders else ""
