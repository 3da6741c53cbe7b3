"""A rescue through the libvirtd of a host whose agent is gone, times everything that can die or wake at each stage.

Judged as the migration's matrix is: by the ground truth. The dead end of a rescue is that nobody says how the
source ended; then the VM waits for its agent, which comes back when all is healed.
"""

from __future__ import annotations

import pytest

from simulator.faults import Signal, strike
from simulator.plan import NodePlan, WorldPlan
from simulator.run import Player, Story
from simulator.story import read_story
from simulator.swarm import heal_everything
from simulator.world import World
from tests.simulation.test_migration_matrix import LOSSES, SOURCE, STAGES, TARGET, Stage, problems

GONE_AT_S = 30.0
HEALED_AT_S = 170.0
END_S = 320.0
HEAD = "{nodes: 3, vms: [{name: a, node: n1}], config: {rescueAfter: 10s}}"
RESCUE_STAGES = {name: seen for name, seen in STAGES.items() if name != "copy runs"}


def _wake(world: World) -> None:
    strike(world, Signal(at=0.0, verb="resume", target=f"agent@{SOURCE}"))


def _back(world: World) -> None:
    strike(world, Signal(at=0.0, verb="start", target=f"agent@{SOURCE}"))


CASES = {
    **{(f"{loss}", "kill"): blow for loss, blow in LOSSES.items() if "source agent" not in loss},
    ("source agent wakes", "pause"): _wake,
    ("source agent starts anew", "kill"): _back,
    ("source host", "pause"): LOSSES["source host"],
    ("target agent", "pause"): LOSSES["target agent"],
    ("source libvirtd", "pause"): LOSSES["source libvirtd"],
}


def play(stage: str, loss: str, how: str, seed: int) -> tuple[Player, Stage]:
    """Return what came of one cell."""
    nodes = tuple(NodePlan(name=f"n{n}", supervised=False) for n in (1, 2, 3))
    story = read_story(HEAD, "cell")
    plan = WorldPlan(seed=seed, config=story.plan.config, nodes=nodes, vms=story.plan.vms)
    player = Player(Story(name=f"{loss} at: {stage}", plan=plan, until=END_S))
    world = player.world
    delay_s = 0.0 if seed == 0 else world.random_of("moment").uniform(0.0, 0.5)

    def blow() -> None:
        world.queue.after(delay_s, lambda: CASES[loss, how](world))

    at = Stage(player, RESCUE_STAGES[stage], blow)
    world.queue.at(20.0, lambda: player.person("cordon", {"node": "n3"}))
    world.queue.at(GONE_AT_S, lambda: strike(world, Signal(at=0.0, verb=how, target=f"agent@{SOURCE}")))
    world.queue.at(100.0, lambda: player.person("uncordon", {"node": "n3"}))
    world.queue.at(HEALED_AT_S, lambda: heal_everything(world))
    player.play()
    player.checkers.check_liveness()
    return player, at


def cell(stage: str, loss: str, how: str, seed: int) -> None:
    """Play one cell and check it."""
    player, at = play(stage, loss, how, seed)
    assert at.struck, f"seed {seed} never came to: {stage}"
    assert problems(player, loss) == [], "\n".join(player.text)


@pytest.mark.parametrize(("loss", "how"), CASES)
@pytest.mark.parametrize("stage", RESCUE_STAGES)
def test_whatever_dies_or_wakes_in_the_very_step(stage: str, loss: str, how: str) -> None:
    """One QEMU in the end, and never two whose CPUs may run."""
    cell(stage, loss, how, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "how"), CASES)
@pytest.mark.parametrize("stage", RESCUE_STAGES)
def test_whatever_dies_or_wakes_a_moment_later(stage: str, loss: str, how: str) -> None:
    """The same within half a second of the step, with other durations of everything."""
    for seed in range(1, 6):
        cell(stage, loss, how, seed)


def test_without_any_fault_it_is_moved_and_never_started_anew() -> None:
    player, _ = play("succeeded", "source agent starts anew", "kill", 0)
    truth = player.world.truth.by_name("a")
    assert truth is not None
    assert ([q.host for q in truth.running()], truth.starts) == ([TARGET], 0)
