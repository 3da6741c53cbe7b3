"""Every stage of a live migration times everything that can die at it: never two that run, and one in the end.

What runs is judged by the ground truth alone: the checkers look at every change of every QEMU, and the end is
one QEMU that runs where the aggregator says. A run is started anew only where its QEMU was lost with what died.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from aggregator.core.events import Event, MigrationChanged, MigrationPhase, OwnerChanged
from fleet.model import Plane, QemuState
from simulator.faults import Cut, Power, Signal, strike
from simulator.plan import NodePlan, WorldPlan
from simulator.run import Player, Story
from simulator.story import read_story
from simulator.swarm import heal_everything
from simulator.truth import VmTruth
from simulator.world import World

SOURCE, TARGET = "n1", "n2"
ASKED_AT_S = 30.0
HEALED_AT_S = 110.0
END_S = 240.0


def power(*hosts: str) -> Callable[[World], None]:
    """Power is gone until all is healed."""
    return partial(_strike, faults=tuple(Power(at=0.0, host=host, to="off") for host in hosts))


def kill(*targets: str) -> Callable[[World], None]:
    """SIGKILL; nothing comes back before all is healed."""
    return partial(_strike, faults=tuple(Signal(at=0.0, verb="kill", target=target) for target in targets))


def cut(host: str, direction: str) -> Callable[[World], None]:
    """The migration plane, so that libvirt's own words are lost."""
    return partial(_strike, faults=(Cut(at=0.0, host=host, planes=(Plane.MIGRATION,), direction=direction),))


def crash(host: str) -> Callable[[World], None]:
    """The QEMU on one host dies."""

    def strike_qemu(world: World) -> None:
        for qemu in list(world.hosts[host].qemus.values()):
            world.hosts[host].guest_does(qemu, "crash")

    return strike_qemu


def _strike(world: World, faults: tuple[Power | Signal | Cut, ...]) -> None:
    for fault in faults:
        strike(world, fault)


LOSSES: dict[str, Callable[[World], None]] = {
    "source host": power(SOURCE),
    "target host": power(TARGET),
    "both hosts": power(SOURCE, TARGET),
    "source agent": kill(f"agent@{SOURCE}"),
    "target agent": kill(f"agent@{TARGET}"),
    "both agents": kill(f"agent@{SOURCE}", f"agent@{TARGET}"),
    "source libvirtd": kill(f"libvirtd@{SOURCE}"),
    "target libvirtd": kill(f"libvirtd@{TARGET}"),
    "both libvirtds": kill(f"libvirtd@{SOURCE}", f"libvirtd@{TARGET}"),
    "source libvirtd and agent": kill(f"libvirtd@{SOURCE}", f"agent@{SOURCE}"),
    "target libvirtd and agent": kill(f"libvirtd@{TARGET}", f"agent@{TARGET}"),
    "aggregator": kill("aggregator@1"),
    "aggregator and both agents": kill("aggregator@1", f"agent@{SOURCE}", f"agent@{TARGET}"),
    "aggregator and source host": lambda world: _strike(
        world, (Signal(at=0.0, verb="kill", target="aggregator@1"), Power(at=0.0, host=SOURCE, to="off"))
    ),
    "source QEMU": crash(SOURCE),
    "target QEMU": crash(TARGET),
    "words to the source": cut(SOURCE, "in"),
    "words to the target": cut(TARGET, "in"),
}
MAY_END_THE_RUN = ("host", "QEMU", "libvirtd")
"""With these a QEMU may be lost that had run; without them the guest never boots again."""

Seen = Callable[[Event | None, VmTruth | None], bool]


def _phase(phase: MigrationPhase) -> Seen:
    return lambda event, _vm: isinstance(event, MigrationChanged) and event.phase is phase


def _qemu(host: str, state: QemuState) -> Seen:
    return lambda _event, vm: vm is not None and any((q.host, q.state) == (host, state) for q in vm.qemus)


def _source_gone(_event: Event | None, vm: VmTruth | None) -> bool:
    return vm is not None and [q.host for q in vm.qemus] == [TARGET]


STAGES: dict[str, Seen] = {
    "target asked": _phase(MigrationPhase.PREPARING),
    "source ordered": _phase(MigrationPhase.RUNNING),
    "copy begun": _qemu(TARGET, QemuState.INCOMING),
    "last pass done": _qemu(TARGET, QemuState.ARRIVED),
    "source gone": _source_gone,
    "owner changed": lambda event, _vm: isinstance(event, OwnerChanged),
    "copy runs": _qemu(TARGET, QemuState.RUNNING),
    "succeeded": _phase(MigrationPhase.SUCCEEDED),
}


class Stage:
    """Strikes once, at the first moment that is the stage: before any deed that follows from it."""

    def __init__(self, player: Player, is_it: Seen, blow: Callable[[], None]) -> None:
        self.struck = False
        self._is_it, self._blow, self._queue = is_it, blow, player.world.queue
        player.world.on_commit.append(lambda event, _state: self._look(event, None))
        player.world.truth.watchers.append(lambda vm, _why: self._look(None, vm))

    def _look(self, event: Event | None, vm: VmTruth | None) -> None:
        if self.struck or self._queue.now < ASKED_AT_S or not self._is_it(event, vm):
            return
        self.struck = True
        if event is not None:
            self._blow()
        else:
            self._queue.after(0.0, self._blow)  # a step of the world ends before the next thing happens


def play(stage: str, loss: str, seed: int) -> tuple[Player, Stage]:
    """Return what came of one cell of the matrix."""
    nodes = tuple(NodePlan(name=f"n{n}", supervised=False) for n in (1, 2, 3))
    story = read_story("nodes: 3\nvms: [{name: a, node: n1}]", "cell")
    plan = WorldPlan(seed=seed, config=story.plan.config, nodes=nodes, vms=story.plan.vms)
    player = Player(Story(name=f"{loss} dies at: {stage}", plan=plan, until=END_S))
    world = player.world
    delay_s = 0.0 if seed == 0 else world.random_of("moment").uniform(0.0, 0.5)

    def blow() -> None:
        if delay_s:
            world.queue.after(delay_s, lambda: LOSSES[loss](world))
        else:
            LOSSES[loss](world)

    at = Stage(player, STAGES[stage], blow)
    world.queue.at(ASKED_AT_S, lambda: player.person("migrate", {"vm": "a", "to": TARGET}))
    world.queue.at(HEALED_AT_S, lambda: heal_everything(world))
    player.play()
    player.checkers.check_liveness()
    return player, at


def problems(player: Player, loss: str) -> list[str]:
    """Return what is wrong in the end, by the ground truth."""
    truth = player.world.truth.by_name("a")
    assert truth is not None
    found = [f"{v.invariant} at {v.t:.3f}: {v.text}" for v in player.checkers.violations]
    if len(truth.running()) != 1 or len(truth.qemus) != 1:
        found.append(f"its QEMUs: {[(q.host, str(q.state)) for q in truth.qemus]}")
    limit = 1 if any(word in loss for word in MAY_END_THE_RUN) else 0
    if truth.starts > limit:
        found.append(f"started {truth.starts} times")
    return found


def cell(stage: str, loss: str, seed: int) -> None:
    """Play one cell and check it."""
    player, at = play(stage, loss, seed)
    assert at.struck, f"seed {seed} never came to: {stage}"
    assert problems(player, loss) == [], "\n".join(player.text)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("stage", STAGES)
def test_whatever_dies_in_the_very_step(stage: str, loss: str) -> None:
    """One QEMU in the end, and never two whose CPUs may run."""
    cell(stage, loss, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("stage", STAGES)
def test_whatever_dies_a_moment_later(stage: str, loss: str) -> None:
    """The same within half a second of the step, with other durations of everything."""
    for seed in range(1, 6):
        cell(stage, loss, seed)
