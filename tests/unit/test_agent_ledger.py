"""The ledger on disk: what survives which damage."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import ledger as ledger_module
from agent.ledger import MAGIC, Ledger, LedgerError, frame, read_frames
from agent.memory import Memory, fold, recall, to_records
from agent.records import (
    AnyLedgerRecord,
    LeadershipSeen,
    NoticeTaken,
    OrderBegun,
    OrderEnded,
    RunBegan,
    SessionOpened,
    Standing,
    VmReleased,
)
from fleet.messages import Order, ReceiveVm, StartVm
from fleet.model import EndReason, Leadership, LedgerState, OrderOutcome, SessionKey

SESSION = SessionKey("boot-1", "start-1", 7)
LEADER = Leadership(3, "a1", 99)


def an_order(number: int, uuid: str = "u1", epoch: int = 1) -> Order:
    return Order(f"o{number}", uuid, "web-1", epoch, LEADER, SESSION, StartVm("", number))


RECORDS: list[AnyLedgerRecord] = [
    SessionOpened(SESSION),
    LeadershipSeen(LEADER),
    OrderBegun(an_order(1)),
    RunBegan("u1", "web-1", 1, 1),
    OrderEnded("o1", OrderOutcome.DONE),
    VmReleased("u1", "web-1", 1, 1, EndReason.CRASHED, ran=True),
    OrderBegun(Order("o2", "u2", "web-2", 5, LEADER, SESSION, ReceiveVm("m", 1, "h2", 4, "secret"))),
    OrderEnded("o2", OrderOutcome.DONE),
    NoticeTaken("u2", "m"),
    OrderBegun(an_order(3, "u3")),
]


def an_opened(tmp_path: Path, boot_id: str = "boot-1") -> tuple[Ledger, Memory]:
    ledger = Ledger(tmp_path / "state", tmp_path / "run", boot_id)
    return ledger, ledger.open()


def written(tmp_path: Path) -> Path:
    """Write all records and close; return the file."""
    ledger, memory = an_opened(tmp_path)
    for record in RECORDS:
        fold(memory, record)
        ledger.append(record)
    ledger.close()
    return ledger.path


def test_a_new_machine_has_a_new_ledger_and_then_a_sound_one(tmp_path: Path) -> None:
    ledger, memory = an_opened(tmp_path)
    assert (ledger.state, memory) == (LedgerState.NEW, Memory())
    ledger.close()
    written(tmp_path)
    again, memory = an_opened(tmp_path)
    assert again.state is LedgerState.SOUND
    assert memory == recall(RECORDS)
    assert memory.promises["u1"].standing is Standing.RELEASED
    assert memory.promises["u2"].notice_taken
    assert list(memory.open) == ["o3"]


def test_a_compacted_ledger_remembers_the_same(tmp_path: Path) -> None:
    memory = recall(RECORDS)
    assert recall(to_records(memory)) == memory
    ledger, _ = an_opened(tmp_path)
    ledger.compact(to_records(memory))
    ledger.close()
    assert an_opened(tmp_path)[1] == memory


def test_a_torn_tail_is_cut_at_every_byte(tmp_path: Path) -> None:
    """Whatever part of the last record reached the disk, all before it is remembered."""
    path = written(tmp_path)
    whole = path.read_bytes()
    last = len(frame(RECORDS[-1]))
    for cut in range(1, last + 1):
        reading = read_frames(whole[: len(whole) - cut])
        assert not reading.damaged
        assert recall(reading.records) == recall(RECORDS[:-1])


def test_a_last_record_with_wrong_blocks_is_cut_too(tmp_path: Path) -> None:
    whole = written(tmp_path).read_bytes()
    reading = read_frames(whole[:-20] + bytes(20))
    assert (reading.damaged, len(reading.records)) == (False, len(RECORDS) - 1)


def test_damage_in_the_middle_means_lost_until_the_next_boot(tmp_path: Path) -> None:
    path = written(tmp_path)
    whole = bytearray(path.read_bytes())
    whole[len(MAGIC) + 20] ^= 0xFF
    path.write_bytes(whole)
    ledger, memory = an_opened(tmp_path)
    assert ledger.state is LedgerState.LOST
    assert path.with_suffix(".damaged").exists()
    fold(memory, RECORDS[0])
    ledger.append(RECORDS[0])
    ledger.close()
    assert an_opened(tmp_path)[0].state is LedgerState.LOST
    assert an_opened(tmp_path, "boot-2")[0].state is LedgerState.SOUND


def test_a_file_that_vanished_on_the_same_boot_means_lost(tmp_path: Path) -> None:
    written(tmp_path).unlink()
    assert an_opened(tmp_path)[0].state is LedgerState.LOST


def test_a_file_that_vanished_before_this_boot_is_a_new_machine(tmp_path: Path) -> None:
    written(tmp_path).unlink()
    assert an_opened(tmp_path, "boot-2")[0].state is LedgerState.NEW


def test_a_file_of_something_else_means_lost(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_bytes(b"not a ledger at all, but long enough to be one" * 10)
    assert an_opened(tmp_path)[0].state is LedgerState.LOST


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_make_reading_fail(raw: bytes) -> None:
    read_frames(raw)
    read_frames(MAGIC + raw)


def test_a_ledger_that_grows_long_is_compacted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "COMPACT_ABOVE_BYTES", 2000)
    ledger, memory = an_opened(tmp_path)
    for position in range(400):
        record = LeadershipSeen(Leadership(1, "a1", position))
        fold(memory, record)
        ledger.append(record)
        if ledger.is_long:
            ledger.compact(to_records(memory))
    assert ledger.path.stat().st_size < 4000
    ledger.close()
    assert an_opened(tmp_path)[1].highest == Leadership(1, "a1", 399)


def test_a_directory_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where a directory should be")
    with pytest.raises(LedgerError, match="the ledger cannot be used"):
        an_opened(tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 MB, in a mount of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system takes root")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "none", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(disk: Path) -> None:
    """Leave no byte free."""
    with (disk / "others").open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_on_a_full_disk_the_ledger_goes_on(small_disk: Path) -> None:
    """More records than one file takes before it is compacted, and restarts in between."""
    ledger, memory = an_opened(small_disk)
    fill(small_disk)
    position = 0
    for _life in range(3):
        for _record in range(12_000):
            position += 1
            record = LeadershipSeen(Leadership(1, "a" * 200, position))
            fold(memory, record)
            ledger.append(record)
            if ledger.is_long:
                ledger.compact(to_records(memory))
            fill(small_disk)
        ledger.close()
        ledger, memory = an_opened(small_disk)
        assert memory.highest is not None
        assert (memory.highest.position, ledger.state) == (position, LedgerState.SOUND)


def test_a_rewrite_that_finds_no_room_leaves_the_ledger_as_it_was(small_disk: Path) -> None:
    """Without its reserve, as on a file system that knows none: it is said, and nothing is lost or torn."""
    path = written(small_disk)
    with path.open("ab") as file:
        file.write(b"\0\0\0\4torn")
    path.with_suffix(".new").unlink()
    fill(small_disk)
    ledger, memory = an_opened(small_disk)
    assert (memory, ledger.state) == (recall(RECORDS), LedgerState.SOUND)
    fill(small_disk)
    assert not ledger.compact(to_records(memory))
    assert not read_frames(path.read_bytes()).damaged
    (small_disk / "others").unlink()
    ledger.append(SessionOpened(SESSION))
    assert ledger.compact(to_records(memory))
    ledger.close()
    assert an_opened(small_disk)[1] == memory


def test_a_new_ledger_on_a_full_disk_is_one_sentence(small_disk: Path) -> None:
    fill(small_disk)
    with pytest.raises(LedgerError, match="No space left"):
        an_opened(small_disk)
