"""An older journal brought to the present layout and form ahead of a start, and read through from end to end.

All errors are StoreError, one sentence each. The file as it was is kept beside the journal.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from msgspec import Struct

from aggregator.core.fold import fold
from aggregator.core.journal_form import FORM_VERSION, encode_state
from aggregator.journal_row import read_events, read_snapshot
from aggregator.store.layout import LAYOUT_VERSION, layout_of
from aggregator.store.protocol import StoreError
from aggregator.store.sqlite import FILE_NAME, SqliteStore
from aggregator.store.witness import FILE_NAME as WITNESS


class Migrated(Struct, frozen=True):
    """What was found and made of it. position: of the last event, all of which could be read."""

    before: int
    layout: int
    position: int


def migrate_store(state_dir: Path) -> Migrated:
    """Bring the journal up and write a snapshot in the present form."""
    journal = state_dir / FILE_NAME
    if not journal.is_file():
        raise StoreError(f"{journal}: there is no journal; is state_dir right?")
    try:
        with closing(sqlite3.connect(f"{journal.resolve().as_uri()}?mode=ro", uri=True)) as file:
            before = layout_of(file)
    except sqlite3.DatabaseError as error:
        raise StoreError(f"{journal}: {error}; it is damaged or no journal of virtward") from None
    position = asyncio.run(_read_through(state_dir))
    own(state_dir, [path.name for path in state_dir.glob(f"{FILE_NAME}*")] + [WITNESS])
    return Migrated(before, LAYOUT_VERSION, position)


async def _read_through(state_dir: Path) -> int:
    store = SqliteStore(state_dir, FORM_VERSION)
    try:
        recovered = await store.open()
        state = read_snapshot(recovered)
        for event in read_events(recovered.events):
            fold(state, event)
        if state.position != recovered.position:
            raise StoreError(f"the journal ends at {recovered.position}, but its events lead to {state.position}")
        await store.snapshot(state.position, encode_state(state), 0.0)
    finally:
        await store.close()
    return state.position


def own(state_dir: Path, names: Sequence[str]) -> None:
    """Give files that were made here to the directory's owner: whoever runs this, the aggregator writes on."""
    owner = state_dir.stat()
    try:
        for name in names:
            if (state_dir / name).exists():
                os.chown(state_dir / name, owner.st_uid, owner.st_gid)
    except OSError as error:
        why = error.strerror or error
        raise StoreError(f"{state_dir}: {why}; give its files to the aggregator's account") from None
