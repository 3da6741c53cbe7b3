"""How old a relayed beat can be at most: it names the last answer its agent has seen. Pure.

No clock but our own is asked: the beat was made after that answer was sent, so a relay that keeps
frames back, or a host that was frozen with a beat in its socket, cannot pass for a living one.
"""

from __future__ import annotations

from collections import deque

ANSWERS_KEPT_MAX = 64


class AnswersSent:
    """When the answers of one session were sent. 0 is the welcome."""

    def __init__(self, welcomed_at: float) -> None:
        self._sent: deque[tuple[int, float]] = deque([(0, welcomed_at)], ANSWERS_KEPT_MAX)

    def sent(self, sequence: int, at: float) -> None:
        """Note an answer that was just sent."""
        self._sent.append((sequence, at))

    def sent_at(self, sequence: int) -> float:
        """Return when this answer was sent; 0 (long ago) if it is not known any more, or never was."""
        return next((at for known, at in reversed(self._sent) if known == sequence), 0.0)
