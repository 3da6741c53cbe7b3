"""The clocks of this machine, behind one Protocol. The core never imports this file.

Knows the three clocks; knows nobody who reads them. The simulator has its own Clock.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What a daemon may ask about time."""

    def monotonic_s(self) -> float:
        """Seconds that never jump and are never slewed; they stand still while the machine sleeps."""
        ...

    def wall_s(self) -> float:
        """Seconds since 1970 in UTC, for people and certificates only."""
        ...

    def boottime_offset_s(self) -> float:
        """BOOTTIME - MONOTONIC: it grows by the time the machine slept."""
        ...


class SystemClock:
    """The real clocks (Linux)."""

    def monotonic_s(self) -> float:
        return time.clock_gettime(time.CLOCK_MONOTONIC_RAW)

    def wall_s(self) -> float:
        return time.time()

    def boottime_offset_s(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
