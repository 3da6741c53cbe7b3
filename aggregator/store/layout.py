"""What a journal's file looks like inside, and how an older one becomes the present one: forward only, in one step.

Knows SQL; nothing of events, whose own form grows by fields with defaults. The first start of a newer virtward does it,
or `virtward-aggregator migrate-store` ahead of that; either keeps the file as it was beside the journal. A newer layout
is refused, with the version that wrote it. Layout 2 says who wrote it; layout 1 did not.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from aggregator.store.protocol import StoreError

LAYOUT_VERSION = 2
SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS journal (
    position INTEGER PRIMARY KEY, at REAL NOT NULL, kind TEXT NOT NULL, node TEXT NOT NULL, vm TEXT NOT NULL,
    data BLOB NOT NULL, shown INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS journal_shown ON journal (position) WHERE shown;
CREATE INDEX IF NOT EXISTS journal_kind ON journal (kind, position) WHERE shown;
CREATE INDEX IF NOT EXISTS journal_node ON journal (node, position) WHERE shown AND node != '';
CREATE INDEX IF NOT EXISTS journal_vm ON journal (vm, position) WHERE shown AND vm != '';
CREATE TABLE IF NOT EXISTS snapshot (position INTEGER PRIMARY KEY, checksum BLOB NOT NULL, data BLOB NOT NULL);
"""
STEPS: Mapping[int, str] = {
    1: "CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;",
}
"""From a layout to the next one. A step never changes once it is released."""


def layout_of(file: sqlite3.Connection) -> int:
    """Return the layout's number, 0 for a file that holds nothing yet."""
    return int(file.execute("PRAGMA user_version").fetchone()[0])


def refuse_newer(path: Path, file: sqlite3.Connection, found: int, known: int) -> None:
    """StoreError, with the version to install, if a number in the file is higher than what is known here."""
    if found > known:
        writer = _writer_of(file)
        raise StoreError(
            f"{path}: written by a newer virtward (store version {found}, this one knows {known}); "
            f"install {writer or 'the newer version'} again"
        )


def bring_up(path: Path, file: sqlite3.Connection) -> Path | None:
    """Make an empty or older file one of the present layout. Return where an older one was kept, as it was.

    StoreError if it is newer; sqlite3.DatabaseError and OSError as they come, and then nothing has changed.
    """
    found = layout_of(file)
    refuse_newer(path, file, found, LAYOUT_VERSION)
    kept = _keep(path, file, found) if 0 < found < LAYOUT_VERSION else None
    steps = "".join(STEPS[number] for number in range(found, LAYOUT_VERSION) if number) if found else ""
    file.executescript(f"BEGIN IMMEDIATE; {steps} {SCHEMA} PRAGMA user_version={LAYOUT_VERSION}; COMMIT;")
    file.execute("INSERT OR REPLACE INTO about VALUES ('written_by', ?)", (_own_version(),))
    return kept


def _keep(path: Path, file: sqlite3.Connection, found: int) -> Path:
    kept = path.with_name(f"{path.name}.layout-{found}")
    fresh = kept.with_name(f"{kept.name}.part")
    fresh.unlink(missing_ok=True)
    os.close(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    with closing(sqlite3.connect(fresh)) as copy:
        file.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")
    fresh.replace(kept)
    return kept


def _writer_of(file: sqlite3.Connection) -> str:
    try:
        row = file.execute("SELECT value FROM about WHERE key = 'written_by'").fetchone()
    except sqlite3.OperationalError:
        return ""  # a layout without that table
    return f"virtward {row[0]}" if row else ""


def _own_version() -> str:
    try:
        return version("virtward")
    except PackageNotFoundError:
        return "of a source tree"
