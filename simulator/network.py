"""The networks between hosts and aggregators: planes, cuts, and what disturbed links do to messages.

A stream is one direction of a connection. While its way is cut, what was sent waits in the
sender's kernel and arrives after the cut, in order: bytes outlive the process that wrote them.
Disturbances (drop, delay, duplicate, reorder) are applied to whole messages, which is harsher
than TCP: the protocol promises to survive it. Knows no message.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Generic, TypeVar

from fleet.model import Plane
from simulator.clock import Queue

T = TypeVar("T")

PLANES = (Plane.CONTROL, Plane.MIGRATION, Plane.STORAGE, Plane.BMC)
DISTURBANCES = ("drop", "delay", "duplicate", "reorder")
RETRANSMIT_S = (0.02, 0.8)
RETRANSMIT_S_MAX = 60.0  # each unanswered try doubles the wait: what waited long is tried again late


class Network:
    """Who reaches whom on which plane, now. Aggregators hang on all planes and are never cut."""

    def __init__(self, queue: Queue, random_of: Callable[[str], Random]) -> None:
        self.queue = queue
        self._random_of = random_of
        self._randoms: dict[tuple[str, str], Random] = {}
        self._cut: dict[tuple[str, Plane, str], bool] = {}
        self._disturbed: dict[tuple[str, Plane, str], float] = {}
        self._waiting: list[tuple[float, Callable[[], None]]] = []
        self.on_disturbance: list[Callable[[str], None]] = []  # called with the host before its ways change

    def random(self, source: str, target: str) -> Random:
        """Return the chance of one way between two machines."""
        random = self._randoms.get((source, target))
        if random is None:
            random = self._randoms[source, target] = self._random_of(f"{source} to {target}")
        return random

    def cut(self, host: str, plane: Plane, direction: str = "both") -> None:
        """direction: in | out | both, as seen from the host."""
        self._announce(host)
        for way in ("in", "out"):
            if direction in (way, "both"):
                self._cut[host, plane, way] = True

    def heal(self, host: str, plane: Plane) -> None:
        """End cuts and disturbances; what waited is sent again."""
        for way in ("in", "out"):
            self._cut.pop((host, plane, way), None)
        for kind in DISTURBANCES:
            self._disturbed.pop((host, plane, kind), None)
        waiting, self._waiting = self._waiting, []
        for since, again in waiting:
            silent_s = min(RETRANSMIT_S_MAX, self.queue.now - since)
            soonest_s, latest_s = RETRANSMIT_S
            self.queue.after(self.random(host, host).uniform(soonest_s, max(latest_s, silent_s)), again)

    def disturb(self, host: str, plane: Plane, kind: str, amount: float) -> None:
        """kind: drop | duplicate | reorder with a rate, delay with seconds; 0 ends it."""
        self._announce(host)
        if amount > 0:
            self._disturbed[host, plane, kind] = amount
        else:
            self._disturbed.pop((host, plane, kind), None)

    def passes(self, source: str, target: str, plane: Plane) -> bool:
        """Would a packet get from source to target?"""
        cut = self._cut
        return not cut or ((source, plane, "out") not in cut and (target, plane, "in") not in cut)

    def undisturbed(self, host: str, plane: Plane) -> bool:
        """Does every packet pass at once, to and from the host?"""
        cut, disturbed = self._cut, self._disturbed
        return not any((host, plane, way) in cut for way in ("in", "out")) and not any(
            (host, plane, kind) in disturbed for kind in DISTURBANCES
        )

    def _announce(self, host: str) -> None:
        for watch in self.on_disturbance:
            watch(host)

    def both_ways(self, one: str, other: str, plane: Plane) -> bool:
        return self.passes(one, other, plane) and self.passes(other, one, plane)

    def when_healed(self, again: Callable[[], None]) -> None:
        self._waiting.append((self.queue.now, again))

    def latency_s(self, source: str, target: str, plane: Plane) -> float:
        """Draw how long a message travels."""
        random = self.random(source, target)
        delay = random.uniform(0.0002, 0.0015)
        if self._disturbed:
            delay += random.uniform(0.5, 1.0) * max(
                self._disturbed.get((source, plane, "delay"), 0.0), self._disturbed.get((target, plane, "delay"), 0.0)
            )
        return delay

    def happens(self, source: str, target: str, plane: Plane, kind: str) -> bool:
        """Draw whether a disturbance hits this message."""
        if not self._disturbed:
            return False
        rate = max(self._disturbed.get((source, plane, kind), 0.0), self._disturbed.get((target, plane, kind), 0.0))
        return rate > 0 and self.random(source, target).random() < rate


class Stream(Generic[T]):
    """One direction of a connection. ends=True marks an item that is never dropped or doubled."""

    def __init__(self, network: Network, source: str, target: str, plane: Plane, take: Callable[[T], None]) -> None:
        self._network = network
        self._source, self._target, self._plane = source, target, plane
        self._take = take
        self._held: list[T] = []
        self._last_arrival = float("-inf")
        self._dead = False

    def idle_by(self, when: float) -> bool:
        """Will nothing be on its way then that is not sent yet?"""
        return not self._dead and not self._held and self._last_arrival < when

    def send(self, item: T, *, ends: bool = False) -> None:
        """Put an item on its way."""
        network, way = self._network, (self._source, self._target, self._plane)
        if self._dead:
            return
        if not ends and network.happens(*way, "drop"):
            return
        copies = 2 if not ends and network.happens(*way, "duplicate") else 1
        for _ in range(copies):
            arrival = network.queue.now + network.latency_s(*way)
            if ends or not network.happens(*way, "reorder"):
                arrival = max(arrival, self._last_arrival)
                self._last_arrival = arrival
            else:
                arrival += network.random(self._source, self._target).uniform(0.0, 0.5)
            network.queue.at(arrival, lambda: self._arrive(item))

    def die(self) -> None:
        """The sending or receiving kernel lost power: nothing that waits will ever be sent."""
        self._dead = True
        self._held.clear()

    def _arrive(self, item: T) -> None:
        if self._dead:
            return
        if self._held:
            self._held.append(item)
        elif self._network.passes(self._source, self._target, self._plane):
            self._take(item)
        else:
            self._held.append(item)
            self._network.when_healed(self._send_again)

    def _send_again(self) -> None:
        if not self._held:
            return
        if not self._network.passes(self._source, self._target, self._plane):
            self._network.when_healed(self._send_again)
            return
        held, self._held = self._held, []
        for item in held:
            self._take(item)
