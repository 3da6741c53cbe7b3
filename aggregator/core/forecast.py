"""How a live migration would go: from what the guest writes and what the link takes. Pure arithmetic.

The model is QEMU's: the first pass sends all memory, each further one what was written meanwhile, until the rest fits
into the pause that is allowed. With a guest that writes at a constant rate the passes shrink by the ratio of the two
rates, so it ends if the guest is the slower one, whatever the size of its memory.
"""

from __future__ import annotations

from msgspec import Struct, structs

from aggregator.core.migration_drive import Drive
from aggregator.core.moments import span
from aggregator.core.objects import ApiStruct

CONVERGES = "Converges"
NEEDS_AUTO_CONVERGE = "NeedsAutoConverge"
WILL_NOT = "WillNotConverge"
UNKNOWN = "Unknown"
HAND_OVER_MS = 250  # from the source's last byte to the copy's first instruction, as measured with small guests
PASSES_MAX = 100
THROTTLE_PERCENT_MAX = 99  # what QEMU slows a guest down by at most
PASSES_A_STEP = 2  # that gained too little, before QEMU slows it down by another step
MIB = 1024 * 1024


class Forecast(ApiStruct, frozen=True, kw_only=True):
    """How a move would go. verdict: Converges | NeedsAutoConverge | WillNotConverge | Unknown.

    seconds: in all; downtimeMs: the pause at its end; slowedPercent: by how much auto-converge would slow the guest
    down. null: not known, or it does not end. words: all of it, for people.
    """

    verdict: str
    words: str
    seconds: float | None = None
    downtime_ms: int | None = None
    slowed_percent: int = 0
    dirty_bytes_per_s: int | None = None
    rate_bytes_per_s: int | None = None


class _Rates(Struct, frozen=True):
    dirty_bytes_per_s: int | None
    rate_bytes_per_s: int | None


class _Course(Struct, frozen=True):
    seconds: float
    downtime_ms: int | None


def forecast(memory_bytes: int, dirty_bytes_per_s: int | None, rate_bytes_per_s: int | None, drive: Drive) -> Forecast:
    """Return how a move of a guest of this memory would go.

    dirty_bytes_per_s: what it writes, None where it was not measured; rate_bytes_per_s: what gets through, None where
    nothing is known of the link.
    """
    rates = _Rates(dirty_bytes_per_s, rate_bytes_per_s)
    if not rate_bytes_per_s:
        return _say(rates, UNKNOWN, "nothing is known of the link: set spec.migrationBandwidth")
    link = f"the link takes {_rate(rate_bytes_per_s)}"
    if dirty_bytes_per_s is None:
        least = _Course(memory_bytes / rate_bytes_per_s, None)
        words = f"at least {span(least.seconds)}: {link}; what the guest writes was not measured"
        return _say(rates, UNKNOWN, words, least)
    both = f"the guest writes {_rate(dirty_bytes_per_s)}, {link}"
    percent, course = 0, _course(memory_bytes, dirty_bytes_per_s, rate_bytes_per_s, drive)
    if course is None:
        percent, course = _slowed(memory_bytes, dirty_bytes_per_s, rate_bytes_per_s, drive)
    if course is None:
        return _say(rates, WILL_NOT, f"it does not converge: {both}")
    if percent and not drive.auto_converge:
        words = f"it does not converge without auto-converge, which would slow the guest by {percent} %: {both}"
        return _say(rates, NEEDS_AUTO_CONVERGE, words, slowed=percent)
    how = f"about {span(course.seconds)}, a pause of about {(course.downtime_ms or 0) / 1000:.1f} s"
    how += f", the guest slowed by {percent} %: {both}" if percent else f": {both}"
    if course.seconds <= drive.timeout_s:
        return _say(rates, CONVERGES, how, course, percent)
    words = f"it is given up after {span(drive.timeout_s)} (completionTimeoutPerGiB); it would take {how}"
    return _say(rates, WILL_NOT, words, course, percent)


def _say(rates: _Rates, verdict: str, words: str, course: _Course | None = None, slowed: int = 0) -> Forecast:
    return Forecast(
        verdict=verdict,
        words=words,
        seconds=round(course.seconds, 1) if course is not None else None,
        downtime_ms=course.downtime_ms if course is not None else None,
        slowed_percent=slowed,
        dirty_bytes_per_s=rates.dirty_bytes_per_s,
        rate_bytes_per_s=rates.rate_bytes_per_s,
    )


def _course(memory: int, dirty: float, rate: int, drive: Drive) -> _Course | None:
    """Return how the passes go, None where they do not end in a rest that fits into the pause."""
    fits = rate * drive.downtime_ms_max / 1000
    left, seconds = float(memory), 0.0
    for _ in range(PASSES_MAX):
        pass_s = left / rate
        if left <= fits:
            return _Course(seconds + pass_s, round(pass_s * 1000) + HAND_OVER_MS)
        seconds += pass_s
        written = min(float(memory), dirty * pass_s)
        if written >= left:
            return None
        left = written
    return None


def _slowed(memory: int, dirty: int, rate: int, drive: Drive) -> tuple[int, _Course | None]:
    """Return by how many percent QEMU would slow the guest down, in its steps, and how that would go; None: never."""
    for step, percent in enumerate((*range(20, 100, 10), THROTTLE_PERCENT_MAX)):
        course = _course(memory, dirty * (1 - percent / 100), rate, drive)
        if course is not None:
            before_s = PASSES_A_STEP * (step + 1) * memory / rate
            return percent, structs.replace(course, seconds=course.seconds + before_s)
    return 0, None


def _rate(bytes_per_s: float) -> str:
    return f"{bytes_per_s / MIB:.1f} MiB/s"
