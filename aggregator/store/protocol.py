"""What the loop asks of a store: the journal, its snapshots, the term, and nothing about their meaning.

Events and state are bytes here; aggregator.core.journal_form knows what they say. A store never
decides and never retries: any failure is a StoreError, after which the aggregator must not act.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from aggregator.fleet_access import HistoryQuery


class StoreError(Exception):
    """The store cannot be used (any more). Its text is one sentence for a person: what, where, what to do."""


class StoredEvent(Struct, frozen=True, array_like=True):
    """One line of the journal. at: fleet time; kind, node and vm are there to be searched by.

    shown: whether it is a line of history, or too common to be one.
    """

    position: int
    at: float
    kind: str
    node: str
    vm: str
    data: bytes
    shown: bool = True


class Recovered(Struct, frozen=True):
    """What an earlier life left: the newest sound snapshot and all events after it.

    position and at are the last journalled ones (0 in an empty store). mark names this copy of the store: it does
    not go along with a backup, so a journal that was written under another mark has been restored, and whatever
    was done after it is not in it. lost_events: at least so many were journalled here after position. note: one
    sentence where something was not as it should be, yet nothing was lost.
    """

    snapshot: bytes | None
    events: tuple[StoredEvent, ...]
    position: int
    at: float
    mark: str = ""
    lost_events: int = 0
    note: str = ""


class Store(Protocol):
    """One journal, held by one aggregator at a time. All methods raise StoreError."""

    async def open(self) -> Recovered:
        """Take the exclusive lock and read what is there."""

    async def issue_term(self) -> int:
        """Return a term higher than any issued before; it is durable before it is returned."""

    def leads(self) -> bool:
        """Say whether nobody else can lead now: asked just before each deed and answer. Never waits or raises."""

    async def append(self, events: Sequence[StoredEvent]) -> None:
        """Write all of the events or none; they are durable when this returns."""

    async def snapshot(self, position: int, data: bytes, keep_since: float) -> None:
        """Keep the state as of position; events older than keep_since (fleet time) may be forgotten."""

    async def history(self, query: HistoryQuery) -> Sequence[StoredEvent]:
        """Return the newest matching events that are lines of history, oldest first. Never in the way of append."""

    async def close(self) -> None:
        """Give the lock back. Never raises."""
