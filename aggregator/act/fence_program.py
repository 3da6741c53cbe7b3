"""Run one fence_* program to its end, within a time, and take what it said. Blocking: for a thread.

Knows processes; must not know what an answer means. Parameters go to stdin, never to argv. When the
program is over, or its time is, its whole process group is killed *before* it is reaped, so that no
child of it can act later and the group's number cannot belong to anybody else. `timeout` stands between
us and it, so that a program whose aggregator was killed ends too.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import IO

from aggregator.act.fence_answer import ProgramEnded

OUTPUT_BYTES_MAX = 64 * 1024
INPUT_BYTES_MAX = 16 * 1024  # fits a pipe: writing it never waits for the program
DRAIN_S_MAX = 0.5  # what a program's pipe may still hold when it has ended
ORPHAN_S_MAX = 1.0  # how much longer a program lives whose aggregator is dead
REAP_S_MAX = 5.0  # a process that stays in the kernel longer is left behind


def run_program(path: Path, text: str, timeout_s: float) -> ProgramEnded:
    """Run path with text on its stdin; never raises for what the program does. timeout_s: seconds."""
    environment = {
        "LC_ALL": "C",
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": os.environ.get("HOME", "/"),
        "PYTHONWARNINGS": "ignore",  # fence programs are Python; what it deprecates is no answer of a device
    }
    deadline = time.monotonic() + timeout_s
    if not os.access(path, os.X_OK):
        return ProgramEnded(None, missing=True, trouble=f"{path} is not there or may not be run; install fence-agents")
    try:
        process = subprocess.Popen(
            ["timeout", "--signal=KILL", f"{timeout_s + ORPHAN_S_MAX:.1f}", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        return ProgramEnded(None, missing=True, trouble=f"{path}: cannot be run: {error.strerror or error}")
    timed_out, pipes = True, _Pipes(process)
    try:
        _feed(process.stdin, text)
        timed_out = not _watch(process, pipes, deadline)
    finally:
        _kill_group(process.pid)
        pipes.read_until(time.monotonic() + DRAIN_S_MAX)
        pipes.close()
        reaped = _reap(process)
    trouble = "" if reaped else f"process {process.pid} could not be killed: it hangs in the kernel"
    return ProgramEnded(
        None if timed_out else process.returncode,
        pipes.text(process.stdout),
        pipes.text(process.stderr),
        timed_out=timed_out,
        too_much=pipes.too_much,
        trouble=trouble,
    )


class _Pipes:
    """Both outputs, read side by side; what is over the limit is read and forgotten."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.too_much = False
        self._kept: dict[int, bytearray] = {}
        self._streams = [stream for stream in (process.stdout, process.stderr) if stream is not None]
        self._selector = selectors.DefaultSelector()
        for stream in self._streams:
            os.set_blocking(stream.fileno(), False)
            self._kept[id(stream)] = bytearray()
            self._selector.register(stream, selectors.EVENT_READ)

    def wait_with(self, fd: int, deadline: float) -> bool:
        """Read until fd is readable (True) or the deadline has passed (False)."""
        self._selector.register(fd, selectors.EVENT_READ)
        try:
            while (left := deadline - time.monotonic()) > 0:
                if any(key.fd == fd or self._read(key.fileobj) for key, _ in self._selector.select(left)):
                    return True
            return False
        finally:
            self._selector.unregister(fd)

    def read_until(self, deadline: float) -> None:
        """Read what is left, until all is read or the deadline has passed."""
        while self._selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in self._selector.select(left):
                self._read(key.fileobj)

    def _read(self, stream: object) -> bool:
        """Take one portion; always False, so that it can stand beside the question who has ended."""
        if not isinstance(stream, BufferedReader):
            return False
        try:
            data = os.read(stream.fileno(), 65536)
        except BlockingIOError:
            return False
        kept = self._kept[id(stream)]
        room = OUTPUT_BYTES_MAX - len(kept)
        kept += data[:room]
        self.too_much = self.too_much or len(data) > room
        if not data:
            self._selector.unregister(stream)
        return False

    def text(self, stream: IO[bytes] | None) -> str:
        return self._kept.get(id(stream), bytearray()).decode(errors="replace")

    def close(self) -> None:
        self._selector.close()
        for stream in self._streams:
            stream.close()


def _feed(stdin: IO[bytes] | None, text: str) -> None:
    if stdin is None:
        return
    with suppress(BrokenPipeError):  # a program that does not read its parameters is judged by its answer
        stdin.write(text.encode())
        stdin.close()


def _watch(process: subprocess.Popen[bytes], pipes: _Pipes, deadline: float) -> bool:
    ended = os.pidfd_open(process.pid)
    try:
        return pipes.wait_with(ended, deadline)
    finally:
        os.close(ended)


def _kill_group(leader: int) -> None:
    with suppress(ProcessLookupError):  # nobody left
        os.killpg(leader, signal.SIGKILL)


def _reap(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(REAP_S_MAX)
    except subprocess.TimeoutExpired:
        return False
    return True
