"""Stories made up from a seed: the seed draws the rates, the rates draw the faults (swarm).

A safety phase with faults, then everything is healed, then liveness is checked (S14). Same seed,
same commit: the same story, byte for byte.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from random import Random

from msgspec import Struct, structs

from aggregator.core.objects import Affinity, LabelSelector, VmAffinity, VmAffinityTerm, VmSpec
from aggregator.core.policy import read_config
from fleet.model import RunStrategy
from simulator.beginning import xml_of
from simulator.checkers import Violation
from simulator.dice import FAULTS_UNTIL_S, Dice
from simulator.faults import (
    FenceOutcome,
    Heal,
    Power,
    Signal,
    StartHangs,
    Storage,
    strike,
)
from simulator.moves_drawn import draw_moves, draw_moves_config, draw_supervision
from simulator.network import PLANES
from simulator.plan import NodePlan, VmPlan, WorldPlan, uuid_of
from simulator.rules_drawn import draw_config, draw_rules, draw_vouchers
from simulator.run import Player, Story
from simulator.strikes import KINDS
from simulator.strikes_leaders import draw_leaders
from simulator.world import World

MEMORY_BYTES = NodePlan(name="").memory_bytes
LIVENESS_S = 60.0
OFF_IN_FLIGHT_S = 30.0  # an off order that was decided before the healing has been carried out by then
LONGEST_HOLD_S = 130.0  # a node that was not heard since a start of the aggregator is not judged before
STORY_SALT = 0x5EED
KIND_SHARE = 0.5  # of the kinds of faults, in one story
STRIKES = (7, 15)
NARROW_SHARE = 0.25
APART_SHARE = 0.4
APART_LABELS = {"app": "apart"}
APART = Affinity(
    vm_anti_affinity=VmAffinity(
        required=(
            VmAffinityTerm(topology_key="virtward/hostname", label_selector=LabelSelector(match_labels=APART_LABELS)),
        )
    )
)
STRATEGIES = (*[RunStrategy.ALWAYS] * 6, RunStrategy.RERUN_ON_FAILURE, RunStrategy.MANUAL, RunStrategy.HALTED)


class SeedResult(Struct, frozen=True):
    """What came of one seed."""

    seed: int
    nodes: int
    vms: int
    simulated_s: float
    steps: int
    recoveries: int
    faults: dict[str, int]
    violations: list[Violation]


def make_story(seed: int, nodes: int | None, vms: int | None) -> tuple[Story, dict[str, int]]:
    """Return the seed's story and its faults by kind."""
    random = Random(seed ^ STORY_SALT)
    node_count = nodes or random.randint(2, 7)
    vm_count = vms or node_count * random.randint(1, 4)
    config = read_config(
        {
            "unseenAtLeast": random.choice(["5s", "20s", "120s"]),
            "readinessEvery": random.choice(["15s", "60s", "180s"]),
            "brake": {"window": random.choice(["0s", "60s", "900s"]), "offOrdersPerHourMax": random.choice([None, 50])},
            "flap": {"vmPerHourMax": 50, "nodePerDayMax": 50, "powerOnPerDayMax": 50},
        }
    )
    # In a narrow fleet memory is what limits who can go where.
    per_node = -(-vm_count // node_count)
    memory = (per_node + random.choice([1, 2])) * 2**30 if random.random() < NARROW_SHARE else MEMORY_BYTES
    node_plans = tuple(NodePlan(name=f"n{i}", memory_bytes=memory) for i in range(1, node_count + 1))
    vm_plans = draw_rules(seed, _vms(random, node_plans, vm_count))
    dice = Dice(random, [n.name for n in node_plans], [v.name for v in vm_plans])
    weights = [random.uniform(0.1, 1.0) if random.random() < KIND_SHARE else 0.0 for _ in KINDS]
    weights[0] = max(weights[0], 0.2)
    for kind in random.choices(KINDS, weights, k=random.randint(*STRIKES)):
        kind(dice)
    draw_vouchers(seed, dice)
    draw_moves(seed, dice)
    aggregators = draw_leaders(seed, dice)
    story = Story(
        name=f"seed {seed}",
        plan=WorldPlan(
            seed=seed,
            config=draw_moves_config(seed, draw_config(seed, config)),
            nodes=draw_supervision(seed, node_plans),
            vms=vm_plans,
            aggregators=aggregators,
        ),
        happenings=tuple(dice.happenings),
        until=FAULTS_UNTIL_S,
    )
    return story, dice.struck


def _vms(random: Random, nodes: tuple[NodePlan, ...], count: int) -> tuple[VmPlan, ...]:
    """Draw the VMs, round robin over the nodes; some of the first round keep apart from each other."""
    apart = random.random() < APART_SHARE
    plans = []
    for i in range(1, count + 1):
        strategy = random.choice(STRATEGIES)
        node = "" if strategy is RunStrategy.HALTED else nodes[(i - 1) % len(nodes)].name
        keeps_apart = apart and i <= len(nodes) and random.random() < APART_SHARE
        spec = VmSpec(
            run_strategy=strategy, termination_grace_period_seconds=20, affinity=APART if keeps_apart else None
        )
        plan = VmPlan(name=f"v{i}", node=node, spec=spec, labels=APART_LABELS if keeps_apart else {})
        spec = structs.replace(spec, domain_xml=xml_of(uuid_of(i), plan))
        plans.append(structs.replace(plan, spec=spec))
    return tuple(plans)


def heal_everything(world: World) -> None:
    """End every fault: power, links, processes, devices, clocks, and people's marks."""
    at = world.queue.now
    world.store.lost = False
    for number, aggregator in enumerate(world.aggregators, start=1):
        aggregator.set_rate(1.0)
        aggregator.spare()
        _wake(world, f"aggregator@{number}")
    for name, host in world.hosts.items():
        strike(world, Heal(at=at, host=name, planes=PLANES))
        world.fences[name].outcome = "works"
        strike(world, Storage(at=at, host=name, gone=False))
        if world.fences[name].switches != name:
            strike(world, FenceOutcome(at=at, host=name, outcome="swapped", other=_owner_of(world, name)))
        strike(world, StartHangs(at=at, host=name, by_s=0.0))
        host.set_rate(1.0)
        host.agent.spare()
        host.thaw()
        strike(world, Power(at=at, host=name, to="on"))
        if host.power_on:
            _wake(world, f"libvirtd@{name}")
            _wake(world, f"agent@{name}")
    for vm in world.truth.vms.values():
        for qemu in vm.qemus:
            if qemu.frozen:
                world.truth.freezes(qemu, frozen=False)


def _owner_of(world: World, name: str) -> str:
    """Return the device that is wired to this host."""
    return next(device.node for device in world.fences.values() if device.switches == name)


def _wake(world: World, target: str) -> None:
    for verb in ("resume", "start"):
        strike(world, Signal(at=world.queue.now, verb=verb, target=target))


def run_seed(
    seed: int, nodes: int | None = None, vms: int | None = None, prepare: Callable[[World], None] | None = None
) -> SeedResult:
    """Play one seed: faults, healing, liveness. prepare: plants a mistake before anything happens."""
    story, struck = make_story(seed, nodes, vms)
    player = Player(story, prepare=prepare)
    violations = player.checkers.violations
    try:
        _play(player)
    except Exception as error:  # noqa: BLE001 (whatever the code under test raises is what the seed has found)
        violations = [*violations, _crash(player.world.queue.now, error)]
    world = player.world
    recoveries = sum(1 for line in player.lines if line.event == "StartDecided")
    return SeedResult(
        seed=seed,
        nodes=len(story.plan.nodes),
        vms=len(story.plan.vms),
        simulated_s=world.queue.now,
        steps=world.queue.steps,
        recoveries=recoveries,
        faults=struck,
        violations=violations,
    )


def _crash(now: float, error: Exception) -> Violation:
    """A core or an agent that raised; so says where."""
    step = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(step.filename).name}:{step.lineno} {step.name}"
    return Violation(now, "crash", f"{type(error).__name__} in {where}: {error}")


def play_seed(story: Story, prepare: Callable[[World], None] | None = None) -> Player:
    """Play a made-up story to its end, for looking at one seed closely."""
    player = Player(story, prepare=prepare)
    _play(player)
    return player


def _play(player: Player) -> None:
    world, until = player.world, player.story.until
    world.run_until(until)
    player.disarm()
    heal_everything(world)
    world.run_until(until + 3.0)
    for node in world.aggregator.state.nodes.values():
        player.person("uncordon", {"node": node.name})
    world.run_until(until + OFF_IN_FLIGHT_S)
    for name, host in world.hosts.items():  # what an off that was under way switched off after the healing
        if not host.power_on:
            strike(world, Power(at=world.queue.now, host=name, to="on"))
    world.run_until(until + LIVENESS_S + LONGEST_HOLD_S)
    player.checkers.check_liveness()
