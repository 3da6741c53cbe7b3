"""The checker can fail: known mistakes are planted one at a time, and the seeds must find each of them."""

import pytest

from simulator.swarm import run_seed
from tests.simulation.mistakes import MISTAKES, Plant

SEEDS_MAX = 2000
UNSAFE = ("S1", "S2", "S6")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("plant", MISTAKES, ids=lambda plant: plant.__name__)
def test_a_planted_mistake_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    found = next((seed for seed in range(1, SEEDS_MAX + 1) if _unsafe(seed)), None)
    assert found is not None


def _unsafe(seed: int) -> bool:
    return any(violation.invariant in UNSAFE for violation in run_seed(seed).violations)
