"""What the loop asks of its hands."""

from __future__ import annotations

from typing import Protocol

from aggregator.core.actions import Action


class Hands(Protocol):
    """Carry out what was decided and journalled; what comes of it comes back as facts."""

    def perform(self, action: Action) -> None:
        """Begin the deed, or drop it with a fact if it is too old. Never waits and never raises."""
