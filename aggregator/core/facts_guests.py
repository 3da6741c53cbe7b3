"""Facts about what guests showed. aggregator.core.events is the one name for them."""

from __future__ import annotations

from aggregator.core.words import Event


class GuestPictured(Event, frozen=True, kw_only=True):
    """What the guest's screen showed before its run was ended is kept beside the incident, or why nothing is."""

    node: str
    vm: str
    run: int
    incident: str
    lacking: str = ""
