"""Which slots have changed since somebody last looked, so that a remembered array is mended, not made anew.

Knows numbers only. The log is short: who has not looked for long looks at everything again.
"""

from __future__ import annotations

CHANGES_MAX = 4096  # slots in the log; past it the older half is forgotten


class Changes:
    """A log of slots. A mark is the length of the log when somebody looked; NEVER has seen nothing."""

    NEVER = -1

    def __init__(self) -> None:
        self._slots: list[int] = []
        self._forgotten = 0

    @property
    def mark(self) -> int:
        return self._forgotten + len(self._slots)

    def note(self, slot: int) -> None:
        if len(self._slots) >= CHANGES_MAX:
            del self._slots[: CHANGES_MAX // 2]
            self._forgotten += CHANGES_MAX // 2
        self._slots.append(slot)

    def since(self, mark: int) -> list[int] | None:
        """Return the slots noted since the mark, some perhaps twice; None: too long ago to know."""
        return None if mark < self._forgotten else self._slots[mark - self._forgotten :]
