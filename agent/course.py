"""How a live migration goes, and what pause it may make at its end. Pure.

QEMU copies memory in passes, each what the guest wrote during the one before, and stops the guest
for the last. A pass after which no less is left than after the best one so far has stalled: the
pause that is allowed then grows by a step, up to what policy allows (steps as oVirt's schedule).
"""

from __future__ import annotations

from agent.keeper_types import MigrationMoved

DOWNTIME_STEPS_MS = (100, 150, 200, 300)
DOWNTIME_STEP_MS = 100  # beyond the last of them
MIB = 1024 * 1024


class Course:
    """One migration's passes. Times are monotonic seconds; downtime_ms: the pause allowed now."""

    def __init__(self, now: float, downtime_ms_max: int) -> None:
        self.downtime_ms_max = downtime_ms_max
        self.downtime_ms = min(DOWNTIME_STEPS_MS[0], downtime_ms_max)
        self._last: MigrationMoved | None = None
        self._least_bytes = float("inf")  # that was ever left
        self._least_s = now  # when it became less last
        self._best_bytes = float("inf")  # least left in any pass before this one
        self._pass_bytes = float("inf")  # least left in this one

    def moved(self, now: float, fact: MigrationMoved) -> bool:
        """Take in how far it is; True: a longer pause is allowed from now on."""
        new_pass = self._last is not None and fact.iteration > self._last.iteration
        self._last = fact
        if fact.remaining_bytes < self._least_bytes:
            self._least_bytes, self._least_s = fact.remaining_bytes, now
        stalled = False
        if new_pass:
            stalled = self._pass_bytes >= self._best_bytes
            self._best_bytes = min(self._best_bytes, self._pass_bytes)
            self._pass_bytes = float("inf")
        self._pass_bytes = min(self._pass_bytes, fact.remaining_bytes)
        return stalled and self._allow_more()

    def _allow_more(self) -> bool:
        before = self.downtime_ms
        longer = (step for step in DOWNTIME_STEPS_MS if step > before)
        self.downtime_ms = min(next(longer, before + DOWNTIME_STEP_MS), self.downtime_ms_max)
        return self.downtime_ms > before

    def stands_still_s(self, now: float) -> float:
        """Return for how long no less was left than before."""
        return now - self._least_s

    def words(self) -> str:
        """Return what is known of why it does not end, empty before the first look."""
        last = self._last
        if last is None:
            return ""
        return (
            f"{last.remaining_bytes / MIB:.0f} MiB are left in pass {last.iteration}, the guest writes "
            f"{last.dirty_bytes_per_s / MIB:.1f} MiB/s and {last.rate_bytes_per_s / MIB:.1f} MiB/s get through"
        )
