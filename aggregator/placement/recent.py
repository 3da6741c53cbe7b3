"""A dictionary that keeps what was used last and forgets the rest: every memory of placement is one.

Knows no placement. Not for truth: whatever it forgets must be possible to make anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


def _forgotten(value: object) -> None:
    """Do nothing: most values need no farewell."""


class Recent(Generic[K, V]):
    """At most `entries_max` entries; putting one more forgets the one asked for longest ago."""

    def __init__(self, entries_max: int, forget: Callable[[V], None] = _forgotten) -> None:
        self._entries_max = entries_max
        self._forget = forget
        self._entries: dict[K, V] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        """Return the value, which now counts as used, or None."""
        value = self._entries.pop(key, None)
        if value is not None:
            self._entries[key] = value
        return value

    def put(self, key: K, value: V) -> V:
        """Remember a value and return it."""
        if len(self._entries) >= self._entries_max and key not in self._entries:
            self._forget(self._entries.pop(next(iter(self._entries))))
        self._entries[key] = value
        return value

    def values(self) -> list[V]:
        return list(self._entries.values())

    def clear(self) -> None:
        self._entries.clear()
