"""The collector: reads what every guest says on whatever host it runs, stamps each line with this machine's clock.

A guest's raw serial log lies in the private directory of the host where its QEMU runs; a guest that migrates goes on in
another host's directory. One process follows all of them with inotify and appends "UNIX-SECONDS.mmm HOST TEXT" to one
file per guest. Knows files; must not know libvirt, QEMU or virtward.
Run as: python -m lab.serial_log DIRECTORY_OF_THE_LABORATORY
"""

from __future__ import annotations

import ctypes
import os
import re
import struct
import sys
import time
from pathlib import Path

WORDS = re.compile(rb"(?:boot from \d+|tick \d+|power-button|split \d+|disk-error)$")
LINE_BYTES_MAX = 4096
TORN_LINE_S_MIN = 0.05  # a line is written in far less; half of one that is older was torn by a migration
_IN_MODIFY, _IN_CREATE = 0x2, 0x100
_EVENT = struct.Struct("iIII")
_SUFFIX = ".serial"


class Source:
    """The raw log of one guest on one host."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._inode = 0
        self.rest = b""
        self.rest_since_s = 0.0

    def read_lines(self, now_s: float) -> list[bytes]:
        """Complete lines written since the last call; a file that was replaced is read from its beginning."""
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self._inode or status.st_size < self._offset:
                    self._inode, self._offset, self.rest = status.st_ino, 0, b""
                file.seek(self._offset)
                fresh = file.read()
        except FileNotFoundError:
            return []
        self._offset += len(fresh)
        *lines, rest = (self.rest + fresh).split(b"\n")
        if rest != self.rest:
            self.rest, self.rest_since_s = rest[-LINE_BYTES_MAX:], now_s
        return lines


class Collector:
    """Follows the private directories of all hosts of one laboratory."""

    def __init__(self, directory: Path) -> None:
        self._hosts = {path.parent.name: path for path in sorted((directory / "hosts").glob("*/private"))}
        self._guests_dir = directory / "guests"
        self._guests_dir.mkdir(parents=True, exist_ok=True)
        self._sources: dict[tuple[str, str], Source] = {}

    @property
    def hosts(self) -> dict[str, Path]:
        """Host name to private directory."""
        return self._hosts

    def take(self, host: str, file: str, now_s: float) -> None:
        """Read what a guest has said on a host; `now_s`: UNIX time of arrival."""
        if not file.endswith(_SUFFIX):
            return
        guest = file.removesuffix(_SUFFIX)
        source = self._sources.setdefault((guest, host), Source(self._hosts[host] / file))
        lines = source.read_lines(now_s)
        if lines and lines[0]:
            lines[0] = self._torn_beginning(guest, host, now_s) + lines[0]
        stamped = [f"{now_s:.3f} {host} {text}\n" for line in lines for text in [_text(line)] if text]
        if stamped:
            with (self._guests_dir / f"{guest}.log").open("a", encoding="ascii") as output:
                output.write("".join(stamped))

    def _torn_beginning(self, guest: str, host: str, now_s: float) -> bytes:
        """The half line that a guest left on the host it migrated away from."""
        for (name, elsewhere), source in self._sources.items():
            if name == guest and elsewhere != host and source.rest and now_s - source.rest_since_s > TORN_LINE_S_MIN:
                rest, source.rest = source.rest, b""
                return rest
        return b""

    def take_all(self, now_s: float) -> None:
        """Read everything, for the beginning and after an overflow."""
        for host, directory in self._hosts.items():
            for file in sorted(directory.iterdir()):
                self.take(host, file.name, now_s)


def _text(line: bytes) -> str:
    """What the guest said; kernel messages and the firmware's first words are left out."""
    found = WORDS.search(line.replace(b"\r", b"").strip())
    return found.group().decode("ascii") if found else ""


def follow(collector: Collector) -> None:
    """Collect for ever."""
    libc = ctypes.CDLL(None, use_errno=True)
    queue = libc.inotify_init1(0)
    watches = {}
    for host, directory in collector.hosts.items():
        watch = libc.inotify_add_watch(queue, os.fsencode(directory), _IN_MODIFY | _IN_CREATE)
        if queue < 0 or watch < 0:
            raise OSError(ctypes.get_errno(), f"cannot watch {directory}")
        watches[watch] = host
    collector.take_all(time.time())
    while True:
        events = os.read(queue, 65536)
        now_s = time.time()
        touched = dict.fromkeys(_touched(events))
        for watch, file in touched:
            if watch in watches:
                collector.take(watches[watch], file, now_s)
            else:  # the queue ran over
                collector.take_all(now_s)


def _touched(events: bytes) -> list[tuple[int, str]]:
    found, at = [], 0
    while at < len(events):
        watch, _mask, _cookie, length = _EVENT.unpack_from(events, at)
        at += _EVENT.size
        found.append((watch, os.fsdecode(events[at : at + length].rstrip(b"\0"))))
        at += length
    return found


if __name__ == "__main__":
    follow(Collector(Path(sys.argv[1])))
