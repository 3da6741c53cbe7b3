"""What a ladder may name besides a host's own controller, and how its rungs are written.

power: the controller (fences.py). pdu: an outlet that switches the host. feed1, feed2: the outlets of its
two power supplies; it lives while one of them is on. kdump: listens for the host's crash kernel. An
outlet stands elsewhere than its host and knows only whether it is switched on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from aggregator.act.fence_answer import ProgramEnded
from aggregator.core.objects import FencingDevice, FencingRung
from simulator.fences import OFF, ON, FenceDevice

if TYPE_CHECKING:
    from simulator.plan import NodePlan
    from simulator.world import World

WORDS = ("power", "pdu", "feed1", "feed2", "kdump")
FEEDS = ("feed1", "feed2")
LISTEN_LOOK_S = 0.5
LISTEN_TIMEOUT = "20s"


def ladder_of(plan: NodePlan) -> tuple[FencingRung, ...]:
    """Return the fencing of a node as a person would have written it."""
    return tuple(_rung(plan.name, words) for words in plan.fencing)


def _rung(node: str, words: tuple[str, ...]) -> FencingRung:
    if words == ("kdump",):
        params = {"nodename": f"{node}.control"}
        return FencingRung(agent="fence_kdump", params=params, proof="CrashKernel", timeout=LISTEN_TIMEOUT)
    devices = tuple(_device(node, word) for word in words)
    if len(devices) > 1:
        return FencingRung(devices=devices)
    (one,) = devices
    return FencingRung(agent=one.agent, params=one.params, identity=one.identity, guid=one.guid)


def _device(node: str, word: str) -> FencingDevice:
    if word == "power":
        return FencingDevice(agent="fence_sim", params={"ip": f"{node}.bmc"}, guid=f"guid-{node}")
    return FencingDevice(agent=f"fence_{word}", params={"ip": f"{node}.{word}"}, identity="Operator")


def make_outlet(world: World, node: str, word: str) -> FenceDevice:
    """Return the device that a word of a ladder stands for."""
    if word == "power":
        return world.fences[node]
    return CrashListener(world, node, word) if word == "kdump" else Outlet(world, node, word)


class Outlet(FenceDevice):
    """An outlet of a power distribution unit."""

    def __init__(self, world: World, node: str, word: str) -> None:
        super().__init__(world, node, word)
        self.word = word
        self.on = True

    def is_reached(self) -> bool:
        return True

    def _read(self, travels_s: float, answer: Callable[[ProgramEnded], None]) -> None:
        reply = ON if self.on else OFF
        self._world.queue.after(travels_s, lambda: answer(reply))

    def _switch(self, question: str) -> None:
        host = self._world.hosts[self.node]
        self.on = question == "on"
        if self.on:
            host.get_power()
            return
        self._world.fenced_off.append((self._world.queue.now, host.name))
        others = [self._world.outlets.get(f"{self.node}.{word}") for word in FEEDS if self.word in FEEDS]
        if not any(isinstance(other, Outlet) and other.on for other in others):
            host.lose_power()


class CrashListener(FenceDevice):
    """fence_kdump, run where the aggregator runs."""

    def ask(self, question: str, timeout_s: float, answer: Callable[[ProgramEnded], None]) -> None:
        """Listen until the crash kernel speaks or the time is over."""
        queue = self._world.queue
        if question != "listen":
            queue.after(0.01, lambda: answer(ProgramEnded(1, talk="unsupported action")))
            return
        ends = queue.now + timeout_s - 1.0

        def look() -> None:
            if self._world.hosts[self.node].crash_kernel:
                answer(ProgramEnded(0, f"received valid message from '{self.node}.control'"))
            elif queue.now >= ends:
                answer(ProgramEnded(1, talk=f"timeout after {timeout_s - 1:g} seconds"))
            else:
                queue.after(LISTEN_LOOK_S, look)

        queue.after(LISTEN_LOOK_S, look)
