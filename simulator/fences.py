"""The fence devices: one per host, wired to a host's power, and what can be wrong with one.

works: as measured (status 0.15 s, off 2.1 s). fails: an error at once. hangs: no answer, no deed.
early: says off up to 1 s before it is so. missing: the fence program is not installed. broken: it
ends with status 2, as one that says off, and without a word about the power (a script that is not there,
a wrong argument). swapped: answers for, and switches, another host. A program that was started goes on
when the aggregator that started it dies; only its answer is lost. Knows no proofs, and judges no answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from aggregator.act.fence_answer import ProgramEnded
from fleet.model import Plane

if TYPE_CHECKING:
    from simulator.world import World

OUTCOMES = ("works", "fails", "hangs", "early", "missing", "broken")
EARLY_S_MAX = 1.0


TIMED_OUT = ProgramEnded(None, timed_out=True)
ON = ProgramEnded(0, "Status: ON\n")
OFF = ProgramEnded(2, "Status: OFF\n")
_DONE = {"off": ProgramEnded(0, "Success: Powered OFF\n"), "on": ProgramEnded(0, "Success: Powered ON\n")}
_ERROR = ProgramEnded(1, talk="Failed: unable to connect to the device\n")
_MISSING = ProgramEnded(None, missing=True, trouble="the program fence_sim is not there")
_BROKEN = ProgramEnded(2, talk="python3: can't open file 'fence_sim': [Errno 2] No such file or directory\n")


class FenceDevice:
    """The device at one node's address."""

    def __init__(self, world: World, node: str, word: str = "bmc") -> None:
        self._world = world
        self._random = world.random_of(f"{node}.{word}")
        self.node = node
        self.outcome = "works"
        self.switches = node  # the host whose power it is really wired to
        self._lies_until = float("-inf")

    def wired_as(self) -> str:
        """Return whose controller the host `node` finds inside itself, read in-band."""
        return next((d.node for d in self._world.fences.values() if d.switches == self.node), "")

    def ask(self, question: str, timeout_s: float, answer: Callable[[ProgramEnded], None]) -> None:
        """Start the program; `answer` comes once, at timeout_s at the latest."""
        world = self._world
        draw, after = self._random.uniform, world.queue.after
        if self.outcome == "missing":
            after(0.01, lambda: answer(_MISSING))
        elif self.outcome == "broken":
            after(0.02, lambda: answer(_BROKEN))
        elif self.outcome == "fails":
            after(min(timeout_s, draw(0.1, 0.5)), lambda: answer(_ERROR))
        elif self.outcome == "hangs" or not self.is_reached():
            after(timeout_s, lambda: answer(TIMED_OUT))
        elif question == "status":
            after(draw(0.08, 0.15), lambda: self._read(draw(0.02, 0.06), answer))
        else:
            done_s = draw(1.5, 2.3) if question == "off" else draw(0.4, 0.8)
            act_s = draw(0.2, done_s - 0.05)
            after(act_s, lambda: self._switch(question))
            reply = _DONE[question] if done_s <= timeout_s else TIMED_OUT
            after(min(done_s, timeout_s), lambda: answer(reply))

    def is_reached(self) -> bool:
        return self._world.network.both_ways(self.node, "aggregator", Plane.BMC)

    def _read(self, travels_s: float, answer: Callable[[ProgramEnded], None]) -> None:
        """Read the power now; the answer comes a little later."""
        world = self._world
        lying = world.queue.now < self._lies_until
        reply = ON if world.hosts[self.switches].current and not lying else OFF
        world.queue.after(travels_s, lambda: answer(reply))

    def _switch(self, question: str) -> None:
        world, host = self._world, self._world.hosts[self.switches]
        if question == "on":
            host.get_power()
            return
        world.fenced_off.append((world.queue.now, host.name))
        if self.outcome != "early":
            host.lose_power()
            return
        lie_s = self._random.uniform(0.0, EARLY_S_MAX)
        self._lies_until = world.queue.now + lie_s
        world.queue.after(lie_s, host.lose_power)
