"""Fleet time, and the doubts an aggregator must have about its own clocks.

The only place where the aggregator reads a clock for its decisions. Fleet time is Unix seconds that never
go backwards within a life, nor behind what was journalled; how fast it goes is the monotonic clock's matter.
"""

from __future__ import annotations

from fleet.clock import Clock, SystemClock

WALL_JUMP_S_MAX = 1.0  # slewing moves it by far less between two looks


class FleetClock:
    """now = max(wall at start, last journalled) + monotonic time since."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self.monotonic = self._clock.monotonic_s
        self._origin = self._wall_gap = self._clock.wall_s() - self.monotonic()
        self._slept_s = self._clock.boottime_offset_s()

    def start_after(self, journalled: float) -> None:
        """Never be behind what an earlier life wrote down."""
        self._origin = max(self._origin, journalled - self.monotonic())

    def now(self) -> float:
        """Return fleet time in Unix seconds."""
        return self._origin + self.monotonic()

    def jumped(self, suspend_s_max: float) -> str:
        """Return how a clock jumped since the last call, or an empty text."""
        slept_s, wall_gap = self._clock.boottime_offset_s(), self._clock.wall_s() - self.monotonic()
        slept, moved = slept_s - self._slept_s, wall_gap - self._wall_gap
        self._slept_s, self._wall_gap = slept_s, wall_gap
        if slept > suspend_s_max:
            return f"this machine was suspended for {slept:.1f} s"
        if abs(moved) > WALL_JUMP_S_MAX:
            return f"the wall clock jumped by {moved:+.1f} s"
        return ""
