"""Which nodes may still hold the definition of a deleted VM. Assigns to the state; called by fold only."""

from __future__ import annotations

from collections.abc import Mapping

from aggregator.core.state import EPOCHS_PAST_MAX, Leftover, NodeRecord, OrderRecord, State, VmRecord
from fleet.model import OrderOutcome, QemuState, VmReport


def leave(state: State, vm: VmRecord) -> None:
    """A VM is removed: note the nodes that knew its definition when they were last heard."""
    for name, seen in vm.reports.items():
        if name in state.nodes and seen.report.definition_hash:
            state.leftovers[_key(name, vm.uuid)] = Leftover(name, vm.uuid, vm.name, vm.epoch_top)
    for key in list(state.leftovers)[: len(state.leftovers) - EPOCHS_PAST_MAX]:
        del state.leftovers[key]


def take(state: State, node: NodeRecord, said: Mapping[str, VmReport], *, full: bool) -> None:
    """Note what a node says of deleted VMs: defined and not running, or no longer there."""
    for key, left in list(state.leftovers.items()):
        if left.node != node.name:
            continue
        report = said.get(left.uuid)
        if report is None:
            if full and node.complete:
                del state.leftovers[key]
        elif report.state is QemuState.GONE and not report.definition_hash:
            del state.leftovers[key]
        else:
            left.session = node.session if report.state is QemuState.GONE and report.epoch <= left.epoch else None


def ordered(state: State, node: str, uuid: str, at: float) -> None:
    """A node was told to undefine it."""
    left = state.leftovers.get(_key(node, uuid))
    if left is not None:
        left.asked_at = at


def closed(state: State, record: OrderRecord) -> None:
    """An order about a deleted VM is over."""
    if record.outcome is OrderOutcome.DONE:
        state.leftovers.pop(_key(record.node, record.order.uuid), None)


def forget(state: State, *, uuid: str = "", node: str = "") -> None:
    """The VM is applied again under its uuid, or the node leaves the fleet."""
    for key in [key for key, left in state.leftovers.items() if left.uuid == uuid or left.node == node]:
        del state.leftovers[key]


def _key(node: str, uuid: str) -> str:
    return f"{node} {uuid}"
