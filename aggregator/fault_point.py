"""For tests: the aggregator kills itself at a chosen step of its journal.

VIRTWARD_KILL_AT="KIND:N" means SIGKILL right after the N-th event of that kind in this life is journalled
and before any deed that follows from it; "KIND:N:after" means after the deeds of that turn have left.
KIND is a kind of history line (`NodeLost`) or an event's type (`NodeStateChanged`). Without the variable
nothing here does anything.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence

VARIABLE = "VIRTWARD_KILL_AT"
LEAVE_S = 0.2  # orders to sockets, fence programs started


class FaultPoint:
    """Counts journalled events and ends the process at the one that was asked for."""

    def __init__(self, text: str) -> None:
        """text: the variable's value, empty for never; ValueError if it cannot be read."""
        self._kind, self._left, self._after, self._due = "", 0, False, False
        if not text:
            return
        parts = text.split(":")
        if len(parts) not in (2, 3) or not parts[1].isdecimal() or parts[2:] not in ([], ["after"]):
            raise ValueError(f"{VARIABLE}={text!r}: write KIND:N or KIND:N:after")
        self._kind, self._left, self._after = parts[0], int(parts[1]), bool(parts[2:])

    def journalled(self, names: Sequence[tuple[str, str]]) -> None:
        """Count events that are durable now. names: (kind of line, type of event) of each."""
        if not self._kind or self._left <= 0:
            return
        self._left -= sum(self._kind in pair for pair in names)
        if self._left <= 0:
            self._due = True
            if not self._after:
                self._die()

    async def handed_over(self) -> None:
        """The deeds of the turn are with the hands: give them the time to leave this process."""
        if self._due:
            await asyncio.sleep(LEAVE_S)
            self._die()

    @staticmethod
    def _die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)
