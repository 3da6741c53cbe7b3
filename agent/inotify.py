"""Watches a directory for files that are put in place, written or removed (inotify(7)).

The standard library has no inotify; these are the three system calls through libc. Knows nothing
of what the files are.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from collections.abc import Callable
from pathlib import Path

IN_CLOSE_WRITE, IN_MOVED_TO, IN_MOVED_FROM, IN_DELETE = 0x8, 0x80, 0x40, 0x200
IN_Q_OVERFLOW = 0x4000
_EVENT = struct.Struct("iIII")
_READ_BYTES = 64 * 1024


class DirectoryWatch:
    """Calls `changed(file name)` in the event loop; an empty name: events were lost, look at everything."""

    def __init__(self, directory: Path, changed: Callable[[str], None]) -> None:
        self.directory = directory
        self._changed = changed
        self._handle = -1

    def start(self) -> bool:
        """Begin watching; False where the directory or inotify is not to be had."""
        libc = ctypes.CDLL(None, use_errno=True)
        self._handle = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._handle < 0:
            return False
        mask = IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE
        if libc.inotify_add_watch(self._handle, os.fsencode(self.directory), mask) < 0:
            self.stop()
            return False
        asyncio.get_running_loop().add_reader(self._handle, self._read)
        return True

    def stop(self) -> None:
        """Stop watching."""
        if self._handle >= 0:
            asyncio.get_running_loop().remove_reader(self._handle)
            os.close(self._handle)
            self._handle = -1

    def _read(self) -> None:
        try:
            data = os.read(self._handle, _READ_BYTES)
        except BlockingIOError:
            return
        names = dict.fromkeys(_names(data))
        for name in names:
            self._changed(name)


def _names(data: bytes) -> list[str]:
    names, at = [], 0
    while at + _EVENT.size <= len(data):
        _watch, mask, _cookie, length = _EVENT.unpack_from(data, at)
        at += _EVENT.size
        raw = data[at : at + length].rstrip(b"\0")
        at += length
        names.append("" if mask & IN_Q_OVERFLOW else os.fsdecode(raw))
    return names
