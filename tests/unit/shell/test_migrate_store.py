"""A journal that an older virtward wrote is brought up once, loses nothing, and is kept as it was.

journal_layout_1.sql: by the last version whose journals had layout 1; two nodes, and a VM that runs.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from aggregator.core.fold import fold
from aggregator.core.journal_form import FORM_VERSION
from aggregator.core.state import State
from aggregator.journal_row import read_events, read_snapshot
from aggregator.store.backup import look_at
from aggregator.store.layout import LAYOUT_VERSION, STEPS, layout_of
from aggregator.store.migrate import migrate_store
from aggregator.store.protocol import StoreError
from aggregator.store.sqlite import FILE_NAME, SqliteStore

LAYOUT_1 = Path(__file__).with_name("journal_layout_1.sql")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Return a state directory with a journal of layout 1."""
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as file:
        file.executescript(LAYOUT_1.read_text(encoding="utf-8"))
        assert layout_of(file) == 1
    (tmp_path / FILE_NAME).chmod(0o600)
    return tmp_path


async def state_in(state_dir: Path) -> tuple[State, int, str]:
    """Return the state that the journal leads to, the next term, and what the store notes."""
    store = SqliteStore(state_dir, FORM_VERSION)
    recovered = await store.open()
    state = read_snapshot(recovered)
    for event in read_events(recovered.events):
        fold(state, event)
    term = await store.issue_term()
    await store.close()
    return state, term, recovered.note


async def test_a_start_on_an_older_journal_knows_all_that_was_known(old: Path) -> None:
    state, term, note = await state_in(old)
    assert sorted(state.nodes) == ["n1", "n2"]
    assert (state.vms["v1"].owner, state.vms["v1"].epoch, state.position) == ("n1", 1, 29)
    assert term == 2
    assert "layout-1" in note
    again, term, note = await state_in(old)
    assert (again.position, term, note) == (29, 3, "")


def test_migrate_store_brings_it_up_ahead_of_a_start_and_keeps_it_as_it_was(old: Path) -> None:
    done = migrate_store(old)
    assert (done.before, done.layout, done.position) == (1, LAYOUT_VERSION, 29)
    kept = old / f"{FILE_NAME}.layout-1"
    assert look_at(kept).position == look_at(old / FILE_NAME).position == 29
    with closing(sqlite3.connect(kept)) as file:
        assert layout_of(file) == 1
    assert kept.stat().st_mode & 0o777 == 0o600
    done = migrate_store(old)
    assert (done.before, done.position) == (LAYOUT_VERSION, 29)


def test_there_is_a_step_from_each_layout_to_the_next() -> None:
    assert sorted(STEPS) == list(range(1, LAYOUT_VERSION))


def test_a_step_that_fails_leaves_the_journal_as_it_was(old: Path) -> None:
    with closing(sqlite3.connect(old / FILE_NAME)) as file:
        file.execute("CREATE TABLE about (something TEXT)")  # in the step's way
    with pytest.raises(StoreError, match="about"):
        migrate_store(old)
    with closing(sqlite3.connect(old / FILE_NAME)) as file:
        assert layout_of(file) == 1


def test_no_journal_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no journal"):
        migrate_store(tmp_path)
    (tmp_path / FILE_NAME).write_bytes(os.urandom(8192))
    with pytest.raises(StoreError, match="no journal of virtward"):
        migrate_store(tmp_path)
