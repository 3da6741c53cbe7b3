"""Reads what the collector wrote: a guest's life by this machine's clock.

Knows the lines; must not know where they come from.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from msgspec import Struct

POLL_S = 0.02


class GuestLine(Struct, frozen=True):
    """One line a guest said. `at_s`: UNIX time of its arrival, by the host's clock."""

    at_s: float
    host: str
    text: str

    @property
    def tick(self) -> int | None:
        """The count of a tick line, else None."""
        return int(self.text[5:]) if self.text.startswith("tick ") else None

    def __str__(self) -> str:
        return f"{self.at_s:.3f} {self.host} {self.text}"


def parse(line: str) -> GuestLine:
    """Read one line of a guest's log."""
    at_s, host, text = line.rstrip("\n").split(" ", 2)
    return GuestLine(float(at_s), host, text)


def read(path: Path) -> list[GuestLine]:
    """All lines so far; none when the guest has said nothing yet."""
    try:
        with path.open(encoding="ascii") as file:
            return [parse(line) for line in file if line.endswith("\n")]
    except FileNotFoundError:
        return []


def follow(path: Path) -> Iterator[GuestLine]:
    """All lines, those so far and those to come, for ever."""
    while not path.exists():
        time.sleep(POLL_S)
    with path.open(encoding="ascii") as file:
        rest = ""
        while True:
            rest += file.readline()
            if rest.endswith("\n"):
                yield parse(rest)
                rest = ""
            else:
                time.sleep(POLL_S)


def longest_gap_s(lines: list[GuestLine], after_s: float = 0.0) -> float:
    """The longest time between two ticks, beginning with the last tick before `after_s` (UNIX time)."""
    ticks = [line.at_s for line in lines if line.tick is not None]
    pairs = [(before, then) for before, then in pairwise(ticks) if then >= after_s]
    return max((then - before for before, then in pairs), default=0.0)
