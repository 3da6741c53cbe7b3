"""QEMU processes of this host as /proc shows them, whatever libvirt believes.

Knows /proc and pidfds. A process belongs to this host if it lives in the agent's own network
namespace: containers and laboratories put other hosts' QEMUs into the same process table.
Gone means: pidfd readable, or no process, or state Z with exactly one task (a Z leader's other
threads still write to the disk).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from msgspec import Struct

CMDLINE_BYTES_MAX = 256 * 1024
PID_DIR = Path("/run/libvirt/qemu")
_UUID = re.compile(rb"(?:^|\0)-uuid\0([0-9a-fA-F-]{36})(?:\0|$)")
_GUEST = re.compile(rb"(?:^|\0)-name\0(?:guest=)?([^,\0]*)")


class QemuProcess(Struct, frozen=True):
    """One living QEMU of this host."""

    pid: int
    started: int  # clock ticks since the kernel's boot: with the pid it names the process for ever
    uuid: str
    name: str

    @property
    def token(self) -> str:
        """Return the name of the process that no other process will ever have on this boot."""
        return f"{self.pid}:{self.started}"


def read_start(pid: int) -> int | None:
    """Return when the process started (clock ticks), or None if it is gone by the module's definition."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat[stat.rfind(")") + 2 :].split()
    if fields[0] in ("Z", "X") and _tasks(pid) <= 1:
        return None
    return int(fields[19])


def _tasks(pid: int) -> int:
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return 0


def read_qemu(pid: int) -> QemuProcess | None:
    """Return the process if it is a living QEMU with a uuid, in whatever namespace."""
    try:
        with Path(f"/proc/{pid}/cmdline").open("rb") as file:
            cmdline = file.read(CMDLINE_BYTES_MAX)
    except OSError:
        return None
    uuid = _UUID.search(cmdline)
    if uuid is None:
        return None
    started = read_start(pid)
    if started is None:
        return None
    name = _GUEST.search(cmdline)
    text = name.group(1).decode(errors="replace") if name else ""
    return QemuProcess(pid, started, uuid.group(1).decode().lower(), text)


def namespace_of(pid: int | str) -> str:
    """Return the identity of the process's network namespace, empty if it cannot be read."""
    try:
        return str(Path(f"/proc/{pid}/ns/net").readlink())
    except OSError:
        return ""


def scan() -> list[QemuProcess]:
    """Return every living QEMU of this host. Takes about 50 µs per process of the machine."""
    own = namespace_of("self")
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        qemu = read_qemu(int(entry.name))
        if qemu is not None and namespace_of(qemu.pid) in (own, ""):
            found.append(qemu)
    return found


def open_pidfd(process: QemuProcess) -> int | None:
    """Return a pidfd of exactly that process, or None if it is gone by now."""
    try:
        handle = os.pidfd_open(process.pid)
    except OSError:
        return None
    if read_start(process.pid) != process.started:  # the pid was given to another process meanwhile
        os.close(handle)
        return None
    return handle


PID_FILES = (Path("/run/libvirtd.pid"), Path("/run/virtqemud.pid"))
STATUS_DIR = Path("/run/libvirt/qemu")


def starter_is_dead(name: str, pid_files: tuple[Path, ...] = PID_FILES, status_dir: Path = STATUS_DIR) -> bool:
    """Say whether the libvirtd that was starting this VM has died and another one runs now.

    libvirtd 9.0 killed between writing a domain's status file and starting its QEMU leaves a domain
    that stays "paused (starting up)" for ever, that nobody works on and that nothing can end
    (destroy and undefine fail after 30 s; reproduced). The status file is then older than the pid
    file of the libvirtd that runs now. Only with no QEMU in /proc does this mean anything.
    """
    try:
        status_s = (status_dir / f"{name}.xml").stat().st_mtime
    except OSError:
        return False
    for path in pid_files:
        try:
            pid, begun_s = path.read_text(encoding="ascii").strip(), path.stat().st_mtime
        except (OSError, UnicodeDecodeError):
            continue
        if pid.isdigit() and read_start(int(pid)) is not None:
            return status_s < begun_s
    return False


def process_by_pid_file(name: str, uuid: str) -> QemuProcess | None:
    """Return the living QEMU that libvirt's pid file names, if it is really this VM's."""
    try:
        text = (PID_DIR / f"{name}.pid").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    process = read_qemu(int(text)) if text.isdigit() else None
    return process if process is not None and process.uuid == uuid else None
