"""A backup of the journal, taken while the aggregator runs, and put back while it does not.

Knows SQLite files and the store's layout; nothing of events. What is put back is told by the witness, which no backup
brings along: the next life knows that its journal is older than what was done, and only listens until every member has
spoken (core/reconcile.py). All errors are StoreError, one sentence each, and then nothing has changed.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from msgspec import Struct

from aggregator.core.journal_form import FORM_VERSION
from aggregator.store.layout import LAYOUT_VERSION
from aggregator.store.protocol import StoreError
from aggregator.store.sqlite import FILE_NAME, LOCK_NAME
from aggregator.store.witness import FILE_NAME as WITNESS

BUSY_S_MAX = 30.0
LEFTOVERS = ("-wal", "-shm")  # of the journal that was there before: they belong to no other file


class Copied(Struct, frozen=True):
    """What a backup holds. position: of the last event; at: its fleet time, Unix seconds."""

    position: int
    at: float


def back_up(state_dir: Path, target: Path) -> Copied:
    """Copy the journal into a new file, whole and of one moment, whether an aggregator writes it meanwhile or not."""
    journal = state_dir / FILE_NAME
    if not journal.is_file():
        raise StoreError(f"{journal}: there is no journal to back up; is state_dir right?")
    if target.exists():
        raise StoreError(f"{target}: is there already; name a new file")
    fresh = target.with_name(f"{target.name}.part")
    try:
        os.close(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StoreError(f"{fresh}: cannot be written: {error.strerror or error}") from None
    try:
        with _explained(journal), closing(_open(journal)) as source, closing(sqlite3.connect(fresh)) as copy:
            source.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, with nothing beside it
        found = look_at(fresh)
        _sync(fresh)
        fresh.rename(target)
        _sync(target.parent)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    return found


def look_at(backup: Path) -> Copied:
    """Say what a backup holds. StoreError if it is damaged, no journal, or of a newer virtward."""
    if not backup.is_file():
        raise StoreError(f"{backup}: there is no such file")
    with _explained(backup), closing(_open(backup)) as copy:
        if copy.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise StoreError(f"{backup}: is damaged; take another backup")
        tables = {name for (name,) in copy.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not {"meta", "journal", "snapshot"} <= tables:
            raise StoreError(f"{backup}: is no journal of virtward")
        layout = int(copy.execute("PRAGMA user_version").fetchone()[0])
        form = copy.execute("SELECT value FROM meta WHERE key = 'form'").fetchone()
        if layout > LAYOUT_VERSION or (form and int(form[0]) > FORM_VERSION):
            raise StoreError(f"{backup}: written by a newer virtward; install that version first")
        position, at = copy.execute("SELECT max(position), max(at) FROM journal").fetchone()
        base = copy.execute("SELECT max(position) FROM snapshot").fetchone()[0]
    return Copied(max(int(position or 0), int(base or 0)), float(at or 0.0))


def put_back(state_dir: Path, backup: Path) -> tuple[Copied, Path | None]:
    """Put a backup in the journal's place. Return what it holds, and where the journal from before lies now, if any."""
    found = look_at(backup)
    journal = state_dir / FILE_NAME
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _stopped(state_dir):
            fresh = journal.with_name(f"{FILE_NAME}.new")
            fresh.write_bytes(backup.read_bytes())
            fresh.chmod(0o600)
            owner = state_dir.stat()
            os.chown(fresh, owner.st_uid, owner.st_gid)
            _sync(fresh)
            kept = _move_away(journal)
            (state_dir / WITNESS).unlink(missing_ok=True)  # it knows the journal that was there
            fresh.rename(journal)
            _sync(state_dir)
    except OSError as error:
        raise StoreError(
            f"{state_dir}: {error.strerror or error}; run it as root, with the aggregator stopped"
        ) from None
    return found, kept


def _move_away(journal: Path) -> Path | None:
    """Keep the journal that is there, with its leftovers, under a name that no journal has."""
    if not journal.exists():
        return None
    number = 1
    while (kept := journal.with_name(f"{FILE_NAME}.before-{number}")).exists():
        number += 1
    for ending in LEFTOVERS:
        beside = journal.with_name(FILE_NAME + ending)
        if beside.exists():
            beside.rename(kept.with_name(kept.name + ending))
    journal.rename(kept)
    return kept


@contextmanager
def _stopped(state_dir: Path) -> Iterator[None]:
    """Hold the aggregator's lock, so that none begins meanwhile."""
    lock = os.open(state_dir / LOCK_NAME, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        owner = state_dir.stat()
        os.chown(lock, owner.st_uid, owner.st_gid)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(
                f"{state_dir}: an aggregator is using it; `systemctl stop virtward-aggregator` first"
            ) from None
        yield
    finally:
        os.close(lock)


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=BUSY_S_MAX)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise StoreError(f"{path}: {error}; it is damaged or no journal of virtward") from None


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
