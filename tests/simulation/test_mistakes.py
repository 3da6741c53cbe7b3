"""The checker can fail: known mistakes are planted one at a time, and the seeds must find each of them."""

from collections.abc import Callable

import pytest

from aggregator.core.draft import Draft
from aggregator.core.events import PowerAnswer, ProofKind
from aggregator.core.lookups import CONVICTED
from aggregator.core.proofs import binding_proof, off_proof
from aggregator.core.state import Binding, NodeRecord, State, VmRecord
from fleet.model import EndReason
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


MISTAKES: tuple[Plant, ...] = (
    start_on_time_out,
    owner_instead_of_bound_set,
    fence_done_taken_for_off,
    one_reading_is_enough,
    no_brake,
)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("plant", MISTAKES, ids=lambda plant: plant.__name__)
def test_a_planted_mistake_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    found = next((seed for seed in range(1, SEEDS_MAX + 1) if _unsafe(seed)), None)
    assert found is not None


def _unsafe(seed: int) -> bool:
    return any(violation.invariant in ("S1", "S2", "S6") for violation in run_seed(seed).violations)
