"""Connections on which nobody asks anything: how many there may be, and for how long.

A crowd that connects and says nothing, or says it slowly, costs a file and some memory each, which honest callers
then lack. Of those that wait the oldest gives way. Knows transports and times, nothing of HTTP.
"""

from __future__ import annotations

import asyncio
from collections import Counter

from msgspec import Struct

FIRST_REQUEST_S_MAX = 10.0  # until the headers are through
NEXT_REQUEST_S_MAX = 75.0
WAITING_MAX = 1000
WAITING_PER_ADDRESS_MAX = 128
SWEEP_S = 1.0


class _Waiting(Struct):
    transport: asyncio.BaseTransport
    address: str
    due_s: float


class Idle:
    """Keeps account of the connections that wait for a request. Times are the event loop's."""

    def __init__(self) -> None:
        self._waiting: dict[int, _Waiting] = {}  # by the identity of the transport, the oldest first
        self._addresses: dict[int, str] = {}  # of those on which a request is under way
        self._counts: Counter[str] = Counter()
        self.closed = 0

    @property
    def count(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def opened(self, transport: asyncio.BaseTransport, address: str) -> None:
        """Take in a new connection; where there are too many that wait, the oldest is closed."""
        self._wait(transport, address, FIRST_REQUEST_S_MAX)

    def asked(self, transport: asyncio.BaseTransport | None) -> None:
        """Take in that a request has come in."""
        waiting = self._drop(id(transport))
        if waiting is not None:
            self._addresses[id(transport)] = waiting.address

    def answered(self, transport: asyncio.BaseTransport | None) -> None:
        """Take in that it was answered: the connection waits again."""
        address = self._addresses.pop(id(transport), None)
        if address is not None and transport is not None and not transport.is_closing():
            self._wait(transport, address, NEXT_REQUEST_S_MAX)

    async def sweep(self) -> None:
        """Close what has waited for too long, for ever."""
        while True:
            await asyncio.sleep(SWEEP_S)
            now_s = asyncio.get_running_loop().time()
            for key, waiting in list(self._waiting.items()):
                if waiting.transport.is_closing():
                    self._drop(key)
                elif waiting.due_s <= now_s:
                    self._close(key)

    def _wait(self, transport: asyncio.BaseTransport, address: str, seconds: float) -> None:
        if self._counts[address] >= WAITING_PER_ADDRESS_MAX:
            self._close(next(key for key, waiting in self._waiting.items() if waiting.address == address))
        elif len(self._waiting) >= WAITING_MAX:
            self._close(next(iter(self._waiting)))
        due_s = asyncio.get_running_loop().time() + seconds
        self._waiting[id(transport)] = _Waiting(transport, address, due_s)
        self._counts[address] += 1

    def _drop(self, key: int) -> _Waiting | None:
        waiting = self._waiting.pop(key, None)
        if waiting is not None:
            self._counts[waiting.address] -= 1
            if not self._counts[waiting.address]:
                del self._counts[waiting.address]
        return waiting

    def _close(self, key: int) -> None:
        waiting = self._drop(key)
        if waiting is not None and not waiting.transport.is_closing():
            self.closed += 1
            waiting.transport.close()
