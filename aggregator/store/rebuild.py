"""A new store in the place of one that is lost for ever: it knows the members that a person named, and nothing else.

The aggregator that starts on it only listens until every member has spoken or is proven off, and then knows again what
their ledgers keep (core/rebuild.py). All errors are StoreError, one sentence each, and then nothing has changed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from aggregator.core.events import RebuildBegun
from aggregator.core.fold import fold
from aggregator.core.journal_form import FORM_VERSION
from aggregator.core.state import State
from aggregator.journal_row import row_of
from aggregator.store.migrate import own
from aggregator.store.protocol import StoreError
from aggregator.store.sqlite import FILE_NAME, LOCK_NAME, SqliteStore
from aggregator.store.witness import FILE_NAME as WITNESS

MEMBERS_MAX = 10_000
NAME_CHARACTERS_MAX = 253
MADE = (FILE_NAME, f"{FILE_NAME}-wal", f"{FILE_NAME}-shm", LOCK_NAME, WITNESS)


def rebuild(state_dir: Path, members: Sequence[str]) -> None:
    """Begin a journal for these nodes. Raises StoreError where there is one, or the names are none."""
    for name in members:
        if not name or "/" in name or len(name) > NAME_CHARACTERS_MAX:
            raise StoreError(f"{name!r} is no name of a node; name every member of the fleet, as its agent.toml does")
    if len(set(members)) != len(members) or not 0 < len(members) <= MEMBERS_MAX:
        raise StoreError(f"name every member of the fleet once, at most {MEMBERS_MAX}")
    if (state_dir / FILE_NAME).exists():
        raise StoreError(
            f"{state_dir / FILE_NAME} is there; start the aggregator on it, restore a backup, or, if it is lost for "
            "good, move it away first"
        )
    asyncio.run(_begin(state_dir, members))
    own(state_dir, MADE)


async def _begin(state_dir: Path, members: Sequence[str]) -> None:
    store = SqliteStore(state_dir, FORM_VERSION)
    try:
        await store.open()
        now = time.time()
        # Terms rise by one a life, so no term that any agent has obeyed is as high as the seconds since 1970.
        await store.begin_terms(int(now))
        state, event = State(), RebuildBegun(at=now, members=tuple(members))
        fold(state, event)
        await store.append([row_of(state, event, state.position)])
    finally:
        await store.close()
