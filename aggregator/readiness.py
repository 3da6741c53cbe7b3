"""The standing N+1 report: made again and again on a thread of its own, from a copy of the state.

Knows when, and that it must never cost more than its share of a core or hold up the loop; what is in the report is
core/whatif.py's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog
from msgspec import structs

from aggregator.core.state import State
from aggregator.core.whatif import Readiness, answer_all, ask_all

EVERY_S_MIN = 15.0
SHARE_MAX = 0.05  # of one core
FIRST_AFTER_S = 5.0  # a life begins with more urgent things

_log = structlog.get_logger("aggregator.readiness")


class StandingReadiness:
    """The newest report. report: None until the first one is made."""

    def __init__(self, state: Callable[[], State], now: Callable[[], float]) -> None:
        self._state = state
        self._now = now
        self.report: Readiness | None = None

    async def run(self) -> None:
        """Make reports until cancelled; one that cannot be made is logged, and the one before it goes."""
        pause_s, seen = FIRST_AFTER_S, -1
        while True:
            await asyncio.sleep(pause_s)
            pause_s = EVERY_S_MIN
            position = self._state().position
            if position == seen:
                continue  # whatever it hangs on is journalled
            try:
                took_s = await self._make()
            except Exception as error:  # noqa: BLE001 (the rim of a side task: a defect here must not end the aggregator)
                self.report = None
                _log.error("no report", error=repr(error))
            else:
                seen = position
                pause_s = max(EVERY_S_MIN, took_s / SHARE_MAX)

    async def _make(self) -> float:
        """Make one and return how long a core was busy with it, in seconds."""
        begun = time.perf_counter()
        questions = ask_all(self._state(), self._now())
        copied_s = time.perf_counter() - begun

        def think() -> tuple[Readiness, float]:
            thread_s = time.thread_time()
            return answer_all(questions), time.thread_time() - thread_s

        report, thought_s = await asyncio.to_thread(think)
        self.report = structs.replace(report, took_s=round(copied_s + thought_s, 4))
        return copied_s + thought_s
