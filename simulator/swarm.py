"""Stories made up from a seed: the seed draws the rates, the rates draw the faults (swarm).

A safety phase with faults, then everything is healed, then liveness is checked (S14). Same seed,
same commit: the same story, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from msgspec import Struct, structs

from aggregator.core.objects import VmSpec
from aggregator.core.policy import read_config
from fleet.model import Plane, RunStrategy
from simulator.beginning import xml_of
from simulator.checkers import Violation
from simulator.faults import (
    AnyFault,
    ClockJump,
    ClockRate,
    Cut,
    Disturb,
    FenceOutcome,
    GuestDoes,
    Heal,
    Power,
    Signal,
    Storage,
    strike,
)
from simulator.network import PLANES
from simulator.plan import NodePlan, VmPlan, WorldPlan, uuid_of
from simulator.run import Happening, Player, Story
from simulator.world import World

FAULTS_FROM_S = 5.0
FAULTS_UNTIL_S = 240.0
LIVENESS_S = 60.0
LONGEST_HOLD_S = 130.0  # a node that was not heard since a start of the aggregator is not judged before
STORY_SALT = 0x5EED
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


class Dice:
    """Draws one story's faults. `struck` counts them by kind."""

    def __init__(self, random: Random, nodes: list[str], vms: list[str]) -> None:
        self.random = random
        self.nodes = nodes
        self.vms = vms
        self.struck: dict[str, int] = {}
        self.happenings: list[Happening] = []

    def node(self) -> str:
        return self.random.choice(self.nodes)

    def at(self) -> float:
        return round(self.random.uniform(FAULTS_FROM_S, FAULTS_UNTIL_S), 3)

    def soon(self, at: float, most_s: float = 60.0) -> float:
        """A later time: mostly soon, sometimes much later, never after the safety phase."""
        return round(min(FAULTS_UNTIL_S, at + self.random.uniform(0.05, 1.0) ** 3 * most_s), 3)

    def add(self, kind: str, *faults: AnyFault, when: str = "") -> None:
        """Have faults strike at their times, the first of them at a moment where one is given."""
        self.struck[kind] = self.struck.get(kind, 0) + 1
        for fault in faults:
            words = f"{kind} when {when} {fault}" if when else f"{kind} {fault}"
            self.happenings.append(Happening(at=fault.at, when=when, words=words, fault=fault))
            when = ""

    def verb(self, verb: str, at: float, **arguments: object) -> None:
        self.struck[verb] = self.struck.get(verb, 0) + 1
        words = f"do {verb} " + " ".join(str(value) for value in arguments.values())
        self.happenings.append(Happening(at=at, words=words, verb=verb, arguments=dict(arguments)))


def _power(dice: Dice) -> None:
    at, host = dice.at(), dice.node()
    back = dice.soon(at, 120.0)
    dice.add("power", Power(at=at, host=host, to="off"), Power(at=back, host=host, to="on"))


def _freeze(dice: Dice) -> None:
    at, host = dice.at(), dice.node()
    dice.add("freeze", Signal(at=at, verb="pause", target=host), Signal(at=dice.soon(at), verb="resume", target=host))


def _cut(dice: Dice) -> None:
    at, host = dice.at(), dice.node()
    planes = dice.random.choice([(Plane.CONTROL,), (Plane.CONTROL,), (Plane.MIGRATION,), (Plane.BMC,), PLANES])
    direction = dice.random.choice(["in", "out", "both", "both"])
    heal = Heal(at=dice.soon(at), host=host, planes=planes)
    dice.add("cut", Cut(at=at, host=host, planes=planes, direction=direction), heal)


def _disturb(dice: Dice) -> None:
    at, host = dice.at(), dice.node()
    kind = dice.random.choice(["drop", "delay", "duplicate", "reorder"])
    amount = dice.random.uniform(0.02, 0.5) if kind != "delay" else dice.random.uniform(0.05, 4.0)
    planes = (Plane.CONTROL,)
    heal = Heal(at=dice.soon(at), host=host, planes=planes)
    dice.add(kind, Disturb(at=at, host=host, planes=planes, kind=kind, amount=round(amount, 3)), heal)


def _kill_aggregator(dice: Dice) -> None:
    at, target = dice.at(), "aggregator@1"
    steps = dice.random.choice([0, 0, 1, 2, 3, 5, 8, 13, 30])
    start = Signal(at=dice.soon(at, 40.0), verb="start", target=target)
    dice.add("kill aggregator", Signal(at=at, verb="kill", target=target, after_steps=steps), start)


def _kill_process(dice: Dice) -> None:
    kind = dice.random.choice(["agent", "agent", "libvirtd"])
    steps = dice.random.choice([0, 1, 2, 3, 5, 8]) if kind == "agent" else 0
    target = f"{kind}@{dice.node()}"
    dice.add(f"kill {kind}", Signal(at=dice.at(), verb="kill", target=target, after_steps=steps))


def _pause_process(dice: Dice) -> None:
    at, kind = dice.at(), dice.random.choice(["agent", "libvirtd", "aggregator", "qemu"])
    target = {"aggregator": "aggregator@1", "qemu": f"qemu:{dice.random.choice(dice.vms)}"}.get(
        kind, f"{kind}@{dice.node()}"
    )
    resume = Signal(at=dice.soon(at, 40.0), verb="resume", target=target)
    dice.add(f"pause {kind}", Signal(at=at, verb="pause", target=target), resume)


def _fence(dice: Dice) -> None:
    at, host = dice.at(), dice.node()
    outcome = dice.random.choice(["fails", "hangs", "early", "early", "missing"])
    works = FenceOutcome(at=dice.soon(at, 100.0), host=host, outcome="works")
    dice.add(f"fence {outcome}", FenceOutcome(at=at, host=host, outcome=outcome), works)
    if dice.random.random() < 0.6:  # and the device is needed meanwhile
        later = dice.soon(at, 30.0)
        resume = Signal(at=dice.soon(later, 120.0), verb="resume", target=host)
        dice.add("freeze", Signal(at=later, verb="pause", target=host), resume)


def _swap(dice: Dice) -> None:
    if len(dice.nodes) < 2:
        return
    one, other = dice.random.sample(dice.nodes, 2)
    swap = FenceOutcome(at=dice.at(), host=one, outcome="swapped", other=other, when_quiet=True)
    dice.add("fence swapped", swap)


def _storage(dice: Dice) -> None:
    """Mostly one host, sometimes all of them, for long enough that something is done about it."""
    at, qemus = dice.at(), dice.random.choice(["pause", "pause", "hang", "stay"])
    hosts = dice.nodes if dice.random.random() < 0.2 else [dice.node()]
    for host in hosts:
        gone = Storage(at=min(FAULTS_UNTIL_S, at + dice.random.uniform(0.0, 8.0)), host=host, gone=True, qemus=qemus)
        dice.add(f"storage {qemus}", gone, Storage(at=dice.soon(at + 8.0, 200.0), host=host, gone=False))


def _guest(dice: Dice) -> None:
    does = dice.random.choice(["crash", "crash", "poweroff", "hang"])
    dice.add(f"guest {does}", GuestDoes(at=dice.at(), vm=dice.random.choice(dice.vms), does=does))


def _clock(dice: Dice) -> None:
    at = dice.at()
    if dice.random.random() < 0.3:
        by_s = round(dice.random.choice([-1, 1]) * dice.random.uniform(0.5, 4000.0), 1)
        dice.add("clock jump", ClockJump(at=at, target="aggregator@1", by_s=by_s))
    else:
        target = dice.random.choice([dice.node(), "aggregator@1"])
        dice.add("clock rate", ClockRate(at=at, target=target, rate=round(dice.random.uniform(0.9, 1.1), 3)))


def _person(dice: Dice) -> None:
    at, random = dice.at(), dice.random
    vm, node = random.choice(dice.vms), dice.node()
    match random.randrange(6):
        case 0:
            dice.verb("drain", at, node=node)
            dice.verb("uncordon", dice.soon(at, 120.0), node=node)
        case 1:
            dice.verb("migrate", at, vm=vm, to=node)
        case 2:
            dice.verb("migrate", at, vm=vm)
            if random.random() < 0.5:
                dice.verb("cancel", dice.soon(at, 4.0), vm=vm)
        case 3:
            dice.verb("restart", at, vm=vm)
        case 4:
            dice.verb("stop", at, vm=vm, force=random.random() < 0.5)
            dice.verb("start", dice.soon(at), vm=vm)
        case _:
            dice.verb("cordon", at, node=node)
            dice.verb("uncordon", dice.soon(at), node=node)


MOMENTS = (
    "Incoming",
    "Arrived",
    "Finished",
    "StartDecided",
    "OrderIssued",
    "OrderClosed",
    "MigrationChanged",
    "OwnerChanged",
    "BindingFreed",
    "RunEnded",
    "NodeFencing",
    "NodeProven",
)


def _at_a_moment(dice: Dice) -> None:
    """Something dies exactly when something else has just happened."""
    at, node, when = dice.at(), dice.node(), dice.random.choice(MOMENTS)
    match dice.random.randrange(5):
        case 0 | 1:
            starts = [Signal(at=dice.soon(at, 90.0), verb="start", target="aggregator@1") for _ in range(3)]
            kill = Signal(at=at, verb="kill", target="aggregator@1", after_steps=dice.random.choice([0, 0, 1, 2]))
            dice.add("kill aggregator", kill, *starts, when=when)
        case 2:
            back = Power(at=dice.soon(at, 120.0), host=node, to="on")
            dice.add("power", Power(at=at, host=node, to="off"), back, when=when)
        case 3:
            kind = dice.random.choice(["agent", "libvirtd"])
            dice.add(f"kill {kind}", Signal(at=at, verb="kill", target=f"{kind}@{node}"), when=when)
        case _:
            planes = dice.random.choice([(Plane.CONTROL,), (Plane.MIGRATION,)])
            direction = dice.random.choice(["in", "out", "both"])
            cut = Cut(at=at, host=node, planes=planes, direction=direction)
            dice.add("cut", cut, Heal(at=dice.soon(at, 90.0), host=node, planes=planes), when=when)
    if dice.random.random() < 0.6:
        dice.verb("migrate", dice.soon(at, 20.0), vm=dice.random.choice(dice.vms))


KINDS: tuple[Callable[[Dice], None], ...] = (
    _power,
    _freeze,
    _cut,
    _disturb,
    _kill_aggregator,
    _kill_process,
    _pause_process,
    _fence,
    _swap,
    _storage,
    _guest,
    _clock,
    _person,
    _at_a_moment,
)


def make_story(seed: int, nodes: int | None, vms: int | None) -> tuple[Story, dict[str, int]]:
    """Return the seed's story and its faults by kind."""
    random = Random(seed ^ STORY_SALT)
    node_count = nodes or random.randint(2, 7)
    vm_count = vms or node_count * random.randint(1, 4)
    config = read_config(
        {
            "unseenAtLeast": random.choice(["5s", "20s", "120s"]),
            "readinessEvery": random.choice(["5s", "30s", "180s"]),
            "brake": {"window": random.choice(["0s", "60s", "900s"]), "offOrdersPerHourMax": random.choice([None, 50])},
            "flap": {"vmPerHourMax": 50, "nodePerDayMax": 50, "powerOnPerDayMax": 50},
        }
    )
    node_plans = tuple(NodePlan(name=f"n{i}") for i in range(1, node_count + 1))
    vm_plans = []
    for i in range(1, vm_count + 1):
        strategy = random.choice(STRATEGIES)
        node = "" if strategy is RunStrategy.HALTED else node_plans[(i - 1) % node_count].name
        plan = VmPlan(name=f"v{i}", node=node, spec=VmSpec(run_strategy=strategy, termination_grace_period_seconds=20))
        spec = structs.replace(plan.spec, domain_xml=xml_of(uuid_of(i), plan))
        vm_plans.append(structs.replace(plan, spec=spec))
    dice = Dice(random, [n.name for n in node_plans], [v.name for v in vm_plans])
    weights = [random.uniform(0.1, 1.0) if random.random() < 0.6 else 0.0 for _ in KINDS]
    weights[0] = max(weights[0], 0.2)
    for kind in random.choices(KINDS, weights, k=random.randint(6, 14)):
        kind(dice)
    story = Story(
        name=f"seed {seed}",
        plan=WorldPlan(seed=seed, config=config, nodes=node_plans, vms=tuple(vm_plans)),
        happenings=tuple(dice.happenings),
        until=FAULTS_UNTIL_S,
    )
    return story, dice.struck


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
    player = play_seed(story, prepare)
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
        violations=player.checkers.violations,
    )


def play_seed(story: Story, prepare: Callable[[World], None] | None = None) -> Player:
    """Play a made-up story to its end; also for looking at one seed closely."""
    player = Player(story, prepare=prepare)
    world = player.world
    world.run_until(story.until)
    player.disarm()
    heal_everything(world)
    world.run_until(story.until + 3.0)
    for node in world.aggregator.state.nodes.values():
        player.person("uncordon", {"node": node.name})
    world.run_until(story.until + LIVENESS_S + LONGEST_HOLD_S)
    player.checkers.check_liveness()
    return player
