"""Facts about moves that were thought through beside the loop. aggregator.core.events is the one name for them."""

from __future__ import annotations

from aggregator.core.words import Event


class TurnJudged(Event, frozen=True, kw_only=True):
    """It was thought through whether a failure domain's turn leaves the fleet N+1. why_not: empty if it does."""

    job: str
    domain: str
    why_not: str = ""
