"""How far a migration is, for people: what is left, how fast, how long it will take. Pure."""

from __future__ import annotations

from math import log

from fleet.messages import MigrationProgress

MIB = 1024 * 1024
CONVERGES_BELOW = 0.9  # of what gets through: QEMU counts a page that is written twice in a pass once, so it tells less


def eta_s(far: MigrationProgress) -> float | None:
    """Return how long the copying will go on, in seconds; None where it is not known, or will not end as it goes.

    Each pass copies what the guest wrote during the one before. With what gets through (rate r) and what the
    guest writes (dirty rate d < r) the bytes L that are left shrink by d/r a pass, until they fit into the allowed
    pause: L / (r - d) in all, less the tail that the pause takes (the sum of the geometric series).
    """
    rate, dirty, left = far.rate_bytes_per_s, far.dirty_bytes_per_s, far.remaining_bytes
    if rate <= 0:
        return None
    tail = rate * far.downtime_ms / 1000.0
    if left <= tail:
        return left / rate
    if dirty >= CONVERGES_BELOW * rate:
        return None
    if dirty <= 0:
        return left / rate
    passes = max(1.0, log(tail / left) / log(dirty / rate)) if tail > 0 else float("inf")
    shrunk: float = (dirty / rate) ** passes
    return left / rate * (1.0 - shrunk) / (1.0 - dirty / rate) + far.downtime_ms / 1000.0


def progress_words(far: MigrationProgress) -> str:
    """Return how far it is in a few words, empty before the first look."""
    if not far.total_bytes:
        return ""
    words = f"{far.remaining_bytes / MIB:.0f} MiB left at {far.rate_bytes_per_s / MIB:.1f} MiB/s, pass {far.iteration}"
    if far.dirty_bytes_per_s:
        words += f", the guest writes {far.dirty_bytes_per_s / MIB:.1f} MiB/s"
    if far.throttle_percent:
        words += f", slowed down by {far.throttle_percent} %"
    left = eta_s(far)
    if left is not None:
        return f"{words}, about {left:.0f} s"
    outrun = far.dirty_bytes_per_s >= CONVERGES_BELOW * far.rate_bytes_per_s > 0
    return f"{words}; it does not end at this rate" if outrun else words
