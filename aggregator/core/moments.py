"""Fleet time as people read it: RFC 3339 in UTC with milliseconds.

Pure arithmetic, because the core must not import a clock's module. Unix seconds in, text out.
"""

from __future__ import annotations

SECONDS_A_DAY = 86400
_SPANS = ((SECONDS_A_DAY, 3600, "d", "h"), (3600, 60, "h", "min"), (60, 1, "min", "s"))


def rfc3339(seconds: float) -> str:
    """Return `2026-11-22T13:29:43.120Z` for Unix seconds; empty for 0 and below (it never happened)."""
    if seconds <= 0:
        return ""
    whole_ms = round(seconds * 1000)
    days, rest_ms = divmod(whole_ms, SECONDS_A_DAY * 1000)
    year, month, day = _civil(days)
    rest_s, milliseconds = divmod(rest_ms, 1000)
    minutes, second = divmod(rest_s, 60)
    hour, minute = divmod(minutes, 60)
    return f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{second:02d}.{milliseconds:03d}Z"


def _civil(days: int) -> tuple[int, int, int]:
    """Return (year, month, day) of a day counted from 1970-01-01.

    Counts in eras of 400 years that begin on 1 March, so the leap day is the last of its year.
    """
    era, day_of_era = divmod(days + 719468, 146097)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36524 - day_of_era // 146096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * day_of_year + 2) // 153
    month = shifted + 3 if shifted < 10 else shifted - 9  # noqa: PLR2004 (months count from March)
    day = day_of_year - (153 * shifted + 2) // 5 + 1
    return year_of_era + era * 400 + (1 if month <= 2 else 0), month, day  # noqa: PLR2004


def span(seconds: float) -> str:
    """Return a length of time for a sentence: `0.8 s`, `42 s`, `3 min 20 s`, `5 h 10 min`, `12 d`."""
    if seconds < 10:  # noqa: PLR2004 (below ten a tenth matters)
        return f"{max(0.0, seconds):.1f} s".replace(".0 s", " s")
    whole = round(seconds)
    if whole < 60:  # noqa: PLR2004
        return f"{whole} s"
    for large, small, large_name, small_name in (
        (SECONDS_A_DAY, 3600, "d", "h"),
        (3600, 60, "h", "min"),
        (60, 1, "min", "s"),
    ):
        if whole >= large:
            count, rest = divmod(whole, large)
            tail = f" {rest // small} {small_name}" if rest // small else ""
            return f"{count} {large_name}{tail}"
    return f"{whole} s"
