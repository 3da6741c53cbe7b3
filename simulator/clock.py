"""Time of the simulated world: one heap of what will happen, and the clocks machines read.

Ordered by (time, sequence), so that two things at one instant happen in the order they were
arranged. Knows nothing of what happens. World time is seconds; 0 is the beginning of a story.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

Deed = Callable[[], None]


class Timer:
    """One arranged deed; `cancel` makes it never happen."""

    __slots__ = ("deed",)

    def __init__(self, deed: Deed) -> None:
        self.deed: Deed | None = deed

    def cancel(self) -> None:
        self.deed = None


class Queue:
    """What will happen, in order. `now` only moves while deeds are run."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now
        self.steps = 0
        self._sequence = 0
        self._heap: list[tuple[float, int, Timer]] = []

    def at(self, when: float, deed: Deed) -> Timer:
        """Arrange a deed; a time in the past means as soon as possible."""
        self._sequence += 1
        timer = Timer(deed)
        heapq.heappush(self._heap, (max(when, self.now), self._sequence, timer))
        return timer

    def after(self, delay_s: float, deed: Deed) -> Timer:
        return self.at(self.now + delay_s, deed)

    def run_until(self, until: float) -> None:
        """Let everything happen that is due up to and including `until`."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            when, _, timer = heapq.heappop(heap)
            if timer.deed is None:
                continue
            self.now = when
            self.steps += 1
            timer.deed()
        self.now = max(self.now, until)


class LocalClock:
    """A machine's own clock: it may run fast or slow, and a wall clock may be set."""

    def __init__(self, queue: Queue, shows: float = 0.0, rate: float = 1.0) -> None:
        self._queue = queue
        self._since = queue.now
        self._shows = shows
        self._rate = rate

    def now(self) -> float:
        return self._shows + (self._queue.now - self._since) * self._rate

    def shows(self, when: float) -> float:
        """Return what the clock shows at a world time, if nobody meddles with it in between."""
        return self._shows + (when - self._since) * self._rate

    def when(self, shows: float) -> float:
        """Return the world time at which the clock will show this, if nobody meddles with it."""
        return self._since + (shows - self._shows) / self._rate

    def set_rate(self, rate: float) -> None:
        self._shows, self._since, self._rate = self.now(), self._queue.now, rate

    def jump(self, by_s: float) -> None:
        self._shows += by_s
