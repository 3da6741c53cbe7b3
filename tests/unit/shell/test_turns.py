"""The turns of drains are judged beside the loop."""

from __future__ import annotations

import asyncio

from aggregator.core.events import Event, TurnJudged
from aggregator.turns import judge_turns
from tests.unit.core.test_turns import spread, wanted


async def test_a_turn_that_waits_only_for_a_verdict_gets_one() -> None:
    fleet = spread(3)
    wanted(fleet, "n1")
    told: asyncio.Queue[Event] = asyncio.Queue()
    task = asyncio.create_task(judge_turns(lambda: fleet.state, lambda: fleet.now, told.put_nowait, lambda: True))
    try:
        async with asyncio.timeout(30):
            verdict = await told.get()
    finally:
        task.cancel()
    assert isinstance(verdict, TurnJudged)
    assert (verdict.job, verdict.domain) == ("j", "n1")
    assert "the loss of n2 could not be borne" in verdict.why_not
