"""The kinds of faults of made-up stories: each draws what it does from the dice.

A fault is drawn with its end: what a story breaks is mended while it lasts, or by the healing after it.
"""

from __future__ import annotations

from collections.abc import Callable

from fleet.model import Plane
from simulator.dice import FAULTS_UNTIL_S, Dice
from simulator.faults import (
    THERE,
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
    StartHangs,
    Storage,
)
from simulator.network import PLANES

STEPS = (0, 0, 1, 2, 3, 5, 8, 13, 30)
HALF = 0.5
NEEDED_SHARE = 0.75  # of broken devices: they are needed while they are broken
NETWORKS = ((Plane.CONTROL,), (Plane.CONTROL,), (Plane.MIGRATION,), (Plane.BMC,), (Plane.CONTROL, Plane.MIGRATION))


def _power(dice: Dice) -> None:
    at, host = dice.at(), dice.node()
    back = dice.soon(at, 120.0)
    dice.add("power", Power(at=at, host=host, to="off"), Power(at=back, host=host, to="on"))


def _freeze(dice: Dice) -> None:
    at, host = dice.at(), dice.node()
    dice.add("freeze", Signal(at=at, verb="pause", target=host), Signal(at=dice.soon(at), verb="resume", target=host))


def _cut(dice: Dice) -> None:
    at, host = dice.at(), dice.node()
    planes = dice.random.choice([*NETWORKS, PLANES])
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
    steps = dice.random.choice(STEPS)
    start = Signal(at=dice.soon(at, 40.0), verb="start", target=target)
    dice.add("kill aggregator", Signal(at=at, verb="kill", target=target, after_steps=steps), start)


def _kill_process(dice: Dice) -> None:
    kind = dice.random.choice(["agent", "agent", "libvirtd"])
    steps = dice.random.choice([0, 1, 2, 3, 5, 8]) if kind == "agent" else 0
    target = f"{kind}@{dice.node()}"
    dice.add(f"kill {kind}", Signal(at=dice.at(), verb="kill", target=target, after_steps=steps))


def _pause_process(dice: Dice) -> None:
    """Between any two of its steps, where it has them."""
    at, kind = dice.at(), dice.random.choice(["agent", "libvirtd", "aggregator", "qemu"])
    target = {"aggregator": "aggregator@1", "qemu": f"qemu:{dice.random.choice(dice.vms)}"}.get(
        kind, f"{kind}@{dice.node()}"
    )
    steps = dice.random.choice(STEPS) if kind in ("agent", "aggregator") else 0
    resume = Signal(at=dice.soon(at, 40.0), verb="resume", target=target)
    dice.add(f"pause {kind}", Signal(at=at, verb="pause", target=target, after_steps=steps), resume)


def _start_hangs(dice: Dice) -> None:
    """libvirtd begins to create a QEMU and takes very long about it."""
    at, host = dice.at(), dice.node()
    hangs = StartHangs(at=at, host=host, by_s=round(dice.random.choice([5.0, 30.0, 130.0]), 3))
    dice.add("start hangs", hangs, StartHangs(at=dice.soon(at, 120.0), host=host, by_s=0.0))
    if dice.random.random() < NEEDED_SHARE:  # and something is started meanwhile
        dice.verb("restart", dice.soon(at, 20.0), vm=dice.random.choice(dice.vms))


def _fence(dice: Dice) -> None:
    at, host = dice.at(), dice.node()
    outcome = dice.random.choice(["fails", "hangs", "early", "early", "missing", "broken", "broken"])
    works = FenceOutcome(at=dice.soon(at + 30.0, 100.0), host=host, outcome="works")
    dice.add(f"fence {outcome}", FenceOutcome(at=at, host=host, outcome=outcome), works)
    if dice.random.random() < NEEDED_SHARE:
        _falls_silent(dice, host, dice.soon(at, 20.0))


def _swap(dice: Dice) -> None:
    if len(dice.nodes) < 2:
        return
    one, other = dice.random.sample(dice.nodes, 2)
    swap = FenceOutcome(at=dice.at(), host=one, outcome="swapped", other=other, when_quiet=True)
    dice.add("fence swapped", swap)
    if dice.random.random() < NEEDED_SHARE:
        _falls_silent(dice, one, dice.soon(swap.at, 20.0))


def _falls_silent(dice: Dice, host: str, at: float) -> None:
    """The host lives and nobody hears it, for long enough that its device is needed."""
    back = min(FAULTS_UNTIL_S, at + dice.random.uniform(8.0, 100.0))
    if dice.random.random() < HALF:
        freeze = Signal(at=at, verb="pause", target=host)
        dice.add("freeze", freeze, Signal(at=back, verb="resume", target=host))
    else:
        planes = (Plane.CONTROL, Plane.MIGRATION)
        dice.add("cut", Cut(at=at, host=host, planes=planes), Heal(at=back, host=host, planes=planes))


def _silent_again(dice: Dice) -> None:
    """A host that was fenced is cut off again as soon as it is back: what was proven then proves nothing now."""
    at, host = dice.at(), dice.node()
    _falls_silent(dice, host, at)
    planes = (Plane.CONTROL, Plane.MIGRATION)
    cut, heal = (
        Cut(at=at + 1.0, host=THERE, planes=planes),
        Heal(at=10.0 + dice.delay_s(60.0), host=THERE, planes=planes),
    )
    dice.add_at_moment("silent again", "NodeUp", cut, heal)


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
    """Something dies exactly when something else has just happened, there or elsewhere."""
    at, when = dice.at(), dice.random.choice(MOMENTS)
    node = THERE if dice.random.random() < 0.6 else dice.node()
    match dice.random.randrange(6):
        case 0 | 1:
            starts = [Signal(at=dice.delay_s(90.0), verb="start", target="aggregator@1") for _ in range(3)]
            kill = Signal(at=at, verb="kill", target="aggregator@1", after_steps=dice.random.choice(STEPS[:4]))
            dice.add_at_moment("kill aggregator", when, kill, *starts)
        case 2:
            back = Power(at=dice.delay_s(120.0), host=node, to="on")
            dice.add_at_moment("power", when, Power(at=at, host=node, to="off"), back)
        case 3:
            kind = dice.random.choice(["agent", "libvirtd"])
            dice.add_at_moment(f"kill {kind}", when, Signal(at=at, verb="kill", target=f"{kind}@{node}"))
        case 4:
            kind = dice.random.choice(["agent", "libvirtd"])
            pause = Signal(at=at, verb="pause", target=f"{kind}@{node}")
            resume = Signal(at=dice.delay_s(60.0), verb="resume", target=f"{kind}@{node}")
            dice.add_at_moment(f"pause {kind}", when, pause, resume)
        case _:
            planes = dice.random.choice(NETWORKS)
            direction = dice.random.choice(["in", "out", "both"])
            cut = Cut(at=at, host=node, planes=planes, direction=direction)
            dice.add_at_moment("cut", when, cut, Heal(at=dice.delay_s(90.0), host=node, planes=planes))
    _something_moves(dice, at)


def _order_left_in_a_socket(dice: Dice) -> None:
    """The way to a node is cut as an order to it leaves: the order waits, and others decide meanwhile."""
    at, when = dice.at(), dice.random.choice(("StartDecided", "StartDecided", "OrderIssued", "OrderIssued"))
    direction = dice.random.choice(("in", "in", "both"))
    cut = Cut(at=at, host=THERE, planes=(Plane.CONTROL,), direction=direction)
    later: list[AnyFault] = [Heal(at=5.0 + dice.delay_s(85.0), host=THERE, planes=(Plane.CONTROL,))]
    if dice.random.random() < 0.4:
        kill = Signal(at=dice.delay_s(3.0), verb="kill", target="aggregator@1")
        later += [kill, Signal(at=kill.at + dice.delay_s(20.0), verb="start", target="aggregator@1")]
    dice.add_at_moment("order left in a socket", when, cut, *later)
    _something_moves(dice, at)


def _reply_lost(dice: Dice) -> None:
    """The target's answer to the end of a migration does not come."""
    at, vm = dice.at(), dice.random.choice(dice.vms)
    direction = dice.random.choice(("in", "out", "both"))
    cut = Cut(at=at, host=THERE, planes=(Plane.MIGRATION,), direction=direction)
    heal = Heal(at=dice.delay_s(90.0), host=THERE, planes=(Plane.MIGRATION,))
    dice.add_at_moment("migration reply lost", dice.random.choice(("Finished", "Arrived")), cut, heal)
    dice.verb("migrate", dice.soon(at, 10.0), vm=vm)


def _something_moves(dice: Dice, at: float) -> None:
    """Give a moment the chance to come."""
    vm = dice.random.choice(dice.vms)
    match dice.random.randrange(4):
        case 0 | 1:
            dice.verb("migrate", dice.soon(at, 20.0), vm=vm)
        case 2:
            dice.verb("restart", dice.soon(at, 20.0), vm=vm)
        case _:
            dice.add("guest crash", GuestDoes(at=dice.soon(at, 20.0), vm=vm, does="crash"))


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
    _at_a_moment,
    _order_left_in_a_socket,
    _reply_lost,
    _start_hangs,
    _silent_again,
)
