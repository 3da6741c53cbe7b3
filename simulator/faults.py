"""What happens to the world from outside: the `events` of a story, each a small record.

`strike` carries one out. Which keys an event may have is fixed in interfaces.md; reading them
from text is story.py's. What people do (`do:`) is in verbs.py.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct, structs

from fleet.model import Plane
from simulator.aggregator import SimulatedAggregator
from simulator.process import Process
from simulator.truth import Qemu
from simulator.world import World

THERE = "there"
"""Instead of a host: the one that the moment is about for which a fault waits."""


class Fault(Struct, frozen=True, kw_only=True):
    """Base of all faults. at: world seconds."""

    at: float


class Power(Fault, frozen=True, kw_only=True):
    """to: off | on | cycle."""

    host: str
    to: str


class Cut(Fault, frozen=True, kw_only=True):
    """direction: in | out | both, as the host sees it."""

    host: str
    planes: tuple[Plane, ...]
    direction: str = "both"


class Heal(Fault, frozen=True, kw_only=True):
    host: str
    planes: tuple[Plane, ...]


class Disturb(Fault, frozen=True, kw_only=True):
    """kind: drop | delay | duplicate | reorder; amount: a rate, or seconds for delay."""

    host: str
    planes: tuple[Plane, ...]
    kind: str
    amount: float


class Signal(Fault, frozen=True, kw_only=True):
    """verb: pause | resume | kill | start. after_steps: it is paused or dies so many own steps later."""

    verb: str
    target: str
    after_steps: int = 0


class FenceOutcome(Fault, frozen=True, kw_only=True):
    """outcome: works | fails | hangs | early | missing | swapped; other: the host it is swapped with.

    word: which device of the host's ladder, where it has more than its own controller (simulator.outlets).

    when_quiet: nothing happens unless both hosts are well. Cables that are swapped in the middle
    of an outage, when no host can look at its own controller, are found by nobody.
    """

    host: str
    outcome: str
    other: str = ""
    when_quiet: bool = False
    word: str = ""


class GuestDoes(Fault, frozen=True, kw_only=True):
    """does: crash | poweroff | hang | write (its memory, faster than any link takes it) | rest."""

    vm: str
    does: str


class ClockRate(Fault, frozen=True, kw_only=True):
    target: str
    rate: float


class ClockJump(Fault, frozen=True, kw_only=True):
    target: str
    by_s: float


class Storage(Fault, frozen=True, kw_only=True):
    """gone: the host does not reach the shared storage. qemus: what that does to its QEMUs (host.py)."""

    host: str
    gone: bool
    qemus: str = "pause"


class StartHangs(Fault, frozen=True, kw_only=True):
    """The host's libvirtd takes so much longer to create a QEMU; 0 ends it for those that come."""

    host: str
    by_s: float


class Panic(Fault, frozen=True, kw_only=True):
    """The host's kernel panics, and its crash kernel takes over."""

    host: str


class Store(Fault, frozen=True, kw_only=True):
    """to: lost | back | rolledBack, by so many seconds."""

    to: str
    by_s: float = 0.0


class Reference(Fault, frozen=True, kw_only=True):
    """gone: the reference address does not answer the aggregator."""

    gone: bool


class Replace(Fault, frozen=True, kw_only=True):
    """Another machine takes the host's place, name and token; the old one is gone for good."""

    host: str


class ByHand(Fault, frozen=True, kw_only=True):
    """A person with virsh on a host that nothing keeps from it. does: start (defining it first) | destroy."""

    host: str
    vm: str
    does: str


AnyFault = (
    ByHand
    | Replace
    | Panic
    | Reference
    | Power
    | Cut
    | Heal
    | Disturb
    | Signal
    | FenceOutcome
    | GuestDoes
    | ClockRate
    | ClockJump
    | Storage
    | Store
    | StartHangs
)


def struck_at(fault: AnyFault, place: str) -> AnyFault | None:
    """Return the fault with THERE made a host; None where the moment was about no host."""
    changes = {}
    if not isinstance(fault, Reference | GuestDoes | Signal | ClockRate | ClockJump | Store) and fault.host == THERE:
        changes["host"] = place
    elif isinstance(fault, Signal) and fault.target.endswith(f"@{THERE}"):
        changes["target"] = fault.target.removesuffix(THERE) + place
    if changes and not place:
        return None
    return structs.replace(fault, **changes) if changes else fault


def strike(world: World, fault: AnyFault) -> None:
    """Carry a fault out, now."""
    match fault:
        case Power():
            _power(world, fault)
        case Cut() | Heal() | Disturb():
            for plane in fault.planes:
                _link(world, fault, plane)
        case Signal():
            _signal(world, fault)
        case FenceOutcome():
            _fence(world, fault)
        case GuestDoes():
            qemu = _qemu_of(world, fault.vm)
            if qemu is not None:
                world.hosts[qemu.host].guest_does(qemu, fault.does)
        case ClockRate():
            clock = world.hosts[fault.target] if fault.target in world.hosts else _aggregator(world, fault.target)
            clock.set_rate(fault.rate)
        case ClockJump():
            _aggregator(world, fault.target).jump(fault.by_s)
        case ByHand() | Replace():
            _people(world, fault)
        case Panic() | Reference() | Storage() | Store() | StartHangs():
            _surroundings(world, fault)


def _people(world: World, fault: ByHand | Replace) -> None:
    match fault:
        case ByHand():
            world.hosts[fault.host].by_hand(fault.vm, fault.does)
        case Replace():
            world.hosts[fault.host].replace()


def _surroundings(world: World, fault: Panic | Reference | Storage | Store | StartHangs) -> None:
    match fault:
        case StartHangs():
            world.hosts[fault.host].hypervisor.create_hangs_s = fault.by_s
        case Panic():
            world.hosts[fault.host].panic()
        case Reference():
            world.reference_answers = not fault.gone
        case Storage():
            world.hosts[fault.host].set_storage(gone=fault.gone, qemus=fault.qemus)
        case Store(to="rolledBack"):
            world.roll_back_store(fault.by_s)
        case Store():
            world.store.lost = fault.to == "lost"


def _link(world: World, fault: Cut | Heal | Disturb, plane: Plane) -> None:
    match fault:
        case Cut():
            world.network.cut(fault.host, plane, fault.direction)
        case Heal():
            world.network.heal(fault.host, plane)
        case Disturb():
            world.network.disturb(fault.host, plane, fault.kind, fault.amount)


def _power(world: World, fault: Power) -> None:
    host = world.hosts[fault.host]
    if fault.to in ("off", "cycle"):
        host.lose_power()
    if fault.to in ("on", "cycle"):
        host.get_power()


def _fence(world: World, fault: FenceOutcome) -> None:
    device = world.outlets[f"{fault.host}.{fault.word}"] if fault.word else world.fences[fault.host]
    if fault.outcome != "swapped":
        device.outcome = fault.outcome
        return
    if fault.when_quiet and not (_is_well(world, fault.host) and _is_well(world, fault.other)):
        return
    other = world.fences[fault.other]
    device.switches, other.switches = other.switches, device.switches
    for name in (fault.host, fault.other):
        world.hosts[name].agent.facts_changed()


def _is_well(world: World, name: str) -> bool:
    host = world.hosts[name]
    linked = world.network.both_ways(name, "aggregator", Plane.CONTROL)
    return host.power_on and host.agent.answers and host.agent.connection is not None and linked


def _qemu_of(world: World, vm: str) -> Qemu | None:
    """Return the QEMU a person would mean: the running one, else any."""
    record = world.truth.by_name(vm)
    if record is None or not record.qemus:
        return None
    return next(iter(record.running() or record.qemus))


def _signal(world: World, fault: Signal) -> None:
    kind, _, name = fault.target.rpartition("@")
    if fault.target.startswith("qemu:"):
        _signal_qemu(world, fault.verb, fault.target.removeprefix("qemu:"))
    elif not kind:
        _signal_host(world, fault.verb, name)
    else:
        process: Process
        if kind == "aggregator":
            aggregator = _aggregator(world, fault.target)
            process, kill, start = aggregator, _kill_aggregator(aggregator), aggregator.start
        elif kind == "agent":
            process, kill, start = world.hosts[name].agent, world.hosts[name].kill_agent, world.hosts[name].agent.start
        else:
            host = world.hosts[name]
            process, kill, start = host.hypervisor, host.kill_libvirtd, host.hypervisor.start
        _signal_process(fault, process, kill, start)


def _aggregator(world: World, target: str) -> SimulatedAggregator:
    return world.aggregators[int(target.removeprefix("aggregator@")) - 1]


def _kill_aggregator(aggregator: SimulatedAggregator) -> Callable[[], None]:
    def kill() -> None:
        aggregator.kill()
        aggregator.resume()

    return kill


def _signal_process(fault: Signal, process: Process, kill: Callable[[], None], start: Callable[[], None]) -> None:
    if fault.verb == "pause" and fault.after_steps:
        process.pause_after(fault.after_steps)
    elif fault.verb == "pause":
        process.pause()
    elif fault.verb == "resume":
        process.resume()
    elif fault.verb == "start":
        start()
    elif fault.after_steps:
        process.die_after(fault.after_steps, kill)
    else:
        kill()


def _signal_host(world: World, verb: str, name: str) -> None:
    host = world.hosts[name]
    if verb == "pause":
        host.freeze()
    elif verb == "resume":
        host.thaw()
    elif verb == "kill":
        host.lose_power()
    else:
        host.get_power()


def _signal_qemu(world: World, verb: str, vm: str) -> None:
    qemu = _qemu_of(world, vm)
    if qemu is None:
        return
    host = world.hosts[qemu.host]
    if verb == "kill":
        host.guest_does(qemu, "crash")
    elif verb in ("pause", "resume") and not host.frozen:
        world.truth.freezes(qemu, frozen=verb == "pause")
