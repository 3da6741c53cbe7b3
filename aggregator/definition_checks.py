"""Asks one agent whether its host's libvirt would take a domain XML, and waits for the answer.

Knows questions in flight; must not know what the XML means. Nothing is defined anywhere by asking.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aggregator.fleet_access import DefinitionVerdict
from fleet.messages import CheckDefinition, DefinitionChecked

QUESTIONS_MAX = 64
Send = Callable[[CheckDefinition], bool]


class DefinitionChecks:
    """Questions by id. candidates: the agents that may be asked now, best first."""

    def __init__(self, candidates: Callable[[], list[tuple[str, Send]]]) -> None:
        self._candidates = candidates
        self._asked: dict[str, tuple[str, asyncio.Future[DefinitionChecked]]] = {}
        self._count = 0

    async def ask(self, xml: str, timeout_s: float) -> DefinitionVerdict:
        """Return one agent's verdict; ok is None if nobody could be asked or nobody answered in time."""
        if len(self._asked) >= QUESTIONS_MAX:
            return DefinitionVerdict(None, "too many definitions are being checked at once; try again")
        candidates = self._candidates()
        if not candidates:
            return DefinitionVerdict(None, "no node is up whose libvirt could check the definition")
        self._count += 1
        check_id = f"check-{self._count}"
        for node, send in candidates:
            answer: asyncio.Future[DefinitionChecked] = asyncio.get_running_loop().create_future()
            self._asked[check_id] = (node, answer)
            try:
                if not send(CheckDefinition(check_id, xml)):
                    continue
                async with asyncio.timeout(timeout_s):
                    checked = await answer
                return DefinitionVerdict(checked.ok, checked.message, node)
            except TimeoutError:
                return DefinitionVerdict(None, f"{node} did not check the definition within {timeout_s:g} s", node)
            finally:
                self._asked.pop(check_id, None)
        return DefinitionVerdict(None, "no agent could be asked to check the definition")

    def answered(self, node: str, checked: DefinitionChecked) -> None:
        """Take an answer; one that nobody waits for, or of another node, is nothing."""
        asked = self._asked.get(checked.check_id)
        if asked is not None and asked[0] == node and not asked[1].done():
            asked[1].set_result(checked)
