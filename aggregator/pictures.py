"""What guests' screens showed: asked of agents for people, and kept beside incidents.

Knows questions in flight and one directory of PNG files, of which the newest are kept. A picture is what a guest chose
to show: it is given out as it came, only to those who may give orders, and never looked into.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import structlog

from aggregator.core.events import Event, GuestPictured
from aggregator.core.health import picture_fact
from aggregator.core.state import State
from aggregator.fleet_access import NoPictureError
from fleet.messages import PICTURE_BYTES_MAX, TakePicture
from fleet.messages import GuestPictured as Told

SIGNATURE = b"\x89PNG\r\n\x1a\n"
QUESTIONS_MAX = 16
FILES_MAX = 200  # of at most PICTURE_BYTES_MAX each
WRITES_MAX = 8
Send = Callable[[TakePicture], bool]

log = structlog.get_logger(part="pictures")


class Desk(Protocol):
    """What is needed of the fleet."""

    @property
    def state(self) -> State: ...
    def report(self, fact: Event) -> None: ...
    def now(self) -> float: ...


class Pictures:
    """Questions by id, and files INCIDENT.png."""

    def __init__(self, desk: Desk, directory: Path) -> None:
        self._desk, self._dir = desk, directory
        self._asked: dict[str, tuple[str, asyncio.Future[Told]]] = {}
        self._count = 0
        self._writes: set[asyncio.Task[None]] = set()

    async def ask(self, node: str, send: Send, uuid: str, timeout_s: float) -> bytes:
        """Return what the guest shows now, as PNG. Raises NoPictureError."""
        if len(self._asked) >= QUESTIONS_MAX:
            raise NoPictureError(f"{QUESTIONS_MAX} screenshots are being taken at once; try again")
        self._count += 1
        request = f"picture-{self._count}"
        answer: asyncio.Future[Told] = asyncio.get_running_loop().create_future()
        self._asked[request] = (node, answer)
        try:
            if not send(TakePicture(request, uuid)):
                raise NoPictureError(f"{node} cannot be asked now; try again")
            async with asyncio.timeout(timeout_s):
                told = await answer
        except TimeoutError:
            raise NoPictureError(f"{node} did not show the guest's screen within {timeout_s:g} s") from None
        finally:
            self._asked.pop(request, None)
        if fault := _fault(told.png):
            raise NoPictureError(f"{node} has no screenshot: {told.message or fault}")
        return told.png

    def told(self, node: str, message: Told) -> None:
        """Take what an agent shows: an answer, or what a run's end is to leave. What nobody waits for is nothing."""
        if message.request:
            asked = self._asked.get(message.request)
            if asked is not None and asked[0] == node and not asked[1].done():
                asked[1].set_result(message)
            return
        fact = picture_fact(self._desk.state, self._desk.now(), node, message, _fault(message.png))
        if fact is None or len(self._writes) >= WRITES_MAX:
            return
        write = asyncio.get_running_loop().create_task(self._keep(fact, message.png))
        self._writes.add(write)
        write.add_done_callback(self._writes.discard)

    async def _keep(self, fact: GuestPictured, png: bytes) -> None:
        if not fact.lacking:
            try:
                await asyncio.to_thread(self._write, fact.incident, png)
            except OSError as error:
                log.warning("a screenshot was not kept", incident=fact.incident, error=error.strerror or str(error))
                return
        self._desk.report(fact)

    def _write(self, incident: str, png: bytes) -> None:
        self._dir.mkdir(mode=0o700, exist_ok=True)
        newest = sorted(self._dir.glob("*.png"), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in newest[FILES_MAX - 1 :]:
            old.unlink()
        fresh = self._dir / f"{incident}.new"
        fresh.touch(mode=0o600)
        fresh.write_bytes(png)
        fresh.replace(self._dir / f"{incident}.png")

    async def kept(self, incident: str) -> bytes:
        """Return what was kept beside an incident. Raises NoPictureError. The caller knows that the incident exists."""
        try:
            return await asyncio.to_thread((self._dir / f"{incident}.png").read_bytes)
        except OSError:
            raise NoPictureError(f"no screenshot is kept beside incident {incident}") from None

    async def close(self) -> None:
        """Let what is being written end."""
        await asyncio.gather(*self._writes, return_exceptions=True)


def _fault(png: bytes) -> str:
    if not png.startswith(SIGNATURE):
        return "nothing that is a PNG came"
    return f"it is larger than {PICTURE_BYTES_MAX} bytes" if len(png) > PICTURE_BYTES_MAX else ""
