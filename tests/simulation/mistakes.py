"""Known mistakes, each planted into the shipped code by one function: what the checker must find.

Each is a thing that somebody could well have written; its docstring says what they would have thought.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from agent.acceptance import Verdict, judge
from agent.arrivals import Arrivals
from agent.desk import Desk
from agent.keeper_types import Create, MessageReceived
from agent.records import Promise, Standing
from agent.works import Works
from aggregator.act import fence_answer
from aggregator.act.fence_answer import ProgramEnded
from aggregator.core.draft import Draft
from aggregator.core.events import NodeState, PowerAnswer, ProofKind
from aggregator.core.lookups import CONVICTED, open_orders
from aggregator.core.proofs import binding_proof, off_proof
from aggregator.core.state import Binding, NodeRecord, State, VmRecord
from fleet.messages import FromAggregator, Order
from fleet.model import EndReason, QemuState, SessionKey
from simulator.agent import SimulatedAgent
from simulator.connection import Connection

BindingProof = tuple[ProofKind, EndReason] | None
NodeProof = tuple[ProofKind, str] | None
Plant = Callable[[pytest.MonkeyPatch], None]

BELIEVED = (ProofKind.POWER_OFF, EndReason.NOT_ENDED)


def start_on_time_out(patch: pytest.MonkeyPatch) -> None:
    """A node that is Lost is taken for inert."""

    def wrong(state: State, vm: VmRecord, binding: Binding) -> BindingProof:
        if state.nodes[binding.node].state in CONVICTED:
            return BELIEVED
        return binding_proof(state, vm, binding)

    patch.setattr("aggregator.core.runs.binding_proof", wrong)


def proof_skipped(patch: pytest.MonkeyPatch) -> None:
    """A node that does not speak cannot hold anything."""

    def wrong(state: State, vm: VmRecord, binding: Binding) -> BindingProof:
        return binding_proof(state, vm, binding) if state.nodes[binding.node].connected else BELIEVED

    patch.setattr("aggregator.core.runs.binding_proof", wrong)


def proof_older_than_the_suspicion(patch: pytest.MonkeyPatch) -> None:
    """It was proven off once, so it is off again now."""

    def wrong(draft: Draft, node: NodeRecord) -> NodeProof:
        before = any(line.kind == "NodeProven" and line.node == node.name for line in draft.state.history)
        if before and node.state in (NodeState.LOST, NodeState.FENCING):
            return ProofKind.POWER_OFF, "it was proven off"
        return off_proof(draft, node)

    patch.setattr("aggregator.core.nodes.off_proof", wrong)


def no_epoch_check(patch: pytest.MonkeyPatch) -> None:
    """A release is a release, of whatever epoch; and an agent does what it is told, however old."""

    def wrong(state: State, vm: VmRecord, binding: Binding) -> BindingProof:
        node, seen = state.nodes[binding.node], vm.reports.get(binding.node)
        if seen is not None and node.connected and seen.session == node.session:
            report = seen.report
            if report.released and report.state is QemuState.GONE:
                return ProofKind.RELEASED, report.end
        return binding_proof(state, vm, binding)

    patch.setattr("aggregator.core.runs.binding_proof", wrong)
    patch.setattr("agent.acceptance._judge_epoch_and_run", lambda _desk, _order: None)


def no_session_check(patch: pytest.MonkeyPatch) -> None:
    """An order is an order, whichever session it names and whichever socket it comes out of."""

    def wrong(desk: Desk, session: SessionKey | None, order: Order) -> Verdict | None:
        return judge(desk, order.session if session is not None else None, order)

    def take(agent: SimulatedAgent, connection: Connection, message: FromAggregator) -> None:
        if agent.connection is not None and (connection is agent.connection or isinstance(message, Order)):
            agent.give(MessageReceived(agent.connection.link, message))

    def closes(connection: Connection, how: str = "closed") -> None:
        if not connection.agent.alive:  # its kernel closes what it left open
            close(connection, how)

    close = Connection.agent_closes
    patch.setattr(Connection, "agent_closes", closes)
    patch.setattr(SimulatedAgent, "take", take)
    patch.setattr("agent.works.judge", wrong)


def owner_instead_of_bound_set(patch: pytest.MonkeyPatch) -> None:
    """Only the owner's node has to be inert; start targets that did not answer are forgotten."""

    def wrong(state: State, vm: VmRecord, binding: Binding) -> BindingProof:
        node = state.nodes[binding.node]
        if binding.why != "owner" and not node.connected:
            return ProofKind.NOT_HERE, EndReason.NOT_ENDED
        return binding_proof(state, vm, binding)

    patch.setattr("aggregator.core.runs.binding_proof", wrong)


def failed_taken_for_released(patch: pytest.MonkeyPatch) -> None:
    """A start without an open order is over, whatever became of it; so is what no order speaks for."""

    def wrong(state: State, vm: VmRecord, binding: Binding) -> BindingProof:
        if binding.why == "start" and not open_orders(state, vm):
            return ProofKind.RELEASED, EndReason.CRASHED
        return binding_proof(state, vm, binding)

    patch.setattr("aggregator.core.runs.binding_proof", wrong)


def amnesia_after_restart(patch: pytest.MonkeyPatch) -> None:
    """A node that this life has not heard yet holds nothing."""

    def wrong(state: State, vm: VmRecord, binding: Binding) -> BindingProof:
        if not state.nodes[binding.node].seen:
            return ProofKind.NOT_HERE, EndReason.NOT_ENDED
        return binding_proof(state, vm, binding)

    patch.setattr("aggregator.core.runs.binding_proof", wrong)


def no_brake(patch: pytest.MonkeyPatch) -> None:
    """However many nodes fall silent, all are shot."""
    for place in ("nodes", "fencing"):
        patch.setattr(f"aggregator.core.{place}.brake_limit", lambda _state: 1000)


def fence_done_taken_for_off(patch: pytest.MonkeyPatch) -> None:
    """The program said it was carried out: nobody reads the power afterwards."""

    def wrong(draft: Draft, node: NodeRecord) -> NodeProof:
        if node.attempt is not None and node.attempt.off_sent_at:
            return ProofKind.POWER_OFF, "an off order was sent"
        return off_proof(draft, node)

    patch.setattr("aggregator.core.nodes.off_proof", wrong)


def one_reading_is_enough(patch: pytest.MonkeyPatch) -> None:
    """A device that is early by up to a second is believed at its first word."""

    def wrong(draft: Draft, node: NodeRecord) -> NodeProof:
        read = node.suspicion.reads[-1] if node.suspicion is not None and node.suspicion.reads else None
        if read is not None and read.answer is PowerAnswer.OFF:
            return ProofKind.POWER_OFF, "the device said off"
        return off_proof(draft, node)

    patch.setattr("aggregator.core.nodes.off_proof", wrong)


def exit_2_taken_for_off(patch: pytest.MonkeyPatch) -> None:
    """Exit status 2 of a status question means off; so fence-agents' manual says."""

    def wrong(question: str, ended: ProgramEnded) -> PowerAnswer:
        if question == "status" and ended.exit_code == fence_answer.STATUS_OFF_EXIT:
            return PowerAnswer.OFF
        return fence_answer.judge(question, ended)

    patch.setattr("simulator.aggregator.judge", wrong)


def swapped_device_believed(patch: pytest.MonkeyPatch) -> None:
    """Whoever answers at the address is the node's own device; nobody else is asked whether he lives."""
    for place in ("proofs", "fence_questions"):
        patch.setattr(f"aggregator.core.{place}.rung_is_trusted", lambda _node, _rung: True)
    patch.setattr("aggregator.core.proofs._another_may_have_died", lambda *_arguments: False)


def dead_nodes_vm_resumed_on_its_return(patch: pytest.MonkeyPatch) -> None:
    """What ran here when the power went runs here again when it is back."""

    def wrong(works: Works) -> None:
        desk = works.desk
        before = desk.memory.session
        if before is not None and before.boot_id != desk.settings.boot_id:
            for promise in desk.memory.promises.values():
                if promise.standing is Standing.RUNS:
                    desk.call(promise.uuid, Create())
        recover(works)

    recover = Works.recover
    patch.setattr(Works, "recover", wrong)


def hand_over_trusts_libvirts_reply(patch: pytest.MonkeyPatch) -> None:
    """A copy that libvirt calls complete is resumed, as it does itself; its source is over, it says."""

    def wrong(arrivals: Arrivals, promise: Promise) -> bool:
        return arrivals.desk.state(promise.uuid) in (QemuState.ARRIVED, QemuState.PAUSED)

    patch.setattr(Arrivals, "wanted", wrong)


def store_rolled_back_and_trusted(patch: pytest.MonkeyPatch) -> None:
    """What the journal says is so, whatever copy of it was read and whatever agents have obeyed."""
    for name in ("take_mark", "take_highest"):
        patch.setattr(f"aggregator.core.fold_store.{name}", lambda *_arguments: None)


def local_restart_without_a_lease(patch: pytest.MonkeyPatch) -> None:
    """What failed here and is to run is begun again here; who else should have begun it meanwhile?"""
    patch.setattr("agent.alone.may_restart", lambda isolation, _lease_from_s, _now_s: isolation.restart)


def acts_after_its_leadership_is_over(patch: pytest.MonkeyPatch) -> None:
    """It was the leader when it decided, so it may act."""
    patch.setattr("simulator.seat.Seat.is_fresh", lambda _seat: True)


MISTAKES: tuple[Plant, ...] = (
    start_on_time_out,
    proof_skipped,
    proof_older_than_the_suspicion,
    no_epoch_check,
    no_session_check,
    owner_instead_of_bound_set,
    failed_taken_for_released,
    amnesia_after_restart,
    no_brake,
    fence_done_taken_for_off,
    one_reading_is_enough,
    exit_2_taken_for_off,
    swapped_device_believed,
    dead_nodes_vm_resumed_on_its_return,
    hand_over_trusts_libvirts_reply,
    store_rolled_back_and_trusted,
    acts_after_its_leadership_is_over,
    local_restart_without_a_lease,
)
