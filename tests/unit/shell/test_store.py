"""The journal survives what a disk and a kill can do to it, and says in one sentence what it cannot survive."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from aggregator.fleet_access import HistoryQuery
from aggregator.store.layout import LAYOUT_VERSION
from aggregator.store.protocol import StoredEvent, StoreError
from aggregator.store.sqlite import FILE_NAME, LOCK_NAME, SqliteStore

WRITER = """
import asyncio, sys
from pathlib import Path
from aggregator.store.protocol import StoredEvent
from aggregator.store.sqlite import SqliteStore

async def main() -> None:
    store = SqliteStore(Path(sys.argv[1]), 1)
    position = (await store.open()).position
    print("open", flush=True)
    turn = 0
    while True:
        turn += 1
        events = [StoredEvent(position + n, 1.0, "K", "", "", b"%d" % turn) for n in range(1, 2 + turn % 5)]
        await store.append(events)
        position = events[-1].position
        if turn % 7 == 0:
            await store.snapshot(position, b"state at %d" % position, 0.0)
        print(position, flush=True)

asyncio.run(main())
"""


def killed_writer(path: Path, lines: int) -> list[str]:
    """Let a process write turns into the store until it has said so many lines; kill it; return all it said."""
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        said = [writer.stdout.readline() for _ in range(lines)]
        os.kill(writer.pid, signal.SIGKILL)
        return said + writer.stdout.readlines()


def an_event(position: int, **changes: object) -> StoredEvent:
    values: dict[str, object] = {"at": float(position), "kind": "NodeLost", "node": "h1", "vm": "", "data": b"x"}
    return StoredEvent(position=position, **(values | changes))  # type: ignore[arg-type]


async def a_store(path: Path, *positions: int) -> SqliteStore:
    store = SqliteStore(path, 1)
    await store.open()
    await store.append([an_event(position) for position in positions])
    return store


async def test_what_was_appended_is_there_in_the_next_life(tmp_path: Path) -> None:
    store = await a_store(tmp_path, 1, 2, 3)
    await store.close()
    again = await SqliteStore(tmp_path, 1).open()
    assert [event.position for event in again.events] == [1, 2, 3]
    assert (again.position, again.at, again.snapshot) == (3, 3.0, None)


async def test_a_snapshot_shortens_the_replay_and_not_the_history(tmp_path: Path) -> None:
    store = await a_store(tmp_path, 1, 2, 3)
    await store.snapshot(2, b"two", keep_since=0.0)
    assert [event.position for event in await store.history(HistoryQuery())] == [1, 2, 3]
    await store.close()
    again = await SqliteStore(tmp_path, 1).open()
    assert (again.snapshot, [event.position for event in again.events]) == (b"two", [3])


async def test_old_events_are_forgotten_only_behind_the_oldest_snapshot_kept(tmp_path: Path) -> None:
    store = await a_store(tmp_path, *range(1, 11))
    for position in (4, 6, 8, 10):
        await store.snapshot(position, b"state", keep_since=100.0)
    assert [event.position for event in await store.history(HistoryQuery())] == [7, 8, 9, 10]
    await store.close()
    assert (await SqliteStore(tmp_path, 1).open()).position == 10


async def test_the_position_is_remembered_when_the_snapshot_is_the_last_word(tmp_path: Path) -> None:
    store = await a_store(tmp_path, 1, 2, 3)
    await store.snapshot(3, b"three", keep_since=100.0)
    await store.close()
    again = await SqliteStore(tmp_path, 1).open()
    assert (again.position, again.events, again.snapshot) == (3, (), b"three")


async def test_history_is_chosen_by_node_vm_kind_and_position(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, 1)
    await store.open()
    await store.append(
        [
            an_event(1),
            an_event(2, node="h2"),
            an_event(3, kind="VmPhaseChanged", node="", vm="a"),
            an_event(4, shown=False),
            an_event(5),
        ]
    )

    async def positions(query: HistoryQuery) -> list[int]:
        return [event.position for event in await store.history(query)]

    assert await positions(HistoryQuery(node="h1")) == [1, 5]
    assert await positions(HistoryQuery(vm="a")) == [3]
    assert await positions(HistoryQuery(kind="NodeLost", after=1)) == [2, 5]
    assert await positions(HistoryQuery(limit=2)) == [3, 5]
    assert await positions(HistoryQuery(limit=0)) == []


async def test_every_term_is_higher_than_any_before(tmp_path: Path) -> None:
    terms = []
    for _ in range(3):
        store = await a_store(tmp_path)
        terms.append(await store.issue_term())
        await store.close()
    assert terms == [1, 2, 3]


async def test_one_aggregator_at_a_time(tmp_path: Path) -> None:
    first = await a_store(tmp_path)
    with pytest.raises(StoreError, match="another aggregator is using this directory"):
        await SqliteStore(tmp_path, 1).open()
    await first.close()
    await SqliteStore(tmp_path, 1).open()


async def test_a_lock_that_was_removed_leads_nobody_and_writes_nothing(tmp_path: Path) -> None:
    """A second aggregator would lock a new file of that name, and both would lead."""
    store = await a_store(tmp_path, 1)
    assert store.leads()
    (tmp_path / LOCK_NAME).unlink()
    assert not store.leads()
    with pytest.raises(StoreError, match="another may lead now"):
        await store.append([an_event(2)])
    await store.close()
    assert not store.leads()


async def test_a_backup_that_takes_the_place_of_the_journal_is_not_written_on(tmp_path: Path) -> None:
    store = await a_store(tmp_path, 1)
    backup = tmp_path / "backup"
    backup.write_bytes((tmp_path / FILE_NAME).read_bytes())
    backup.replace(tmp_path / FILE_NAME)
    with pytest.raises(StoreError, match="replaced under a running aggregator"):
        await store.append([an_event(2)])
    await store.close()


async def sight(path: Path) -> tuple[str, int]:
    """Return what the next life is told of the store: its mark, and how many events it has lost."""
    store = SqliteStore(path, 1)
    recovered = await store.open()
    await store.close()
    return recovered.mark, recovered.lost_events


async def test_a_store_that_only_grew_keeps_its_mark(tmp_path: Path) -> None:
    first = await sight(tmp_path)
    store = await a_store(tmp_path, 1, 2)
    await store.close()
    assert first[0]
    assert await sight(tmp_path) == first == (first[0], 0)


@pytest.mark.parametrize("how", ["in its place", "into the very file", "with all beside it", "without a witness"])
async def test_a_restored_journal_has_another_mark(tmp_path: Path, how: str) -> None:
    """Whatever was done after the backup is not in it, and nobody may be started before that is known (S7)."""
    here, backup = tmp_path / "here", tmp_path / "backup"
    store = await a_store(here, 1, 2)
    await store.close()
    mark, _ = await sight(here)
    shutil.copytree(here, backup)
    store = SqliteStore(here, 1)
    await store.open()
    await store.append([an_event(3), an_event(4), an_event(5)])
    await store.close()
    if how == "in its place":
        (here / FILE_NAME).rename(tmp_path / "old")
    if how == "with all beside it":
        shutil.rmtree(here)
        shutil.copytree(backup, here)
    else:
        shutil.copyfile(backup / FILE_NAME, here / FILE_NAME)
    if how == "without a witness":
        (here / "witness").unlink()
    found, lost_events = await sight(here)
    assert found != mark
    assert lost_events == (3 if how in ("in its place", "into the very file") else 0)
    assert await sight(here) == (found, 0)


async def test_a_kill_between_journal_and_witness_is_no_restore(tmp_path: Path) -> None:
    """The witness says less than the journal then, as after a loss of power."""
    store = await a_store(tmp_path, 1)
    await store.close()
    kept = (tmp_path / "witness").read_bytes()
    mark, _ = await sight(tmp_path)
    store = SqliteStore(tmp_path, 1)
    await store.open()
    await store.append([an_event(2)])
    await store.close()
    (tmp_path / "witness").write_bytes(kept)
    assert await sight(tmp_path) == (mark, 0)


async def test_a_journal_that_was_set_back_in_place_is_not_written_on(tmp_path: Path) -> None:
    store = await a_store(tmp_path, 1, 2)
    with sqlite3.connect(tmp_path / FILE_NAME) as other:
        other.execute("DELETE FROM journal WHERE position = 2")
    other.close()
    with pytest.raises(StoreError, match="was changed under a running aggregator"):
        await store.append([an_event(3)])
    await store.close()


async def test_nobody_else_may_read_the_files(tmp_path: Path) -> None:
    await a_store(tmp_path / "state", 1)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "state").iterdir()}
    assert modes[FILE_NAME] == 0o600
    assert all(mode == 0o600 for mode in modes.values())


async def test_a_gap_is_never_written(tmp_path: Path) -> None:
    store = await a_store(tmp_path, 1)
    with pytest.raises(StoreError, match="event 3 does not follow 1"):
        await store.append([an_event(3)])


async def test_all_events_of_a_turn_or_none(tmp_path: Path) -> None:
    store = await a_store(tmp_path, 1)
    with pytest.raises(StoreError):
        await store.append([an_event(2), an_event(3), an_event(3)])
    await store.close()
    assert (await SqliteStore(tmp_path, 1).open()).position == 1


@pytest.mark.parametrize("what", ["layout", "form"])
async def test_a_newer_store_is_refused_and_left_as_it_is(tmp_path: Path, what: str) -> None:
    await (await a_store(tmp_path, 1)).close()
    with sqlite3.connect(tmp_path / FILE_NAME) as file:
        file.execute("PRAGMA user_version=9" if what == "layout" else "UPDATE meta SET value = 9 WHERE key = 'form'")
    file.close()
    known = LAYOUT_VERSION if what == "layout" else 1
    words = rf"written by a newer virtward \(store version 9, this one knows {known}\); install virtward 0\.\S+ again"
    with pytest.raises(StoreError, match=words):
        await SqliteStore(tmp_path, 1).open()


async def test_a_file_that_is_no_journal_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"no database at all " * 500)
    with pytest.raises(StoreError, match=r"journal\.sqlite: the journal is damaged"):
        await SqliteStore(tmp_path, 1).open()


async def test_a_torn_database_is_named(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, 1)
    await store.open()
    await store.append([an_event(position, data=b"d" * 900) for position in range(1, 200)])
    await store.close()
    whole = (tmp_path / FILE_NAME).read_bytes()
    (tmp_path / FILE_NAME).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StoreError, match="the journal is damaged"):
        await SqliteStore(tmp_path, 1).open()


async def test_a_missing_event_is_damage(tmp_path: Path) -> None:
    await (await a_store(tmp_path, 1, 2, 3)).close()
    with sqlite3.connect(tmp_path / FILE_NAME) as file:
        file.execute("DELETE FROM journal WHERE position = 2")
    file.close()
    with pytest.raises(StoreError, match="position 2 is missing"):
        await SqliteStore(tmp_path, 1).open()


async def test_a_damaged_snapshot_is_passed_over_for_an_older_one(tmp_path: Path) -> None:
    store = await a_store(tmp_path, 1, 2, 3)
    await store.snapshot(1, b"one", keep_since=0.0)
    await store.snapshot(3, b"three", keep_since=0.0)
    await store.close()
    with sqlite3.connect(tmp_path / FILE_NAME) as file:
        file.execute("UPDATE snapshot SET data = x'00' WHERE position = 3")
    file.close()
    again = await SqliteStore(tmp_path, 1).open()
    assert (again.snapshot, [event.position for event in again.events]) == (b"one", [2, 3])
    assert "the snapshot at 3 is damaged" in again.note


async def test_a_directory_that_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="Not a directory"):
        await SqliteStore(tmp_path / "file" / "state", 1).open()


@pytest.mark.parametrize("turns", [1, 6, 23])
async def test_kill_in_the_middle_of_writing_loses_nothing_that_was_said_to_be_durable(
    tmp_path: Path, turns: int
) -> None:
    """A writer is killed without warning, three times over one journal: every turn is whole or not there."""
    for _ in range(3):
        said = killed_writer(tmp_path, turns + 1)
        durable = int([line for line in said if line.endswith("\n")][-1])
        store = SqliteStore(tmp_path, 1)
        again = await store.open()
        assert again.position >= durable
        turn_sizes: dict[bytes, int] = {}
        for event in await store.history(HistoryQuery(after=again.position - 400)):
            turn_sizes[event.data] = turn_sizes.get(event.data, 0) + 1
        newest = max(turn_sizes, key=int)
        assert turn_sizes[newest] % (1 + int(newest) % 5) == 0
        await store.close()


async def test_what_was_torn_in_the_log_behind_the_file_is_passed_over(tmp_path: Path) -> None:
    """A power cut may leave a half-written turn in the write-ahead log: it never happened."""
    killed_writer(tmp_path, 12)
    log = tmp_path / f"{FILE_NAME}-wal"
    data = log.read_bytes()
    log.write_bytes(data[:-1500] + os.urandom(400))
    again = await SqliteStore(tmp_path, 1).open()
    assert again.position > 0
    assert [event.position for event in again.events] == list(
        range(again.position - len(again.events) + 1, again.position + 1)
    )
