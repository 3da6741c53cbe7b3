"""A new store in a lost one's place: what it holds, and where it is refused."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from aggregator.core.events import RebuildBegun
from aggregator.core.journal_form import FORM_VERSION, decode_event
from aggregator.store.protocol import StoreError
from aggregator.store.rebuild import rebuild
from aggregator.store.sqlite import FILE_NAME, SqliteStore


async def test_it_knows_the_members_and_its_terms_are_above_all_that_were_ever_issued(tmp_path: Path) -> None:
    before = int(time.time())
    await in_thread(tmp_path, ["h1", "h2"])
    store = SqliteStore(tmp_path, FORM_VERSION)
    recovered = await store.open()
    term = await store.issue_term()
    await store.close()
    assert term > before
    (row,) = recovered.events
    event = decode_event(row.data)
    assert isinstance(event, RebuildBegun)
    assert event.members == ("h1", "h2")


@pytest.mark.parametrize("members", [[], ["h1", "h1"], ["a/b"], [""]])
def test_names_that_are_none_leave_nothing_behind(tmp_path: Path, members: list[str]) -> None:
    with pytest.raises(StoreError, match="member"):
        rebuild(tmp_path, members)
    assert list(tmp_path.iterdir()) == []


def test_a_journal_that_is_there_is_not_touched(tmp_path: Path) -> None:
    rebuild(tmp_path, ["h1"])
    whole = (tmp_path / FILE_NAME).read_bytes()
    with pytest.raises(StoreError, match="move it away first"):
        rebuild(tmp_path, ["h1"])
    assert (tmp_path / FILE_NAME).read_bytes() == whole


async def in_thread(state_dir: Path, members: list[str]) -> None:
    """It has a loop of its own."""
    await asyncio.to_thread(rebuild, state_dir, members)
