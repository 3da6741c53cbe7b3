"""A slice of made-up stories: faults of every kind, then healing. Never twice, and everything runs at last."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulator.swarm import run_seed

SEEDS_A_TEST = 20
ROOT = Path(__file__).parents[2]
KEPT = Path(__file__).with_name("seeds.txt")


def kept_seeds() -> list[int]:
    """Seeds that once failed, each with a word on what it found."""
    lines = KEPT.read_text(encoding="utf-8").splitlines()
    return [int(line.split()[0]) for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("first", range(1, 161, SEEDS_A_TEST))
def test_no_story_breaks_a_promise(first: int) -> None:
    seeds = range(first, first + SEEDS_A_TEST)
    bad = {seed: result.violations for seed in seeds if (result := run_seed(seed)).violations}
    assert bad == {}


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1001, 3001, 100))
def test_no_story_of_a_longer_row_breaks_a_promise(first: int) -> None:
    bad = {seed: result.violations for seed in range(first, first + 100) if (result := run_seed(seed)).violations}
    assert bad == {}


def test_what_once_failed_stays_mended() -> None:
    assert {seed: bad for seed in kept_seeds() if (bad := run_seed(seed).violations)} == {}


def test_stories_are_not_thin() -> None:
    """They have faults and recoveries in them, or they would show nothing."""
    results = [run_seed(seed) for seed in range(1, 21)]
    assert sum(sum(result.faults.values()) for result in results) >= 8 * len(results)
    assert sum(result.recoveries for result in results) >= len(results)


def test_same_seed_same_bytes() -> None:
    """Whatever PYTHONHASHSEED is: nothing may hang on the order of a set."""
    program = (
        "import sys; from simulator.swarm import make_story, play_seed; from simulator.command import text_of\n"
        "for seed in range(1, 6):\n"
        "    sys.stdout.write(text_of(play_seed(make_story(seed, None, None)[0]).performance()))"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "20260101")
    ]
    assert outputs[0] == outputs[1]
    assert len(outputs[0]) > 10_000
