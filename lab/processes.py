"""Processes as /proc shows them: find, start detached, signal, wait for their real end.

Knows that a process is told apart by pid and start time, that a Z leader may have living threads, and that every
process of a laboratory carries its mark in the environment or lives in one of its namespaces.
Must not know what the processes are for.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from lab.errors import LaboratoryError

PROC = Path("/proc")
POLL_S = 0.005


class ProcessId(Struct, frozen=True):
    """A pid that cannot be mistaken for a later process with the same number."""

    pid: int
    started: int  # clock ticks since boot, field 22 of /proc/PID/stat


def _stat_fields(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the program's name, or None when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text[text.rindex(")") + 2 :].split()


def state_of(pid: int) -> str | None:
    """One letter (R S D T t Z …), or None when the process is gone; Z with threads left is D: it can still write."""
    fields = _stat_fields(pid)
    if fields is None:
        return None
    if fields[0] != "Z":
        return fields[0]
    try:
        threads = sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return None
    return "Z" if threads <= 1 else "D"


def is_alive(pid: int) -> bool:
    """Whether any thread of the process can still do something."""
    return state_of(pid) not in (None, "Z", "X")


def identify(pid: int) -> ProcessId | None:
    """The unmistakable name of a living process, or None."""
    fields = _stat_fields(pid)
    if fields is None or not is_alive(pid):
        return None
    return ProcessId(pid, int(fields[19]))


def all_pids() -> list[int]:
    """Every pid of the machine, zombies included."""
    return [int(entry) for entry in os.listdir(PROC) if entry.isdigit()]  # noqa: PTH208 -- ten times a second: plain names


def namespace_of(pid: int, kind: str) -> int | None:
    """Inode number of the process's namespace of that kind (pid, net, mnt), or None when it is gone."""
    try:
        return int(os.readlink(f"/proc/{pid}/ns/{kind}").split("[")[1][:-1])  # noqa: PTH115 -- as all_pids
    except (OSError, IndexError):
        return None


def members_of(kind: str, inode: int) -> list[int]:
    """Living processes in a namespace."""
    return [pid for pid in all_pids() if namespace_of(pid, kind) == inode and is_alive(pid)]


def pid_inside(pid: int) -> int | None:
    """The pid by which the process knows itself, in its innermost pid namespace."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    except OSError:
        pass
    return None


def marked(mark: str) -> list[int]:
    """Living processes whose environment holds the entry `mark`; this process and its ancestors left out."""
    wanted = b"\0" + mark.encode() + b"\0"
    spared = set(_own_line())
    found = []
    for pid in all_pids():
        try:
            environment = b"\0" + Path(f"/proc/{pid}/environ").read_bytes() + b"\0"
        except OSError:
            continue
        if wanted in environment and pid not in spared and is_alive(pid):
            found.append(pid)
    return found


def _own_line() -> Iterable[int]:
    pid = os.getpid()
    while pid > 0:
        yield pid
        fields = _stat_fields(pid)
        pid = int(fields[1]) if fields else 0


def send(pid: int, number: int) -> None:
    """Send a signal; a process that is gone already is no error."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Wait for a condition; raises LaboratoryError naming `what` after the time-out."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise LaboratoryError(f"{what} did not happen within {timeout_s:g} s")
        time.sleep(POLL_S)


def end_all(find: Callable[[], list[int]], timeout_s: float = 20.0) -> None:
    """SIGKILL what `find` returns, again and again until it returns nothing."""

    def nothing_left() -> bool:
        for pid in (left := find()):
            send(pid, signal.SIGKILL)
        return not left

    wait_until(nothing_left, timeout_s, "the end of every process of the laboratory")


def stop_all(find: Callable[[], list[int]], timeout_s: float = 10.0) -> None:
    """SIGSTOP what `find` returns until two looks agree that all of it stands still."""

    def all_stand() -> bool:
        moving = [pid for pid in find() if state_of(pid) != "T"]
        for pid in moving:
            send(pid, signal.SIGSTOP)
        return not moving

    wait_until(all_stand, timeout_s, "the freeze of every process of the host")


def write_secret(path: Path, text: str) -> None:
    """Write a file that only root reads."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text + "\n")


class Registry:
    """Long-lived processes of a laboratory by role, each in a file with pid and start time."""

    def __init__(self, run_dir: Path, mark: str) -> None:
        self._dir = run_dir
        self._mark = mark

    def find(self, role: str) -> int | None:
        """Pid of the living process of that role, or None."""
        try:
            pid, started = (self._dir / f"{role}.pid").read_text(encoding="ascii").split()
        except (FileNotFoundError, ValueError):
            return None
        return int(pid) if identify(int(pid)) == ProcessId(int(pid), int(started)) else None

    def note(self, role: str, pid: int) -> None:
        """Remember the process of that role."""
        known = identify(pid)
        if known is None:
            raise LaboratoryError(f"{role} ended at once; its log is in the laboratory's logs directory")
        self._dir.mkdir(parents=True, exist_ok=True)
        (self._dir / f"{role}.pid").write_text(f"{known.pid} {known.started}\n", encoding="ascii")

    def start(self, role: str, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> int:
        """Start a detached process with the laboratory's mark and remember it; stderr and stdout go to `log`."""
        log.parent.mkdir(parents=True, exist_ok=True)
        key, value = self._mark.split("=", 1)
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **(environment or {}), key: value},
                start_new_session=True,
            )
        process.returncode = 0  # it outlives us; the interpreter need not warn
        self.note(role, process.pid)
        return process.pid

    def signal(self, role: str, number: int) -> None:
        """Signal the process of that role; raises LaboratoryError when there is none."""
        pid = self.find(role)
        if pid is None:
            raise LaboratoryError(f"{role} does not run; `virtward-lab start` brings it up")
        send(pid, number)

    def stop(self, role: str, timeout_s: float = 5.0) -> None:
        """SIGTERM, and SIGKILL after the time-out; no error when it does not run."""
        pid = self.find(role)
        if pid is None:
            return
        send(pid, signal.SIGTERM)
        send(pid, signal.SIGCONT)
        try:
            wait_until(lambda: self.find(role) is None, timeout_s, f"the end of {role}")
        except LaboratoryError:
            end_all(lambda: [left for left in [self.find(role)] if left is not None])
