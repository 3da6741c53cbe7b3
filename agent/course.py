"""How a live migration goes, and what pause it may make at its end. Pure.

QEMU copies memory in passes, each what the guest wrote during the one before, and stops the guest
for the last. So what counts is how much a pass begins with: at its end next to nothing is left in every
pass, whether the whole converges or not. A pass that begins with no less than the best one so far has
stalled: the pause that is allowed then grows by a step, up to what policy allows (steps as oVirt's schedule).
"""

from __future__ import annotations

from agent.keeper_types import MigrationMoved

DOWNTIME_STEPS_MS = (100, 150, 200, 300)
DOWNTIME_STEP_MS = 100  # beyond the last of them
BETTER = 0.98  # of what the best pass began with: less is progress
MIB = 1024 * 1024


class Course:
    """One migration's passes. Times are monotonic seconds; downtime_ms: the pause allowed now."""

    def __init__(self, now: float, downtime_ms_max: int) -> None:
        self.downtime_ms_max = downtime_ms_max
        self.downtime_ms = min(DOWNTIME_STEPS_MS[0], downtime_ms_max)
        self._last: MigrationMoved | None = None
        self._looked_s = now
        self._gained_s = now  # when something was gained last
        self._best_bytes = float("inf")  # least that a pass began with
        self._gains = True  # this pass began with less than any before it: it gains as long as it goes on

    def moved(self, now: float, fact: MigrationMoved) -> bool:
        """Take in how far it is; True: a longer pause is allowed from now on."""
        last, self._last = self._last, fact
        since_s, self._looked_s = now - self._looked_s, now
        begins = last is None or fact.iteration > last.iteration
        if begins:
            # It began somewhere between the two looks, with as much more as got through since then at most.
            most = fact.remaining_bytes + (fact.rate_bytes_per_s * since_s if last is not None else 0.0)
            self._gains = most < BETTER * self._best_bytes
            self._best_bytes = min(self._best_bytes, fact.remaining_bytes)
        if self._gains and (begins or (last is not None and fact.remaining_bytes < last.remaining_bytes)):
            self._gained_s = now
        return begins and not self._gains and self._allow_more()

    def _allow_more(self) -> bool:
        before = self.downtime_ms
        longer = (step for step in DOWNTIME_STEPS_MS if step > before)
        self.downtime_ms = min(next(longer, before + DOWNTIME_STEP_MS), self.downtime_ms_max)
        return self.downtime_ms > before

    def stands_still_s(self, now: float) -> float:
        """Return for how long nothing was gained."""
        return now - self._gained_s

    def words(self) -> str:
        """Return what is known of why it does not end, empty before the first look."""
        last = self._last
        if last is None:
            return ""
        return (
            f"{last.remaining_bytes / MIB:.0f} MiB are left in pass {last.iteration}, the guest writes "
            f"{last.dirty_bytes_per_s / MIB:.1f} MiB/s and {last.rate_bytes_per_s / MIB:.1f} MiB/s get through"
        )
