"""Leadership among several aggregators: who may take it over, and until when its holder may act. Pure.

Source: safety.md, "Leader among several aggregators" and S5. The store gives a lease to one instance at a time
and drops it when it was not renewed for the lease's length. The holder counts from *before it sent* the renewal
that was answered, on its own clock. A candidate may ask for the lease once it is seen to be gone and what the
holder can still believe in is over; a store that is seen for the first time, or that went back to an earlier
revision, says nothing about the past, so a whole lease is waited for. All times are seconds of the caller's
own CLOCK_MONOTONIC_RAW.
"""

from __future__ import annotations

from fleet.lease import MARGIN_SHARE

LEADER_LEASE_S = 6.0
RENEW_EVERY_S = 2.0
LOOK_EVERY_S = 1.0  # a candidate at the store


class Tenure:
    """The holder's side of one lease: fresh while an answered renewal was sent less than a lease ago."""

    def __init__(self, lease_s: float, sent_s: float) -> None:
        """sent_s: read before the lease was asked for."""
        self._lease_s = lease_s
        self._sent_s = sent_s

    def renewed(self, sent_s: float) -> None:
        """Note an answered renewal; sent_s was read before it was handed to the socket."""
        self._sent_s = max(self._sent_s, sent_s)

    def is_fresh(self, now_s: float) -> bool:
        """Say whether nobody else can lead now: asked just before each deed and each answer."""
        return now_s < self._sent_s + self._lease_s


class Candidacy:
    """The side of one who waits to lead."""

    def __init__(self, lease_s: float) -> None:
        self._lease_s = lease_s
        self._revision = -1
        self._gone = False
        self._past_known_from_s = float("inf")
        self._gone_from_s = float("inf")

    def seen(self, now_s: float, revision: int, *, held: bool) -> None:
        """Take a look at the store. held: somebody has the lease; revision: of the whole store."""
        if self._revision < 0 or revision < self._revision:
            self._past_known_from_s = now_s + self._lease_s * (1 + MARGIN_SHARE)
        if not held and not self._gone:  # the store's clock may be faster than the holder's
            self._gone_from_s = now_s + self._lease_s * MARGIN_SHARE
        self._gone, self._revision = not held, revision

    def may_take(self, now_s: float) -> bool:
        """Say whether the lease may be asked for now."""
        return self._gone and now_s >= max(self._past_known_from_s, self._gone_from_s)
