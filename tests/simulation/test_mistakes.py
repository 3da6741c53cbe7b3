"""The checker can fail: known mistakes are planted one at a time, and the seeds must find each of them."""

from collections.abc import Callable

import pytest

from agent.acceptance import Verdict, judge
from agent.desk import Desk
from aggregator.core.draft import Draft
from aggregator.core.events import PowerAnswer, ProofKind
from aggregator.core.lookups import CONVICTED, open_orders
from aggregator.core.proofs import binding_proof, off_proof
from aggregator.core.state import Binding, NodeRecord, State, VmRecord
from fleet.messages import Order
from fleet.model import EndReason, SessionKey
from simulator.swarm import run_seed

SEEDS_MAX = 2000

Proof = tuple[ProofKind, EndReason] | None
Plant = Callable[[pytest.MonkeyPatch], None]


def start_on_time_out(patch: pytest.MonkeyPatch) -> None:
    """A node that is Lost is taken for inert."""

    def wrong(state: State, vm: VmRecord, binding: Binding) -> Proof:
        if state.nodes[binding.node].state in CONVICTED:
            return ProofKind.POWER_OFF, EndReason.NOT_ENDED
        return binding_proof(state, vm, binding)

    patch.setattr("aggregator.core.runs.binding_proof", wrong)


def owner_instead_of_bound_set(patch: pytest.MonkeyPatch) -> None:
    """Only the owner's node has to be inert; start targets that did not answer are forgotten."""

    def wrong(state: State, vm: VmRecord, binding: Binding) -> Proof:
        node = state.nodes[binding.node]
        if binding.why != "owner" and not node.connected:
            return ProofKind.NOT_HERE, EndReason.NOT_ENDED
        return binding_proof(state, vm, binding)

    patch.setattr("aggregator.core.runs.binding_proof", wrong)


def fence_done_taken_for_off(patch: pytest.MonkeyPatch) -> None:
    """The program said it was carried out: nobody reads the power afterwards."""

    def wrong(draft: Draft, node: NodeRecord) -> tuple[ProofKind, str] | None:
        if node.attempt is not None and node.attempt.off_sent_at:
            return ProofKind.POWER_OFF, "an off order was sent"
        return off_proof(draft, node)

    patch.setattr("aggregator.core.nodes.off_proof", wrong)


def one_reading_is_enough(patch: pytest.MonkeyPatch) -> None:
    """A device that is early by up to a second is believed at its first word."""

    def wrong(draft: Draft, node: NodeRecord) -> tuple[ProofKind, str] | None:
        read = node.suspicion.reads[-1] if node.suspicion is not None and node.suspicion.reads else None
        if read is not None and read.answer is PowerAnswer.OFF:
            return ProofKind.POWER_OFF, "the device said off"
        return off_proof(draft, node)

    patch.setattr("aggregator.core.nodes.off_proof", wrong)


def no_brake(patch: pytest.MonkeyPatch) -> None:
    """However many nodes fall silent, all are shot."""
    patch.setattr("aggregator.core.nodes.brake_limit", lambda _state: 1000)


def failed_taken_for_released(patch: pytest.MonkeyPatch) -> None:
    """A start without an open order is over, whatever became of it; so is what no order speaks for."""

    def wrong(state: State, vm: VmRecord, binding: Binding) -> Proof:
        if binding.why == "start" and not open_orders(state, vm):
            return ProofKind.RELEASED, EndReason.CRASHED
        return binding_proof(state, vm, binding)

    patch.setattr("aggregator.core.runs.binding_proof", wrong)


def amnesia_after_restart(patch: pytest.MonkeyPatch) -> None:
    """A node that this life has not heard yet holds nothing."""

    def wrong(state: State, vm: VmRecord, binding: Binding) -> Proof:
        if not state.nodes[binding.node].seen:
            return ProofKind.NOT_HERE, EndReason.NOT_ENDED
        return binding_proof(state, vm, binding)

    patch.setattr("aggregator.core.runs.binding_proof", wrong)


def swapped_device_believed(patch: pytest.MonkeyPatch) -> None:
    """Whoever answers at the address is the node's own device; nobody else is asked whether he lives."""
    for place in ("proofs", "fence_questions"):
        patch.setattr(f"aggregator.core.{place}.rung_is_trusted", lambda _node, _rung: True)
    patch.setattr("aggregator.core.proofs._another_may_have_died", lambda *_arguments: False)


def no_session_check(patch: pytest.MonkeyPatch) -> None:
    """An agent begins what was ordered in a session that is over."""

    def wrong(desk: Desk, session: SessionKey | None, order: Order) -> Verdict | None:
        return judge(desk, order.session if session is not None else None, order)

    patch.setattr("agent.works.judge", wrong)


MISTAKES: tuple[Plant, ...] = (
    start_on_time_out,
    owner_instead_of_bound_set,
    fence_done_taken_for_off,
    one_reading_is_enough,
    no_brake,
    failed_taken_for_released,
    amnesia_after_restart,
    swapped_device_believed,
    no_session_check,
)


RARE = (no_session_check,)
NOT_YET = pytest.mark.xfail(
    run=False,
    reason="2,000 seeds do not find it: the stories leave too few orders in sockets. "
    "What once passed for finding it, seed 1650, was another mistake, since mended",
)
"""Found late in the seeds: only in make test-all."""


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "plant",
    [pytest.param(plant, marks=NOT_YET if plant in RARE else ()) for plant in MISTAKES],
    ids=lambda plant: plant.__name__,
)
def test_a_planted_mistake_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    found = next((seed for seed in range(1, SEEDS_MAX + 1) if _unsafe(seed)), None)
    assert found is not None


def _unsafe(seed: int) -> bool:
    return any(violation.invariant in ("S1", "S2", "S6") for violation in run_seed(seed).violations)
