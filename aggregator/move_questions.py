"""Asks agents about moves that have not begun, and waits for their answers.

Knows questions in flight; must not know what an answer means. Nothing is begun anywhere by asking.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec import structs

from fleet.messages import CheckArrival, CheckDeparture, MoveChecked

QUESTIONS_MAX = 256
ASKED_HERE = "ask-"  # begins the ids of these questions
Send = Callable[[CheckArrival | CheckDeparture], bool]


class MoveQuestions:
    """Questions by id. door: how a node is asked, None where it cannot be."""

    def __init__(self, door: Callable[[str], Send | None]) -> None:
        self._door = door
        self._asked: dict[str, tuple[str, asyncio.Future[MoveChecked]]] = {}
        self._count = 0

    async def ask(self, node: str, question: CheckArrival | CheckDeparture, timeout_s: float) -> MoveChecked | None:
        """Return the node's answer; None if it cannot be asked or did not answer in time."""
        send = self._door(node)
        if send is None or len(self._asked) >= QUESTIONS_MAX:
            return None
        self._count += 1
        check_id = f"{ASKED_HERE}{self._count}"
        answer: asyncio.Future[MoveChecked] = asyncio.get_running_loop().create_future()
        self._asked[check_id] = (node, answer)
        try:
            if not send(structs.replace(question, check_id=check_id)):
                return None
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            return None
        finally:
            self._asked.pop(check_id, None)

    def answered(self, node: str, checked: MoveChecked) -> bool:
        """Take an answer; nobody waits for one of another node, or too late. Return whether it was asked here."""
        asked = self._asked.get(checked.check_id)
        if asked is not None and asked[0] == node and not asked[1].done():
            asked[1].set_result(checked)
        return checked.check_id.startswith(ASKED_HERE)
