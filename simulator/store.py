"""The one store of a world's aggregators: the journal, the term, and the leader's lease.

One aggregator has it as SQLite: the lease never ends, it goes with the process. Several have it as etcd: the lease
ends by the store's clock unless it is renewed, and one transaction compares it and the journal's end with what the
writer knows. It can be lost for a while, and go back to what a backup held. Knows no event's meaning.
"""

from __future__ import annotations

from math import inf

from msgspec import Struct

from simulator.clock import Queue


class StoreLostError(Exception):
    """Nobody answers."""


class ConflictError(Exception):
    """The lease is another's, or the journal does not end where the writer knows it to end."""


class Change(Struct, frozen=True):
    """One revision. holder: None where the lease did not change hands; term: the highest so far, where it did."""

    at: float
    events: tuple[bytes, ...] = ()
    holder: str | None = None
    term: int = 0


class Opened(Struct, frozen=True):
    """What a new holder reads. number: of this tenure, rising through every restored backup (nobody reads it back).

    mark: of the copy of the store (store/protocol.py): SQLite's witness, the cluster id of an etcd that was restored.
    """

    term: int
    number: int
    snapshot: bytes
    events: tuple[bytes, ...]
    mark: str


def mark_of(restores: int) -> str:
    """Return the mark of a store that was restored so many times."""
    return f"store-{restores}"


class SimulatedStore:
    """Everything aggregators keep beyond their own lives."""

    def __init__(self, queue: Queue, snapshot: bytes, lease_s: float = inf) -> None:
        """lease_s: inf is one aggregator's SQLite, whose lock goes with the process that holds it."""
        self.lost = False
        self.tenures = 0
        self.restores = 0
        self._queue = queue
        self._snapshot = snapshot
        self._lease_s = lease_s
        self._changes: list[Change] = []
        self._recall()

    # --- what aggregators ask; all of it raises StoreLostError

    def sight(self) -> tuple[int, bool]:
        """Return the revision, and whether somebody has the lease."""
        self._look()
        return len(self._changes), bool(self._holder)

    def take(self, instance: str) -> Opened:
        """Give the lease to an instance; ConflictError while another has it."""
        self._look()
        if self._holder and self._lease_s < inf:
            raise ConflictError
        self.tenures += 1
        self._term += 1
        self._hand_to(instance)
        events = tuple(data for change in self._changes for data in change.events)
        return Opened(self._term, self.tenures, self._snapshot, events, mark_of(self.restores))

    def renew(self, instance: str) -> None:
        """Lengthen the lease; ConflictError if it is not this instance's any more."""
        self._look()
        if self._holder != instance:
            raise ConflictError
        self._ends_at = self._queue.now + self._lease_s

    def append(self, instance: str, position: int, events: list[bytes]) -> None:
        """Write events after a position, all or none; ConflictError if that is not ours to do."""
        self._look()
        if position != self._position or (self._holder != instance and self._lease_s < inf):
            raise ConflictError
        if events:
            self._position += len(events)
            self._changes.append(Change(self._queue.now, tuple(events)))

    # --- what happens to it

    def roll_back(self, by_s: float) -> None:
        """A backup is restored. A lease that it holds is as good as new, as etcd has it."""
        self.restores += 1
        kept_s = self._queue.now - by_s
        self._changes = [change for change in self._changes if change.at <= max(0.0, kept_s)]
        self._recall()

    # --- inside

    def _look(self) -> None:
        if self.lost:
            raise StoreLostError
        if self._holder and self._queue.now >= self._ends_at:
            self._hand_to("")

    def _hand_to(self, holder: str) -> None:
        self._holder, self._ends_at = holder, self._queue.now + self._lease_s
        self._changes.append(Change(self._queue.now, (), holder, self._term))

    def _recall(self) -> None:
        """Know again what the changes say."""
        self._holder, self._term = "", 0
        self._position = sum(len(change.events) for change in self._changes)
        for change in self._changes:
            if change.holder is not None:
                self._holder, self._term = change.holder, change.term
        self._ends_at = self._queue.now + self._lease_s
