"""A backup is whole though the journal is written meanwhile, and putting one back loses nothing that was there."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from aggregator.core.journal_form import FORM_VERSION
from aggregator.store.backup import back_up, look_at, put_back
from aggregator.store.protocol import StoredEvent, StoreError
from aggregator.store.sqlite import FILE_NAME, SqliteStore


def events(first: int, last: int) -> list[StoredEvent]:
    return [StoredEvent(number, 100.0 + number, "NodeLost", "h1", "", b"x") for number in range(first, last + 1)]


async def open_store(path: Path) -> SqliteStore:
    store = SqliteStore(path, FORM_VERSION)
    await store.open()
    return store


async def test_a_running_journal_is_backed_up_and_put_back_as_one_that_was_restored(tmp_path: Path) -> None:
    here, copy = tmp_path / "here", tmp_path / "copy"
    store = SqliteStore(here, FORM_VERSION)
    mark = (await store.open()).mark
    await store.append(events(1, 5))
    found = back_up(here, copy)
    assert (found.position, found.at) == (5, 105.0)
    assert copy.stat().st_mode & 0o777 == 0o600
    await store.append(events(6, 9))
    with pytest.raises(StoreError, match="an aggregator is using it"):
        put_back(here, copy)
    await store.close()
    found, kept = put_back(here, copy)
    assert found.position == 5
    assert kept is not None
    assert look_at(kept).position == 9
    store = SqliteStore(here, FORM_VERSION)
    recovered = await store.open()
    await store.close()
    assert recovered.position == 5
    assert len(recovered.events) == 5
    assert recovered.mark != mark  # so the next life is reconcile-only


async def test_it_is_put_back_where_there_was_nothing(tmp_path: Path) -> None:
    store = await open_store(tmp_path / "old")
    await store.append(events(1, 2))
    await store.close()
    back_up(tmp_path / "old", tmp_path / "copy")
    found, kept = put_back(tmp_path / "new/deep", tmp_path / "copy")
    assert (found.position, kept) == (2, None)
    assert list((tmp_path / "new/deep").glob(f"{FILE_NAME}*")) == [tmp_path / "new/deep" / FILE_NAME]


async def test_what_is_no_backup_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    here = tmp_path / "here"
    store = await open_store(here)
    await store.append(events(1, 3))
    await store.close()
    before = (here / FILE_NAME).read_bytes()
    text, other, newer = tmp_path / "text", tmp_path / "other", tmp_path / "newer"
    text.write_text("hello " * 1000)
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE x (y)")
    back_up(here, newer)
    with sqlite3.connect(newer) as connection:
        connection.execute("PRAGMA user_version=99")
    for backup, words in (
        (text, "is damaged or no journal of virtward"),
        (other, "is no journal of virtward"),
        (newer, "written by a newer virtward"),
        (tmp_path / "none", "there is no such file"),
    ):
        with pytest.raises(StoreError, match=words):
            put_back(here, backup)
    assert (here / FILE_NAME).read_bytes() == before


async def test_a_backup_never_writes_over_a_file(tmp_path: Path) -> None:
    store = await open_store(tmp_path / "here")
    await store.close()
    (tmp_path / "copy").write_text("mine")
    with pytest.raises(StoreError, match="is there already"):
        back_up(tmp_path / "here", tmp_path / "copy")
    with pytest.raises(StoreError, match="no journal to back up"):
        back_up(tmp_path, tmp_path / "other")
    assert (tmp_path / "copy").read_text() == "mine"
    assert not (tmp_path / "other.part").exists()


def test_the_program_says_what_it_has_done(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3kr1t\n")
    (tmp_path / "token").chmod(0o600)
    config = tmp_path / "aggregator.toml"
    config.write_text(
        f'name = "a1"\ntoken_file = "{tmp_path}/token"\nstate_dir = "{tmp_path}/state"\n'
        f'fence_agents_dir = "{tmp_path}"\n'
    )

    def program(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "aggregator.main", "--config", str(config), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    missing = program("backup", str(tmp_path / "copy"))
    assert missing.returncode == 1
    assert "there is no journal to back up" in missing.stderr
    assert program("backup").returncode == 2
    assert program("backup", "x", "--check").returncode == 2
    assert len(missing.stderr.splitlines()) == 1
