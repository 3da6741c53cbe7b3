"""The ledger on disk: append-only MessagePack frames, synced, compacted by rename, checked when read.

Knows files; what records mean is agent.memory's. One frame is length (4 bytes), CRC-32 (4 bytes),
payload. A torn tail (the machine died while it was written) is cut off: nothing behind it was ever
acted upon. Damage anywhere else means that promises may be missing: the ledger is Lost.
Room for it is reserved ahead (blocks beyond the file's end, and an empty file with its own for the next
rewrite), so that a full disk does not end the agent: it goes on promising and releasing, and `node-disk` says so.
A marker in run_dir, which a reboot empties, tells a ledger that was deleted on this boot from a
machine that never had one.
"""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import zlib
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from agent.memory import Memory, recall, to_records
from agent.records import AnyLedgerRecord
from fleet.model import LedgerState

RECORD_BYTES_MAX = 1024 * 1024
LEDGER_BYTES_MAX = 64 * 1024 * 1024
COMPACT_ABOVE_BYTES = 4 * 1024 * 1024
RESERVE_BYTES = 2 * COMPACT_ABOVE_BYTES  # on top of what a rewrite wrote
RESERVE_TIMEOUT_S = 10.0
STAT_BLOCK_BYTES = 512  # stat(2), st_blocks
MAGIC = b"virtward-ledger-1\n"
_HEAD = struct.Struct(">II")
_DECODER: msgspec.msgpack.Decoder[AnyLedgerRecord] = msgspec.msgpack.Decoder(AnyLedgerRecord)
_ENCODER = msgspec.msgpack.Encoder()


class LedgerError(Exception):
    """The ledger cannot be written; the text is one sentence. The agent must stop."""


class _DiskFullError(OSError):
    """There is no room for a new file; the old one is untouched."""


class Reading(Struct, frozen=True):
    """What a ledger file held. sound_bytes: how far it is sound; damaged: more than a torn tail."""

    records: list[AnyLedgerRecord]
    sound_bytes: int
    damaged: bool


def frame(record: AnyLedgerRecord) -> bytes:
    """Return the bytes of one record."""
    payload = _ENCODER.encode(record)
    if len(payload) > RECORD_BYTES_MAX:
        raise LedgerError(f"a {type(record).__name__} of {len(payload)} bytes does not fit the ledger")
    return _HEAD.pack(len(payload), zlib.crc32(payload)) + payload


def read_frames(raw: bytes) -> Reading:
    """Read all records; the last frame may be torn, nothing else may be wrong."""
    if not raw.startswith(MAGIC):
        return Reading([], 0, damaged=bool(raw) and not MAGIC.startswith(raw))
    records: list[AnyLedgerRecord] = []
    at = len(MAGIC)
    while at < len(raw):
        head = raw[at : at + _HEAD.size]
        if len(head) < _HEAD.size:
            return Reading(records, at, damaged=False)
        length, crc = _HEAD.unpack(head)
        end = at + _HEAD.size + length
        if end > len(raw) and length <= RECORD_BYTES_MAX:
            return Reading(records, at, damaged=False)
        payload = raw[at + _HEAD.size : end]
        if length > RECORD_BYTES_MAX or zlib.crc32(payload) != crc:
            torn = end >= len(raw)  # a last frame whose blocks did not all reach the disk
            return Reading(records, at, damaged=not torn or length > RECORD_BYTES_MAX)
        try:
            records.append(_DECODER.decode(payload))
        except msgspec.DecodeError:
            return Reading(records, at, damaged=True)
        at = end
    return Reading(records, at, damaged=False)


class Ledger:
    """An open ledger. Appends are synced when `append` returns. One thread at a time."""

    def __init__(self, state_dir: Path, run_dir: Path, boot_id: str) -> None:
        self.path = state_dir / "ledger"
        self.marker = run_dir / "ledger-of-this-boot"
        self.boot_id = boot_id
        self.state = LedgerState.NEW
        self._file = -1
        self._bytes = 0

    def open(self) -> Memory:
        """Read the ledger and make it ready for appends; returns what it remembers.

        Raises LedgerError if directory or file cannot be used.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.marker.parent.mkdir(parents=True, exist_ok=True)
            raw = self.path.read_bytes() if self.path.exists() else b""
            reading = read_frames(raw)
            memory = self._judge(raw, reading)
            try:
                self._rewrite(to_records(memory))
            except _DiskFullError:
                if reading.damaged or not reading.sound_bytes:
                    raise
                self._go_on(reading.sound_bytes)
            self.marker.write_text(self.boot_id + "\n", encoding="ascii")
        except OSError as error:
            raise LedgerError(f"{self.path}: the ledger cannot be used: {error.strerror or error}") from None
        return memory

    def _judge(self, raw: bytes, reading: Reading) -> Memory:
        marked = self.marker.read_text(encoding="ascii").strip() if self.marker.exists() else ""
        memory = recall(reading.records)
        if reading.damaged:
            self.path.replace(self.path.with_suffix(".damaged"))
        if reading.damaged or (not raw and marked == self.boot_id):
            memory.lost_in_boot = self.boot_id
        if memory.lost_in_boot == self.boot_id:
            self.state = LedgerState.LOST
        else:
            self.state = LedgerState.SOUND if reading.records else LedgerState.NEW
        return memory

    def append(self, record: AnyLedgerRecord) -> None:
        """Write and sync one record. Raises LedgerError: the agent must stop, for it would promise in vain."""
        try:
            data = frame(record)
            written = os.write(self._file, data)
            if written != len(data):
                raise LedgerError(f"{self.path}: only {written} of {len(data)} bytes were written; is the disk full?")
            os.fdatasync(self._file)
            self._bytes += written
        except OSError as error:
            raise LedgerError(f"{self.path}: the ledger cannot be written: {error.strerror or error}") from None

    @property
    def is_long(self) -> bool:
        """Say whether the file should be compacted."""
        return self._bytes > COMPACT_ABOVE_BYTES

    def compact(self, records: list[AnyLedgerRecord]) -> bool:
        """Put a file with these records in the old one's place; False: the disk is full, and the old one goes on.

        Raises LedgerError for anything else.
        """
        try:
            self._rewrite(records)
        except _DiskFullError:
            self._bytes = COMPACT_ABOVE_BYTES // 2  # tried again after as much again
            return False
        except OSError as error:
            raise LedgerError(f"{self.path}: the ledger cannot be written: {error.strerror or error}") from None
        return True

    def _rewrite(self, records: list[AnyLedgerRecord]) -> None:
        data = MAGIC + b"".join(frame(record) for record in records)
        if len(data) > LEDGER_BYTES_MAX:
            raise LedgerError(f"{self.path}: the ledger would be {len(data)} bytes long")
        fresh = self.path.with_suffix(".new")
        if fresh.exists() and fresh.stat().st_size:
            fresh.unlink()  # a rewrite that was cut short
        _write_new(fresh, data)
        fresh.replace(self.path)
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        self._append_to_it()
        with suppress(OSError):  # the room for the next rewrite; it is asked for again then
            os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
            _reserve(fresh, len(data))
        # The next rewrite comes after as much growth again, however long the remembered part is.
        self._bytes = 0 if len(data) > COMPACT_ABOVE_BYTES // 2 else len(data)

    def _append_to_it(self) -> None:
        self.close()
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def _go_on(self, sound_bytes: int) -> None:
        """Use the file that is there, without its torn tail."""
        self._append_to_it()
        os.ftruncate(self._file, sound_bytes)
        _reserve(self.path, sound_bytes)  # which went with the tail
        os.fdatasync(self._file)
        self._bytes = COMPACT_ABOVE_BYTES // 2

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _write_new(path: Path, data: bytes) -> None:
    """Write a whole file, synced, with room to grow. Raises _DiskFullError: what was to be replaced is as it was."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _write_all(handle, data)
        _reserve(path, len(data))
        os.fsync(handle)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _DiskFullError(error.errno, os.strerror(error.errno)) from None
        raise
    finally:
        os.close(handle)


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def _reserve(file: Path, held_bytes: int) -> None:
    """Give a file that holds or will hold so much blocks beyond it, if the file system can and has some left.

    Not where enough are there: tmpfs takes those away when it cannot give more.
    """
    command = ["fallocate", "--keep-size", "--length", str(held_bytes + RESERVE_BYTES), str(file)]
    with suppress(OSError, subprocess.TimeoutExpired):
        if file.stat().st_blocks * STAT_BLOCK_BYTES < held_bytes + COMPACT_ABOVE_BYTES:
            subprocess.run(command, capture_output=True, timeout=RESERVE_TIMEOUT_S, check=False)
