"""The checker can fail: known mistakes are planted one at a time, and the seeds must find each of them.

Most have to be found twice: by the ground truth alone, with the core's own invariants silenced, as if the same
mistake stood there too; and by those invariants, which then let no deed of it leave.
"""

import pytest

from simulator.swarm import run_seed
from tests.simulation.mistakes import MISTAKES, Plant, no_epoch_check, no_session_check
from tests.simulation.mistakes import acts_after_its_leadership_is_over as acts_on
from tests.simulation.mistakes import dead_nodes_vm_resumed_on_its_return as resumed_on_return
from tests.simulation.mistakes import exit_2_taken_for_off as exit_2
from tests.simulation.mistakes import hand_over_trusts_libvirts_reply as trusts_reply
from tests.simulation.mistakes import local_restart_without_a_lease as restarts_alone
from tests.simulation.mistakes import store_rolled_back_and_trusted as trusts_store
from tests.simulation.mistakes import swapped_device_believed as swapped

SEEDS_MAX = 2000
UNSAFE = {"S1", "S2", "S5", "S6"}
BEYOND_THE_TRUTH = (no_epoch_check,)
"""What the agents' own checks make up for: no second QEMU comes of it. The core's invariants see it."""
BEYOND_THE_CORE = (
    no_session_check,
    exit_2,
    swapped,
    resumed_on_return,
    trusts_reply,
    trusts_store,
    acts_on,
    restarts_alone,
)
"""The core decides soundly on what it is told: what is wrong stands elsewhere, or looks the same to it."""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("plant", [p for p in MISTAKES if p not in BEYOND_THE_TRUTH], ids=lambda plant: plant.__name__)
def test_a_planted_mistake_is_found_by_the_truth(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    monkeypatch.setattr("aggregator.core.settle.broken_by", lambda _state, _decided: [])
    found = next((seed for seed in range(1, SEEDS_MAX + 1) if UNSAFE & _broken(seed).keys()), None)
    assert found is not None


@pytest.mark.timeout(900)
@pytest.mark.parametrize("plant", [p for p in MISTAKES if p not in BEYOND_THE_CORE], ids=lambda plant: plant.__name__)
def test_a_planted_mistake_is_held_back_by_the_core(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    broken = next((found for seed in range(1, SEEDS_MAX + 1) if UNSAFE & (found := _broken(seed)).keys()), {})
    assert any(text.startswith("the core was about to") for text in broken.values())
    assert "S1" not in broken


def _broken(seed: int) -> dict[str, str]:
    return {violation.invariant: violation.text for violation in run_seed(seed).violations}
