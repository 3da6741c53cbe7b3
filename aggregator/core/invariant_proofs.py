"""What must be so when a binding is freed or a node is taken for inert: the table of proofs once more, and S11.

Written apart from proofs.py, which decides by the same table: what one of the two forgets the other sees. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from aggregator.core import events as ev
from aggregator.core.events import NodeState, PowerAnswer, ProofKind, Transition
from aggregator.core.fencing_device import devices_of
from aggregator.core.lookups import open_orders
from aggregator.core.state import Binding, NodeRecord, State, Suspicion, VmRecord
from fleet.messages import StartVm
from fleet.model import LedgerState, QemuState

Decided = Sequence[Transition]
APART_S_MIN = 0.5
OF_THE_NODE = (ProofKind.POWER_OFF, ProofKind.CRASH_KERNEL)


def binding_is_proven(state: State, event: ev.BindingFreed, _decided: Decided) -> str:
    """S2: the proof that a binding is freed by is one."""
    vm, node = state.vms.get(event.vm), state.nodes.get(event.node)
    binding = _binding(vm, event) if vm is not None else None
    if vm is None or node is None or binding is None:
        return f"{event.vm} is freed of {event.node}, to which it is not bound"
    if _inert_since(node, binding) or (vm.gone_confirmed_at and binding.since < vm.gone_confirmed_at):
        known = event.proof in (*OF_THE_NODE, ProofKind.OPERATOR)
    elif event.proof is ProofKind.REBOOTED:
        known = _rebooted(node, binding)
    elif event.proof in (ProofKind.RELEASED, ProofKind.NOT_HERE):
        known = _said(vm, node, binding, event.proof) or _read_through_libvirt(state, vm, binding, event)
    else:
        known = False
    return "" if known else f"{event.vm} is freed of {event.node} by {event.proof}, which nothing shows"


def _binding(vm: VmRecord, event: ev.BindingFreed) -> Binding | None:
    named = (event.node, event.boot_id, event.epoch)
    return next((b for b in vm.bindings if (b.node, b.boot_id, b.epoch) == named), None)


def _inert_since(node: NodeRecord, binding: Binding) -> bool:
    inert = node.inert
    return inert is not None and inert.boot_id == binding.boot_id and binding.since <= inert.at


def _rebooted(node: NodeRecord, binding: Binding) -> bool:
    facts, session = node.facts, node.session
    if facts is None or session is None or not node.connected or node.via:
        return False
    same_machine = bool(node.host_uuid) and (facts.host_uuid, facts.machine_id) == (node.host_uuid, node.machine_id)
    return same_machine and session.boot_id != binding.boot_id


def _said(vm: VmRecord, node: NodeRecord, binding: Binding, proof: ProofKind) -> bool:
    """Return whether the node says so itself, in a session that may say it."""
    session, seen = node.session, vm.reports.get(node.name)
    if not node.connected or session is None or session.boot_id != binding.boot_id:
        return False
    if node.ledger is LedgerState.LOST:
        return False
    gone = seen is None or (seen.session == session and seen.report.state is QemuState.GONE)
    if proof is ProofKind.RELEASED:
        return gone and seen is not None and seen.report.released and seen.report.epoch >= binding.epoch
    if not gone or not node.complete:
        return False
    foreign = binding.why == "foreign" and seen is not None and not seen.report.epoch
    in_hand = any(hand.uuid == vm.uuid for hand in node.in_hand)
    return foreign or (node.session_since > binding.since and not in_hand)


def _read_through_libvirt(state: State, vm: VmRecord, binding: Binding, event: ev.BindingFreed) -> bool:
    """Return whether a rescue's target has read there that the VM was migrated away."""
    migration = state.migrations.get(vm.migration)
    if migration is None or not (migration.rescue and migration.source_read) or event.proof is not ProofKind.RELEASED:
        return False
    target = [b for b in vm.bindings if (b.node, b.epoch) == (migration.target, migration.epoch)]
    return bool(target) and (migration.source, migration.source_epoch) == (binding.node, binding.epoch)


def result_is_known(state: State, event: ev.BindingFreed, _decided: Decided) -> str:
    """S11: "not here" says nothing about a start that the same session was ordered and has not answered."""
    vm, node = state.vms.get(event.vm), state.nodes.get(event.node)
    if vm is None or node is None or event.proof is not ProofKind.NOT_HERE:
        return ""
    for record in open_orders(state, vm):
        unanswered = isinstance(record.order.body, StartVm) and record.outcome is None and not record.dropped
        if unanswered and record.node == event.node and record.order.session == node.session:
            return f"{event.vm} is freed of {event.node} while {record.order.order_id} may yet start it there"
    return ""


def fenced_by_proof(state: State, event: ev.NodeStateChanged, decided: Decided) -> str:
    """S2: Fenced is never entered without a proof, and left only by a new boot."""
    node = state.nodes.get(event.node)
    if event.state is NodeState.FENCED:
        proven = any(isinstance(e, ev.NodeProven) and e.node == event.node for e in decided)
        return "" if proven else f"{event.node} is Fenced without a proof"
    inert = node.inert if node is not None and node.state is NodeState.FENCED else None
    stays = node is not None and inert is not None and node.boot_id == inert.boot_id
    return f"{event.node} leaves Fenced in the boot that was proven inert" if stays else ""


def node_is_proven(state: State, event: ev.NodeProven, _decided: Decided) -> str:
    """S2: the proof that a whole node is inert is one."""
    node = state.nodes.get(event.node)
    if node is None or event.boot_id != node.boot_id:
        return f"{event.node} is proven inert, which is not the boot that is known"
    match event.proof:
        case ProofKind.OPERATOR:
            known = node.off_confirmed_at > node.last_sign and node.off_confirmed_at >= node.last_order_at
        case ProofKind.POWER_OFF:
            known = _read_off(node)
        case ProofKind.CRASH_KERNEL:
            crashed = node.suspicion.crashed if node.suspicion is not None else None
            known = crashed is not None and crashed.asked_at >= _last_life(node, node.suspicion)
        case _:
            known = False
    return "" if known else f"{event.node} is proven inert by {event.proof}, which nothing shows"


def _last_life(node: NodeRecord, suspicion: Suspicion | None) -> float:
    return max(suspicion.since if suspicion is not None else 0.0, node.last_sign, node.last_order_at)


def _read_off(node: NodeRecord) -> bool:
    """Return whether every device of one trusted rung said off twice, apart, asked after the last sign of life."""
    suspicion = node.suspicion
    if suspicion is None or not suspicion.reads or node.state in (NodeState.UP, NodeState.JOINING):
        return False
    number = suspicion.reads[-1].rung
    if number >= len(node.spec.fencing):
        return False
    since, place = _last_life(node, suspicion), sum(len(devices_of(rung)) for rung in node.spec.fencing[:number])
    for device in range(len(devices_of(node.spec.fencing[number]))):
        reads = [r for r in suspicion.reads if (r.rung, r.device) == (number, device)]
        offs = [r for r in reads if r.answer is PowerAnswer.OFF and r.asked_at >= since]
        if len(offs) < 2 or reads[-1].answer is not PowerAnswer.OFF:  # noqa: PLR2004 (read twice)
            return False
        if offs[-1].asked_at - offs[0].answered_at < APART_S_MIN:
            return False
        ready = node.readiness[place + device] if place + device < len(node.readiness) else None
        if ready is None or not ready.on_at or not ready.identity or ready.distrusted:
            return False
    return True
