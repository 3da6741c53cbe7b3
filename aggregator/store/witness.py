"""A small file beside the journal that remembers how far it went, and that no backup takes along unnoticed.

A journal that is put back from a backup does not know what was done after it: which VM was started where, at which
epoch. The witness does, for it is not part of the journal. And it knows the lock file beside it by inode and time of
change, which nobody can set: a witness that was copied back together with the journal lies beside another lock file.
(An inode alone is given out again at once.) What it cannot see is a whole file system that was set back: then only
the agents can tell. Knows files; nothing of events.
"""

from __future__ import annotations

import os
import secrets
import struct
from pathlib import Path

from msgspec import Struct

FILE_NAME = "witness"
_FORM = struct.Struct(">8s16sQQQ")  # magic, mark, inode of the lock file, its time of change in ns, position
_MAGIC = b"vwwitn1\n"
_POSITION_AT = _FORM.size - 8
_POSITION = struct.Struct(">Q")


class Sight(Struct, frozen=True):
    """What the witness says of a journal. See Recovered for mark and lost_events."""

    mark: str
    lost_events: int


class Witness:
    """Held open by the store that has the lock. All methods raise OSError."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE_NAME
        self._file = -1

    def look(self, lock: os.stat_result, position: int) -> Sight:
        """Compare with a journal that ends at position, beside this lock file; an unknown one gets a new mark."""
        self._file = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        known = os.pread(self._file, _FORM.size, 0)
        mark, lost_events = b"", 0
        if len(known) == _FORM.size:
            magic, known_mark, inode, changed_ns, seen = _FORM.unpack(known)
            if (magic, inode, changed_ns) == (_MAGIC, lock.st_ino, lock.st_ctime_ns):
                mark, lost_events = known_mark, max(0, seen - position)
        if lost_events or not mark:
            mark = secrets.token_bytes(16)
        os.pwrite(self._file, _FORM.pack(_MAGIC, mark, lock.st_ino, lock.st_ctime_ns, position), 0)
        os.fsync(self._file)
        return Sight(mark.hex(), lost_events)

    def note(self, position: int) -> None:
        """Remember that the journal holds position; called once it is durable there.

        Not synced: a process that is killed leaves its writes to the kernel, and a machine that loses its power
        leaves an older position, which says less and nothing wrong.
        """
        os.pwrite(self._file, _POSITION.pack(position), _POSITION_AT)

    def close(self) -> None:
        """Let go of the file; harmless if it was never opened."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
