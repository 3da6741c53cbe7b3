"""Reads one item of a story's `events`: a fault, or a verb of the command line (`do:`).

Every item has `at` and one key that says what happens; the other keys belong to that one. With
`when: StartDecided` an item waits, from `at` on, for that event to be durable, or for a QEMU to
be in that state (`when: Finished`): moments that a time could only hit by luck.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aggregator.core import events as ev
from fleet.model import Plane, QemuState
from fleet.units import parse_duration_s
from simulator.faults import (
    AnyFault,
    ByHand,
    ClockJump,
    ClockRate,
    Cut,
    Disturb,
    FenceOutcome,
    GuestDoes,
    Heal,
    Panic,
    Power,
    Reference,
    Replace,
    Signal,
    Storage,
    Store,
)
from simulator.fences import OUTCOMES
from simulator.network import PLANES
from simulator.plan import WorldPlan
from simulator.run import Happening
from simulator.story_error import StoryError
from simulator.verbs import VERBS

Raw = Mapping[str, object]
MOMENTS = (
    *(kind.__name__ for kind in vars(ev).values() if isinstance(kind, type) and issubclass(kind, ev.Event)),
    *(f"Node{state}" for state in ev.NodeState),
    *QemuState,
)
ON_OFF = {True: "on", False: "off"}  # YAML 1.1 reads a bare on and off as truth values


class Item:
    """One item with its place, for sentences."""

    def __init__(self, raw: Raw, where: str, plan: WorldPlan) -> None:
        self.raw = raw
        self.where = where
        self.plan = plan
        self.at = self.seconds("at")
        self.aggregators = tuple(f"aggregator@{number}" for number in range(1, plan.aggregators + 1))

    def seconds(self, key: str) -> float:
        raw = self.raw.get(key)
        if not isinstance(raw, str | int | float):
            raise StoryError(f"{self.where}.{key}", "a time is missing; write it like 30s")
        try:
            return parse_duration_s(raw)
        except ValueError as error:
            raise StoryError(f"{self.where}.{key}", str(error)) from None

    def word(self, key: str, allowed: tuple[str, ...], default: str = "") -> str:
        raw = self.raw.get(key, default)
        text = ON_OFF[raw] if isinstance(raw, bool) else str(raw)
        if text not in allowed:
            raise StoryError(f"{self.where}.{key}", f"{text!r} is not one of {', '.join(allowed)}")
        return text

    def host(self, key: str) -> str:
        return self.word(key, tuple(node.name for node in self.plan.nodes))

    def vm(self, key: str) -> str:
        """A VM's name; one made during the story is not known beforehand."""
        return str(self.raw.get(key, ""))

    def planes(self) -> tuple[Plane, ...]:
        plane = self.word("plane", (*PLANES, "all"), "all")
        return PLANES if plane == "all" else (Plane(plane),)

    def rate(self, key: str, most: float) -> float:
        raw = self.raw.get(key)
        if not isinstance(raw, int | float) or isinstance(raw, bool) or not 0 <= raw <= most:
            raise StoryError(f"{self.where}.{key}", f"{raw!r} is not a number from 0 to {most:g}")
        return float(raw)

    def target(self, key: str) -> str:
        """HOST | agent@HOST | libvirtd@HOST | qemu:VM | aggregator@N."""
        text = str(self.raw.get(key, ""))
        kind, at, name = text.rpartition("@")
        if text.startswith("qemu:"):
            return text
        if text in self.aggregators:
            return text
        if kind == "aggregator":
            raise StoryError(f"{self.where}.{key}", f"{text} is none of {', '.join(self.aggregators)}")
        hosts = [node.name for node in self.plan.nodes]
        if name not in hosts or (at and kind not in ("agent", "libvirtd")):
            raise StoryError(
                f"{self.where}.{key}", f"{text!r} is none of HOST, agent@HOST, libvirtd@HOST, qemu:VM, aggregator@N"
            )
        return text

    def moment(self) -> str:
        """Return what an item waits for: the name of an event, or a QEMU's state."""
        when = str(self.raw.get("when", ""))
        if when and when not in MOMENTS:
            raise StoryError(f"{self.where}.when", f"{when!r} is neither an event nor a QEMU's state")
        return when

    def only(self, *known: str) -> None:
        for key in self.raw:
            if key not in ("at", "when", *known):
                raise StoryError(f"{self.where}.{key}", f"this key does not belong to {known[0]}")


def _power(item: Item) -> AnyFault:
    item.only("power", "to")
    return Power(at=item.at, host=item.host("power"), to=item.word("to", ("off", "on", "cycle")))


def _cut(item: Item) -> AnyFault:
    item.only("cut", "plane", "direction")
    direction = item.word("direction", ("in", "out", "both"), "both")
    return Cut(at=item.at, host=item.host("cut"), planes=item.planes(), direction=direction)


def _heal(item: Item) -> AnyFault:
    item.only("heal", "plane")
    return Heal(at=item.at, host=item.host("heal"), planes=item.planes())


def _disturb(kind: str) -> Callable[[Item], AnyFault]:
    def read(item: Item) -> AnyFault:
        key = "by" if kind == "delay" else "rate"
        item.only(kind, "plane", key)
        amount = item.seconds("by") if kind == "delay" else item.rate("rate", 1.0)
        return Disturb(at=item.at, host=item.host(kind), planes=item.planes(), kind=kind, amount=amount)

    return read


def _signal(verb: str) -> Callable[[Item], AnyFault]:
    def read(item: Item) -> AnyFault:
        item.only(verb, "afterSteps")
        steps = item.raw.get("afterSteps", 0)
        if not isinstance(steps, int) or steps < 0:
            raise StoryError(f"{item.where}.afterSteps", f"{steps!r} is not a whole number from 0")
        return Signal(at=item.at, verb=verb, target=item.target(verb), after_steps=steps)

    return read


def _fence(item: Item) -> AnyFault:
    item.only("fence", "outcome", "swapped")
    whole = str(item.raw["fence"])
    name, dot, word = whole.rpartition(".")  # n1, or n1.pdu for a device further down its ladder
    if dot and any(plan.name == name and word in sum(plan.fencing, ()) for plan in item.plan.nodes):
        return FenceOutcome(at=item.at, host=name, outcome=item.word("outcome", OUTCOMES), word=word)
    host = item.host("fence")
    outcome = item.raw.get("outcome", "")
    if isinstance(outcome, dict) and list(outcome) == ["swapped"]:  # outcome: {swapped: n2}
        return FenceOutcome(at=item.at, host=host, outcome="swapped", other=str(outcome["swapped"]))
    if "swapped" in item.raw or str(outcome).startswith("swapped"):
        other = str(item.raw.get("swapped", "")) or str(outcome).removeprefix("swapped").strip(": ")
        if other not in [node.name for node in item.plan.nodes]:
            raise StoryError(f"{item.where}.swapped", f"there is no node {other!r} to swap devices with")
        return FenceOutcome(at=item.at, host=host, outcome="swapped", other=other)
    return FenceOutcome(at=item.at, host=host, outcome=item.word("outcome", OUTCOMES))


def _guest(item: Item) -> AnyFault:
    item.only("guest", "does")
    return GuestDoes(
        at=item.at, vm=item.vm("guest"), does=item.word("does", ("crash", "poweroff", "hang", "write", "rest"))
    )


def _virsh(item: Item) -> AnyFault:
    item.only("virsh", "vm", "does")
    return ByHand(at=item.at, host=item.host("virsh"), vm=item.vm("vm"), does=item.word("does", ("start", "destroy")))


def _replace(item: Item) -> AnyFault:
    item.only("replace")
    return Replace(at=item.at, host=item.host("replace"))


def _clock(item: Item) -> AnyFault:
    item.only("clock", "rate")
    target = str(item.raw["clock"])
    if target not in item.aggregators:
        target = item.host("clock")
    return ClockRate(at=item.at, target=target, rate=max(0.5, item.rate("rate", 2.0)))


def _jump(item: Item) -> AnyFault:
    item.only("jump", "by")
    text = str(item.raw.get("by", ""))
    sign = -1.0 if text.startswith("-") else 1.0
    try:
        by_s = sign * parse_duration_s(text.removeprefix("-"))
    except ValueError as error:
        raise StoryError(f"{item.where}.by", str(error)) from None
    target = item.target("jump")
    if target not in item.aggregators:
        raise StoryError(f"{item.where}.jump", "nobody reads a node's wall clock; only an aggregator's can jump")
    return ClockJump(at=item.at, target=target, by_s=by_s)


def _storage(item: Item) -> AnyFault:
    item.only("storage", "is", "qemus")
    qemus = item.word("qemus", ("pause", "hang", "stay")) if "qemus" in item.raw else "pause"
    gone = item.word("is", ("gone", "back")) == "gone"
    return Storage(at=item.at, host=item.host("storage"), gone=gone, qemus=qemus)


def _panic(item: Item) -> AnyFault:
    item.only("panic")
    return Panic(at=item.at, host=item.host("panic"))


def _reference(item: Item) -> AnyFault:
    item.only("reference")
    return Reference(at=item.at, gone=item.word("reference", ("gone", "back")) == "gone")


def _store(item: Item) -> AnyFault:
    to = item.word("store", ("lost", "back", "rolledBack"))
    item.only("store", *(("by",) if to == "rolledBack" else ()))
    return Store(at=item.at, to=to, by_s=item.seconds("by") if to == "rolledBack" else 0.0)


READERS: dict[str, Callable[[Item], AnyFault]] = {
    "power": _power,
    "cut": _cut,
    "heal": _heal,
    **{kind: _disturb(kind) for kind in ("drop", "delay", "duplicate", "reorder")},
    **{verb: _signal(verb) for verb in ("pause", "resume", "kill", "start")},
    "fence": _fence,
    "guest": _guest,
    "virsh": _virsh,
    "replace": _replace,
    "clock": _clock,
    "jump": _jump,
    "storage": _storage,
    "panic": _panic,
    "reference": _reference,
    "store": _store,
}


def read_happening(raw: object, where: str, plan: WorldPlan) -> Happening:
    """Return one item; StoryError names its place."""
    if not isinstance(raw, dict):
        raise StoryError(where, 'an event is a mapping like {at: 30s, power: n1, to: "off"}')
    item = Item(raw, where, plan)
    when = item.moment()
    if "do" in raw:
        verb = item.word("do", tuple(VERBS))
        arguments = {str(key): value for key, value in raw.items() if key not in ("at", "when", "do")}
        return Happening(at=item.at, when=when, words=_words(raw), verb=verb, arguments=arguments)
    kinds = [kind for kind in READERS if kind in raw]
    if len(kinds) != 1:
        told = " and ".join(kinds) or "none"
        raise StoryError(where, f"an event has exactly one of do, {', '.join(READERS)}; here are {told}")
    return Happening(at=item.at, when=when, words=_words(raw), fault=READERS[kinds[0]](item))


def _words(raw: Raw) -> str:
    parts = []
    for key, value in raw.items():
        if key == "at":
            continue
        shown = ON_OFF[value] if isinstance(value, bool) and key == "to" else value
        if isinstance(shown, dict):
            if key == "outcome":
                parts.append(f"outcome {' '.join(str(word) for pair in shown.items() for word in pair)}")
                continue
            name = shown.get("metadata", {}).get("name", "") if isinstance(shown.get("metadata"), dict) else ""
            shown = f"{shown.get('kind', '')} {name}".strip() or "…"
        parts.append(f"{key} {shown}")
    return ", ".join(parts)
