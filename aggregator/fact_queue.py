"""The bounded queue in front of the loop, and when the loop should look at it.

Knows facts and who waits for them; folds nothing. Beats may wait a little, so that a thousand nodes
cost ten turns a second and not a thousand; everything else wakes the loop at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from msgspec import Struct

from aggregator.core.events import Event
from aggregator.core.journal_form import VOLATILE
from aggregator.core.state import State

FACTS_WAITING_MAX = 50_000
FACTS_A_TURN_MAX = 5_000
BEAT_WAIT_S_MAX = 0.1

Check = Callable[[State], None]


class Waiting(Struct):
    """A fact in the queue. done: who waits for its journal position."""

    fact: Event
    check: Check | None = None
    done: asyncio.Future[int] | None = None


class FactQueue:
    """First in, first out. Used on the loop's thread only."""

    def __init__(self) -> None:
        self._waiting: deque[Waiting] = deque()
        self._wake = asyncio.Event()
        self._later: asyncio.TimerHandle | None = None
        self.overflowed = False

    def offer(self, fact: Event) -> bool:
        """Queue an agent's fact; False if there is no room (its session must then be closed)."""
        if len(self._waiting) >= FACTS_WAITING_MAX:
            self.overflowed = True
            self._wake.set()
            return False
        self.put(Waiting(fact))
        return True

    def put(self, waiting: Waiting) -> None:
        """Queue a fact that must not be lost: of our hands, a person's, a session's end."""
        self._waiting.append(waiting)
        if not isinstance(waiting.fact, VOLATILE):
            self._wake.set()
        elif self._later is None:
            self._later = asyncio.get_running_loop().call_later(BEAT_WAIT_S_MAX, self._wake.set)

    @property
    def full(self) -> bool:
        """True where people's facts must be turned away too."""
        return len(self._waiting) >= 2 * FACTS_WAITING_MAX

    def wake(self) -> None:
        """End the present wait."""
        self._wake.set()

    async def wait(self, seconds: float) -> None:
        """Return when a fact is due, on wake(), or after this time."""
        if self._wake.is_set():
            return
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    def take(self) -> list[Waiting]:
        """Return the next turn's facts. One with a check comes first in its turn, or it would see an old state."""
        if self._later is not None:
            self._later.cancel()
            self._later = None
        taken: list[Waiting] = []
        while self._waiting and len(taken) < FACTS_A_TURN_MAX:
            if taken and self._waiting[0].check is not None:
                break
            taken.append(self._waiting.popleft())
        if not self._waiting:
            self._wake.clear()
        return taken

    def give_up(self, error: Exception) -> None:
        """Tell everybody who waits that nothing more is folded."""
        for waiting in self._waiting:
            if waiting.done is not None and not waiting.done.done():
                waiting.done.set_exception(error)
        self._waiting.clear()
