"""The observer: keeps the ground truth's connections open and answers whoever asks, one sample per line sent.

A monitor socket takes one client, so one process holds them all, and any number of programs may ask it.
Run as: python -m lab.observer NAME
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from pathlib import Path

import msgspec

from lab.errors import LaboratoryError
from lab.layout import Layout
from lab.processes import Registry, namespace_of
from lab.truth import GroundTruth, Sample, twice

ROLE = "observer"
ANSWER_TIMEOUT_S = 10.0
LOOK_EVERY_S = 0.25


def socket_path(layout: Layout) -> Path:
    """Where the observer listens."""
    return layout.run_dir / "observer.sock"


def twice_path(layout: Layout) -> Path:
    """Where the observer writes every sample in which a VM ran twice: "UNIX-SECONDS.mmm NAME…"."""
    return layout.logs_dir / "twice"


class Observer:
    """A client's end: one open connection, one sample per call."""

    def __init__(self, layout: Layout) -> None:
        self._path = socket_path(layout)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(ANSWER_TIMEOUT_S)
        try:
            self._socket.connect(str(self._path))
        except OSError as error:
            self._socket.close()
            raise LaboratoryError(
                f"the observer does not answer on {self._path} ({error}); `virtward-lab up` starts it"
            ) from None
        self._answers = self._socket.makefile("rb")

    def sample(self) -> Sample:
        """Ground truth now. Raises LaboratoryError when the observer is gone."""
        try:
            self._socket.sendall(b"sample\n")
            line = self._answers.readline()
        except OSError as error:
            raise LaboratoryError(f"the observer does not answer on {self._path} ({error})") from None
        if not line:
            raise LaboratoryError(f"the observer on {self._path} has ended")
        return msgspec.json.decode(line, type=Sample)

    def close(self) -> None:
        """Close the connection."""
        self._answers.close()
        self._socket.close()


def pid_namespaces(layout: Layout) -> dict[str, int]:
    """Host name to pid namespace, of the hosts that run now."""
    registry = Registry(layout.run_dir, layout.mark)
    found = {}
    for directory in sorted((layout.dir / "hosts").iterdir()):
        starter = registry.find(f"host@{directory.name}")
        inode = namespace_of(starter, "pid_for_children") if starter is not None else None
        if inode is not None:
            found[directory.name] = inode
    return found


async def serve(layout: Layout) -> None:
    """Answer for ever."""
    hosts = [directory.name for directory in sorted((layout.dir / "hosts").iterdir())]
    truth = GroundTruth({host: layout.host_private(host) for host in hosts}, {})

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while await reader.readline():
                truth.follow(pid_namespaces(layout))
                writer.write(msgspec.json.encode(truth.sample()) + b"\n")
                await writer.drain()
        writer.close()

    async def stay_connected() -> None:
        """Look also when nobody asks: a QEMU is frozen without warning, and then only an open connection knows."""
        while True:
            truth.follow(pid_namespaces(layout))
            _note_twice(layout, truth.sample())
            await asyncio.sleep(LOOK_EVERY_S)

    path = socket_path(layout)
    path.unlink(missing_ok=True)
    looking = asyncio.create_task(stay_connected())
    server = await asyncio.start_unix_server(answer, path)
    async with server:
        await asyncio.gather(looking, server.serve_forever())


def _note_twice(layout: Layout, sample: Sample) -> None:
    names = twice(sample)
    if names:
        with twice_path(layout).open("a", encoding="utf-8") as file:
            file.write(f"{sample.at_s:.3f} {' '.join(names)}\n")


if __name__ == "__main__":
    asyncio.run(serve(Layout(sys.argv[1])))
