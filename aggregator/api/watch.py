"""Watches: what changed in a collection, as server-sent events that can be taken up again.

While somebody reads lists or watches, the hub renders the collections after each change, compares
with what it rendered before and keeps the differences in a bounded ring. A watch that asks for more
than the ring holds gets RESYNC and the whole collection. Knows rendered objects only.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from time import monotonic
from typing import NamedTuple

import msgspec

from aggregator.core.selector import Selector, selects
from aggregator.core.state import State
from aggregator.core.views import Plain
from aggregator.fleet_access import FleetAccess, NotServingError

CHANGES_MAX = 10_000
COALESCE_S = 0.1
LOAD_MAX = 0.1  # share of the loop's time that comparing may take
QUIET_S_MAX = 120.0  # without a reader the hub sleeps
LOOK_AGAIN_S = 1.0  # progress of migrations moves no position

Render = Callable[[State], Iterator[tuple[str, Plain]]]
Labels = Mapping[str, str]


class Change(NamedTuple):
    """One object became different. before, after: its labels; None where there was or is no object."""

    number: int
    position: int
    collection: str
    value: Plain
    before: Labels | None
    after: Labels | None


class Known(NamedTuple):
    """What was last rendered of an object."""

    digest: bytes
    labels: Labels
    value: Plain


class Hub:
    """Follows the state for all watches of one application."""

    def __init__(self, fleet: FleetAccess, collections: Mapping[str, Render]) -> None:
        self._fleet = fleet
        self._collections = collections
        self._known: dict[str, dict[str, Known]] = {}
        self._changes: deque[Change] = deque(maxlen=CHANGES_MAX)
        self._number = 0  # of the newest change
        self._base = 0  # numbers below are of an earlier waking, whose end nobody saw
        self._since = 0  # the ring holds every change after this position
        self._position = 0
        self._used_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._closing = asyncio.Event()
        self.closed = False
        self.watchers = 0

    def touch(self) -> None:
        """Make sure the hub follows the state from now on; call it in the turn in which a list is read."""
        self._used_at = monotonic()
        if self._task is None and not self.closed:
            self._known = {name: dict(self._rendered(name)) for name in self._collections}
            self._changes.clear()
            self._number += 1
            self._base = self._number
            self._since = self._position = self._fleet.state.position
            self._task = asyncio.get_running_loop().create_task(self._follow(), name="api-watch-hub")

    def resumes(self, position: int) -> bool:
        """Tell whether the ring holds every change after a position."""
        oldest = self._changes[0].position if len(self._changes) == CHANGES_MAX else self._since
        return oldest <= position <= max(self._position, self._fleet.state.position)

    @property
    def newest(self) -> int:
        """The number of the newest change."""
        return self._number

    def snapshot(self, collection: str, selector: Selector) -> tuple[list[Plain], int, int]:
        """Return (objects, number of the newest change, position) as they stand now."""
        self._compare()
        found = self._known[collection].values()
        return [known.value for known in found if selects(selector, known.labels)], self._number, self._position

    def number_at(self, position: int) -> int:
        """Return the number of the newest change at or before a position."""
        newer = [change.number for change in self._changes if change.position > position]
        return newer[0] - 1 if newer else self._number

    def after(self, collection: str, number: int) -> list[Change] | None:
        """Return the changes of a collection after a number; None if the ring has lost some."""
        if number < self._base or (self._changes and number < self._changes[0].number - 1):
            return None
        return [change for change in self._changes if change.number > number and change.collection == collection]

    async def wait(self, timeout_s: float) -> bool:
        """Tell whether something changed within timeout_s."""
        self.touch()
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True

    async def position_after(self, position: int, timeout_s: float) -> bool:
        """Tell whether the journal went beyond a position within timeout_s; False too when all watches end."""
        waits = [
            asyncio.ensure_future(self._fleet.wait_for_change(position)),
            asyncio.ensure_future(self._closing.wait()),
        ]
        try:
            await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if waits[0].done() and waits[0].exception() is not None:  # nothing will change any more
                await asyncio.wait(waits[1:], timeout=timeout_s)
                return False
            return waits[0].done()
        finally:
            for wait in waits:
                wait.cancel()

    async def close(self) -> None:
        """End all watches."""
        self.closed = True
        self._closing.set()
        self._changed.set()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _follow(self) -> None:
        try:
            while self.watchers or monotonic() - self._used_at < QUIET_S_MAX:
                try:
                    # Not wait_for: it forgets a cancellation that comes just as the change does.
                    async with asyncio.timeout(LOOK_AGAIN_S):
                        await self._fleet.wait_for_change(self._position)
                except TimeoutError:
                    pass  # progress is looked at all the same
                except NotServingError:
                    await asyncio.sleep(LOOK_AGAIN_S)
                begun = monotonic()
                self._compare()
                await asyncio.sleep(max(COALESCE_S, (monotonic() - begun) / LOAD_MAX))
        finally:
            self._task = None

    def _compare(self) -> None:
        position = self._fleet.state.position
        number = self._number
        for collection in self._collections:
            known = self._known[collection]
            now = dict(self._rendered(collection))
            for name, entry in now.items():
                before = known.get(name)
                if before is None or before.digest != entry.digest:
                    self._add(position, collection, entry.value, before.labels if before else None, entry.labels)
            for name in known.keys() - now.keys():
                self._add(position, collection, known[name].value, known[name].labels, None)
            self._known[collection] = now
        self._position = position
        if self._number != number:
            self._changed.set()
            self._changed = asyncio.Event()

    def _add(self, position: int, collection: str, value: Plain, before: Labels | None, after: Labels | None) -> None:
        self._number += 1
        self._changes.append(Change(self._number, position, collection, value, before, after))

    def _rendered(self, collection: str) -> Iterator[tuple[str, Known]]:
        for name, value in self._collections[collection](self._fleet.state):
            digest = blake2b(msgspec.json.encode(_steady(value)), digest_size=16).digest()
            yield name, Known(digest, labels_of(value), value)


def kind_of(change: Change, selector: Selector) -> str:
    """Return ADDED, MODIFIED or DELETED as one selector sees the change, empty if it does not see it."""
    was = change.before is not None and selects(selector, change.before)
    is_now = change.after is not None and selects(selector, change.after)
    if is_now:
        return "MODIFIED" if was else "ADDED"
    return "DELETED" if was else ""


def labels_of(value: Plain) -> Labels:
    """Return the labels of a rendered object."""
    metadata = value.get("metadata")
    labels = metadata.get("labels") if isinstance(metadata, dict) else None
    return labels if isinstance(labels, dict) else {}


def _steady(value: Plain) -> Plain:
    """Return the object without what moves all the time and is news to nobody."""
    status = value.get("status")
    if not isinstance(status, dict) or "lastBeatAgo" not in status:
        return value
    return {**value, "status": {key: part for key, part in status.items() if key != "lastBeatAgo"}}


def frame(kind: str, value: Plain, event_id: str = "") -> bytes:
    """Return one server-sent event; the id, a resourceVersion, stands only where a watch may be taken up."""
    head = f"event: {kind}\n" + (f"id: {event_id}\n" if event_id else "")
    return head.encode() + b"data: " + msgspec.json.encode({"type": kind, "object": value}) + b"\n\n"
