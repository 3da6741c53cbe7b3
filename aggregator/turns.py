"""Judges the turns of drains that go one failure domain after another, on a thread, and tells the core as facts.

Knows when; what is judged is core/turns.py's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from aggregator.core.drain import VERDICT_FRESH_S
from aggregator.core.events import Event
from aggregator.core.state import State
from aggregator.core.turns import answer_turns, ask_turns

LOOK_EVERY_S = 1.0
AGAIN_AFTER_S = VERDICT_FRESH_S / 2

_log = structlog.get_logger("aggregator.turns")


async def judge_turns(
    state: Callable[[], State], now: Callable[[], float], report: Callable[[Event], None], leads: Callable[[], bool]
) -> None:
    """Judge until cancelled, what waits only for that; a turn that was refused again after AGAIN_AFTER_S."""
    judged_s = float("-inf")
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        fresh = [d for d in state().drains.values() if d.state == "Waiting" and d.keeps_spare and not d.judged_at]
        if not leads() or (not fresh and now() < judged_s + AGAIN_AFTER_S):
            continue
        questions = ask_turns(state(), now())
        if questions is None:
            continue
        judged_s = now()
        try:
            verdicts = await asyncio.to_thread(answer_turns, questions, judged_s)
        except Exception as error:  # noqa: BLE001 (the rim of a side task: a defect here must not end the aggregator)
            _log.error("turns not judged", error=repr(error))
            continue
        for verdict in verdicts:
            report(verdict)
