"""Whether the aggregator may trust its own eyes: loop lag, jumped clocks, a full queue (S9).

A ticker runs on the loop; whoever is about to decide asks doubt() first, so a process that was stopped
for a while doubts itself before it has looked at a single silence.
"""

from __future__ import annotations

import asyncio

from aggregator.clock import FleetClock
from aggregator.core.events import SelfDoubted

TICK_S = 0.1
DOUBTS_APART_S_MIN = 1.0


class SelfWatch:
    """Measures the event loop it runs on."""

    def __init__(self, clock: FleetClock) -> None:
        self._clock = clock
        self._ticked = clock.monotonic()
        self._lag_s = 0.0
        self._lag_s_max = DOUBTS_APART_S_MIN
        self._jumped = ""
        self._doubted = float("-inf")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to tick."""
        self._ticked = self._clock.monotonic()
        self._task = asyncio.create_task(self._tick())

    async def close(self) -> None:
        """End the ticker."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def doubt(self, lag_s_max: float, *, overflowed: bool) -> SelfDoubted | None:
        """Return the doubt there is since the last call, if any."""
        now, tick = self._clock.now(), self._clock.monotonic()
        lag, self._lag_s = max(self._lag_s, tick - self._ticked - TICK_S), 0.0
        self._look_at_clocks(lag_s_max)
        jumped, self._jumped = self._jumped, ""
        found = None
        if jumped:
            found = SelfDoubted(at=now, kind="clock", detail=jumped)
        elif lag > lag_s_max:
            found = SelfDoubted(at=now, kind="lag", detail=f"the event loop stood still for {lag:.1f} s")
        elif overflowed:
            found = SelfDoubted(at=now, kind="queue", detail="more facts arrive than can be folded")
        if found is None or tick - self._doubted < DOUBTS_APART_S_MIN:
            return None
        self._doubted = tick
        return found

    def _look_at_clocks(self, suspend_s_max: float) -> None:
        self._lag_s_max = suspend_s_max
        self._jumped = self._clock.jumped(suspend_s_max) or self._jumped

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            tick = self._clock.monotonic()
            self._lag_s = max(self._lag_s, tick - self._ticked - TICK_S)
            self._ticked = tick
            self._look_at_clocks(self._lag_s_max)  # often, or slewing would add up to a jump
