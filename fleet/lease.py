"""Lease arithmetic: until when an answered beat says anything. Pure; used by both daemons.

Source: safety.md, "Lease arithmetic". The node counts from *before it sent* the beat that was
answered; the aggregator from *when it sent its last answer*. Neither ever uses the other's clock,
and a jump of BOOTTIME - MONOTONIC (the machine slept) ends the lease. All times are seconds of
the caller's own CLOCK_MONOTONIC_RAW.
"""

from __future__ import annotations

from msgspec import Struct

BEATS_REMEMBERED_MAX = 64
MARGIN_SHARE = 0.02  # of the time until the node is dead: how far two clocks may drift apart
IN_FLIGHT_IO_S = 3.0  # what a dead node's last writes may still need
JUMP_S_MAX = 0.5  # a smaller change of BOOTTIME - MONOTONIC is reading noise


class LeaseSettings(Struct, frozen=True):
    """L, W and the grain of the watchdog. watchdog_s is what the driver returned, not what was asked."""

    lease_s: float = 6.0
    watchdog_s: float = 3.0
    tick_s: float = 0.5
    reset_s: float = 0.5

    @property
    def dead_after_s(self) -> float:
        """How long after it *sent* its last answered beat the node is dead at the latest."""
        return self.lease_s + 2 * self.watchdog_s + self.tick_s + self.reset_s

    @property
    def take_over_after_s(self) -> float:
        """How long after its last *answer* the aggregator may take the node for self-fenced."""
        return self.dead_after_s * (1 + MARGIN_SHARE) + IN_FLIGHT_IO_S


class NodeLease:
    """The node's side: fresh while an answered beat was sent less than lease_s ago."""

    def __init__(self, lease_s: float) -> None:
        self.lease_s = lease_s
        self._sent: dict[int, float] = {}
        self._counted_from_s: float | None = None
        self._jump_s: float | None = None

    def beat_sent(self, sequence: int, before_s: float) -> None:
        """Note a beat; before_s was read before the beat was handed to the socket."""
        self._sent[sequence] = before_s
        while len(self._sent) > BEATS_REMEMBERED_MAX:
            del self._sent[next(iter(self._sent))]

    def beat_answered(self, sequence: int) -> None:
        """Count from the sending of that beat; answers to unknown or forgotten beats say nothing."""
        sent_s = self._sent.get(sequence)
        if sent_s is None:
            return
        self._counted_from_s = max(sent_s, self._counted_from_s or sent_s)
        for older in [known for known in self._sent if known <= sequence]:
            del self._sent[older]

    def boottime_read(self, offset_s: float) -> None:
        """Take BOOTTIME - MONOTONIC; a jump ends the lease until a later beat is answered."""
        if self._jump_s is not None and abs(offset_s - self._jump_s) > JUMP_S_MAX:
            self.end()
        self._jump_s = offset_s

    def end(self) -> None:
        """End the lease: a new session, a jump of the clock, a lost link that must not be trusted."""
        self._sent.clear()
        self._counted_from_s = None

    def counted_from_s(self) -> float:
        """Return when the newest answered beat was sent, minus infinity without one."""
        return float("-inf") if self._counted_from_s is None else self._counted_from_s

    def fresh_until_s(self) -> float:
        """Return the end of the lease, minus infinity when there is none."""
        return self.counted_from_s() + self.lease_s

    def is_fresh(self, now_s: float) -> bool:
        """Say whether the lease holds now."""
        return now_s < self.fresh_until_s()


class AnswerLease:
    """The aggregator's side for one node: when it last sent an answer."""

    def __init__(self) -> None:
        self.answered_s: float | None = None

    def answer_sent(self, now_s: float) -> None:
        """Note that a beat is being answered (before the answer leaves)."""
        self.answered_s = now_s

    def may_be_fresh(self, now_s: float, settings: LeaseSettings) -> bool:
        """Say whether the node may still believe in its lease (it never believes longer)."""
        return self.answered_s is not None and now_s < self.answered_s + settings.lease_s * (1 + MARGIN_SHARE)

    def is_self_fenced(self, now_s: float, settings: LeaseSettings) -> bool:
        """Say whether a node with an armed watchdog is dead by arithmetic; never without any answer sent."""
        return self.answered_s is not None and now_s >= self.answered_s + settings.take_over_after_s
