"""The record of every write that was asked for: who, what, from where, dry or real, and how it ended.

Knows requests and a file; must not hold the loop up. The journal holds each fact with who wanted it; this holds
what was refused too. No body, query or token stands in it.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec
import structlog
from aiohttp import web
from msgspec import Struct

from aggregator.api.calls import is_dry

FILE_BYTES_MAX = 16 * 1024 * 1024
WRITES_WAITING_MAX = 1000
PATH_CHARACTERS_MAX = 500

_log = structlog.get_logger("aggregator.audit")


class AuditLine(Struct, frozen=True):
    """One line. at: fleet time. status: of the answer."""

    at: float
    who: str
    source: str
    method: str
    path: str
    dry: bool
    status: int


class Audit:
    """Keeps the lines in a file and one older file beside it; without a file they are only logged."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._waiting = 0
        self._lock = asyncio.Lock()

    async def note(self, at: float, who: str, request: web.Request, status: int) -> None:
        """Keep one line; a disk that fails or hangs holds up nothing but this answer, and is told in the log."""
        path = request.rel_url.raw_path[:PATH_CHARACTERS_MAX]
        line = AuditLine(at, who, str(request.remote), request.method, path, is_dry(request), status)
        _log.info("write", **msgspec.structs.asdict(line))
        if self._path is None or self._waiting >= WRITES_WAITING_MAX:
            return
        self._waiting += 1
        try:
            async with self._lock:
                await asyncio.to_thread(_append, self._path, msgspec.json.encode(line) + b"\n")
        except OSError as error:
            _log.warning("audit line not kept", file=str(self._path), reason=error.strerror or str(error))
        finally:
            self._waiting -= 1


def _append(path: Path, line: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        os.write(handle, line)
        full = os.fstat(handle).st_size >= FILE_BYTES_MAX
    finally:
        os.close(handle)
    if full:
        path.replace(path.with_suffix(".old"))
