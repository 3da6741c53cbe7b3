"""The journal in one SQLite file: WAL, synchronous=FULL, one writing thread, one transaction a turn.

Knows SQL and files; must not know what an event means. Layout (layout.py): meta (form version, term),
journal (position, at, kind, node, vm, data, shown), snapshot (position, checksum, data). A reader of its own
serves history, so a long query never holds up a decision. A witness beside the file tells a restored one.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from msgspec import structs

from aggregator.fleet_access import HISTORY_LINES_MAX, HistoryQuery
from aggregator.store.layout import LAYOUT_VERSION, bring_up, layout_of, refuse_newer
from aggregator.store.protocol import Recovered, StoredEvent, StoreError
from aggregator.store.witness import Witness

FILE_NAME = "journal.sqlite"
LOCK_NAME = "lock"
SNAPSHOTS_KEPT = 3
JOURNAL_EVENTS_MAX = 1_000_000
CALL_S_MAX = 30.0  # a disk that takes longer is a disk that is gone
BUSY_MS_MAX = 5000  # somebody may read the file with sqlite3

Answer = TypeVar("Answer")


def _checksum(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _event(row: tuple[int, float, str, str, str, bytes, int]) -> StoredEvent:
    position, at, kind, node, vm, data, shown = row
    return StoredEvent(position, at, kind, node, vm, data, bool(shown))


class SqliteStore:
    """The default store. form_version: of the events' and snapshots' bytes; a newer one on disk is refused."""

    def __init__(self, state_dir: Path, form_version: int) -> None:
        self._dir = state_dir
        self._path = state_dir / FILE_NAME
        self._form_version = form_version
        self._lock = -1
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._writing = ThreadPoolExecutor(1, "store-write")
        self._reading = ThreadPoolExecutor(1, "store-read")
        self._position = 0
        self._inode = 0
        self._witness = Witness(state_dir)

    # --- the Protocol

    async def open(self) -> Recovered:
        return await self._call(self._writing, self._open)

    async def issue_term(self) -> int:
        return await self._call(self._writing, self._issue_term)

    async def begin_terms(self, least: int) -> None:
        """Have the next term be higher than this one. Raises StoreError."""
        await self._call(self._writing, lambda: self._begin_terms(least))

    def leads(self) -> bool:
        return self._lock_is_ours()

    async def append(self, events: Sequence[StoredEvent]) -> None:
        if events:
            await self._call(self._writing, lambda: self._append(events))

    async def snapshot(self, position: int, data: bytes, keep_since: float) -> None:
        await self._call(self._writing, lambda: self._snapshot(position, data, keep_since))

    async def history(self, query: HistoryQuery) -> Sequence[StoredEvent]:
        return await self._call(self._reading, lambda: self._history(query))

    async def close(self) -> None:
        for pool, work in ((self._reading, self._close_reader), (self._writing, self._close_writer)):
            with suppress(StoreError):  # it is being given up anyway
                await self._call(pool, work)
            pool.shutdown(wait=False)

    # --- one thread each

    async def _call(self, pool: ThreadPoolExecutor, work: Callable[[], Answer]) -> Answer:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CALL_S_MAX):
                return await loop.run_in_executor(pool, work)
        except TimeoutError:
            raise StoreError(f"{self._path}: the disk did not answer within {CALL_S_MAX:.0f} s; look at it") from None
        except sqlite3.DatabaseError as error:
            raise self._explain(error) from None
        except OSError as error:
            raise StoreError(f"{self._path}: {error.strerror or error}; mend the file system or its rights") from None
        except RuntimeError:  # the pool is shut down
            raise StoreError(f"{self._path}: the store is closed") from None

    def _explain(self, error: sqlite3.DatabaseError) -> StoreError:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            return self._damaged(str(error))
        if name.startswith("SQLITE_FULL"):
            return StoreError(f"{self._path}: the disk is full; make room and start the aggregator again")
        return StoreError(f"{self._path}: {error}; mend the file system or its rights")

    def _damaged(self, what: str) -> StoreError:
        return StoreError(
            f"{self._path}: the journal is damaged ({what}); restore a backup, or move it away and let the "
            "aggregator learn the fleet anew from its agents"
        )

    def _open(self) -> Recovered:
        self._dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._take_lock()
        os.close(os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        writer = self._writer = sqlite3.connect(
            self._path, isolation_level=None, check_same_thread=False, timeout=BUSY_MS_MAX / 1000
        )
        self._inode = self._path.stat().st_ino
        refuse_newer(self._path, writer, layout_of(writer), LAYOUT_VERSION)
        verdict = str(writer.execute("PRAGMA quick_check(1)").fetchone()[0])
        if verdict != "ok":
            raise self._damaged(verdict)
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("PRAGMA synchronous=FULL")
        kept = bring_up(self._path, writer)
        self._check_form(writer)
        recovered = self._read_back(writer)
        sight = self._witness.look(os.fstat(self._lock), self._position)
        self._sync_directory()
        note = recovered.note or (f"the journal has a newer layout; as it was it lies in {kept}" if kept else "")
        return structs.replace(recovered, mark=sight.mark, lost_events=sight.lost_events, note=note)

    def _take_lock(self) -> None:
        lock = os.open(self._dir / LOCK_NAME, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise StoreError(
                f"{self._dir}: another aggregator is using this directory; stop it, or give this one its own state_dir"
            ) from None
        self._lock = lock

    def _lock_is_ours(self) -> bool:
        """A lock on a file that was removed or replaced keeps nobody out."""
        return self._lock >= 0 and os.fstat(self._lock).st_nlink > 0

    def _check_ours(self) -> None:
        """A journal that another one took the place of, a restored backup, is not written on."""
        if not self._lock_is_ours():
            raise StoreError(
                f"{self._dir / LOCK_NAME}: removed under a running aggregator, so another may lead now; start it again"
            )
        if not self._path.exists() or self._path.stat().st_ino != self._inode:
            raise StoreError(f"{self._path}: replaced under a running aggregator; start it again")

    def _check_form(self, writer: sqlite3.Connection) -> None:
        row = writer.execute("SELECT value FROM meta WHERE key = 'form'").fetchone()
        if row:
            refuse_newer(self._path, writer, int(row[0]), self._form_version)
        writer.execute("INSERT OR REPLACE INTO meta VALUES ('form', ?)", (self._form_version,))

    def _sync_directory(self) -> None:
        directory = os.open(self._dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _read_back(self, writer: sqlite3.Connection) -> Recovered:
        base, snapshot, note = 0, None, ""
        rows = writer.execute("SELECT position, checksum, data FROM snapshot ORDER BY position DESC")
        for position, checksum, data in rows:
            if _checksum(data) == checksum:
                base, snapshot = int(position), bytes(data)
                break
            note = f"{self._path}: the snapshot at {position} is damaged; an older one and the journal are used"
        if note and snapshot is None:
            raise self._damaged("no sound snapshot")
        found = writer.execute(
            "SELECT position, at, kind, node, vm, data, shown FROM journal WHERE position > ? ORDER BY position",
            (base,),
        )
        events = tuple(_event(row) for row in found)
        for number, event in enumerate(events, base + 1):
            if event.position != number:
                raise self._damaged(f"position {number} is missing")
        last = writer.execute("SELECT max(position), max(at) FROM journal").fetchone()
        self._position = max(base, int(last[0] or 0))
        return Recovered(snapshot, events, self._position, float(last[1] or 0.0), note=note)

    def _issue_term(self) -> int:
        writer = self._need_writer()
        writer.execute("INSERT INTO meta VALUES ('term', 1) ON CONFLICT (key) DO UPDATE SET value = value + 1")
        return int(writer.execute("SELECT value FROM meta WHERE key = 'term'").fetchone()[0])

    def _begin_terms(self, least: int) -> None:
        self._need_writer().execute(
            "INSERT INTO meta VALUES ('term', ?) ON CONFLICT (key) DO UPDATE SET value = max(value, excluded.value)",
            (least,),
        )

    def _append(self, events: Sequence[StoredEvent]) -> None:
        if events[0].position != self._position + 1:
            raise StoreError(f"{self._path}: event {events[0].position} does not follow {self._position}; restart")
        writer = self._need_writer()
        self._check_ours()
        writer.execute("BEGIN IMMEDIATE")
        try:
            self._check_end(writer)
            writer.executemany(
                "INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(e.position, e.at, e.kind, e.node, e.vm, e.data, e.shown) for e in events],
            )
        except BaseException:
            if writer.in_transaction:
                writer.execute("ROLLBACK")
            raise
        writer.execute("COMMIT")
        self._position = events[-1].position
        self._witness.note(self._position)

    def _check_end(self, writer: sqlite3.Connection) -> None:
        """A backup that was written into the very file shows in where it ends."""
        last = int(writer.execute("SELECT max(position) FROM journal").fetchone()[0] or 0)
        if last not in (self._position, 0):
            raise StoreError(
                f"{self._path}: ends at {last}, not at {self._position}: it was changed under a running aggregator; "
                "start it again"
            )

    def _snapshot(self, position: int, data: bytes, keep_since: float) -> None:
        writer = self._need_writer()
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT OR REPLACE INTO snapshot VALUES (?, ?, ?)", (position, _checksum(data), data))
        kept = "SELECT position FROM snapshot ORDER BY position DESC LIMIT ?"
        writer.execute(f"DELETE FROM snapshot WHERE position NOT IN ({kept})", (SNAPSHOTS_KEPT,))  # noqa: S608
        writer.execute(
            "DELETE FROM journal WHERE position <= (SELECT min(position) FROM snapshot) AND (at < ? OR position <= ?)",
            (keep_since, position - JOURNAL_EVENTS_MAX),
        )
        writer.execute("COMMIT")

    def _history(self, query: HistoryQuery) -> list[StoredEvent]:
        reader = self._reader
        if reader is None:
            reader = self._reader = sqlite3.connect(
                f"{self._path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
            )
        wanted = [("kind", query.kind), ("node", query.node), ("vm", query.vm)]
        given = [(column, value) for column, value in wanted if value]
        where = "".join(f" AND {column} = ?" for column, _ in given)
        rows = reader.execute(
            f"SELECT position, at, kind, node, vm, data, shown FROM journal WHERE shown AND position > ?{where}"  # noqa: S608
            " ORDER BY position DESC LIMIT ?",
            (query.after, *(value for _, value in given), max(0, min(query.limit, HISTORY_LINES_MAX))),
        ).fetchall()
        return [_event(row) for row in reversed(rows)]

    def _need_writer(self) -> sqlite3.Connection:
        if self._writer is None:
            raise StoreError(f"{self._path}: the store is not open")
        return self._writer

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _close_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._witness.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
