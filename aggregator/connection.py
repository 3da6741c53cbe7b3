"""One agent's WebSocket: bounded both ways, closed the moment a bound is broken.

Knows frames, queues and times; must not know what a message means. An order that waits here too long, or
that is still here when the connection ends, provably never left: that is reported as a fact.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from aiohttp import WSMessage, WSMsgType, web
from msgspec import Struct

from aggregator.core.actions import ACTION_AGE_S_MAX, SendOrder
from aggregator.core.events import Event, OrderDropped
from aggregator.leadership_proof import LeadershipProofs
from fleet.codec import FROM_AGENT, FROM_AGGREGATOR, CodecError
from fleet.messages import Challenge, FromAgent, FromAggregator
from fleet.sealing import Seal, SealError

FRAMES_WAITING_MAX = 256
BYTES_WAITING_MAX = 16 * 1024 * 1024
WRITE_S_MAX = 10.0  # an agent that takes nothing for so long is not served any more
CLOSE_S_MAX = 2.0
FRAMES_A_SECOND_MAX = 200.0
FRAMES_AT_ONCE_MAX = 1000.0


class ConnectionEndedError(Exception):
    """The connection is over. how: as SessionEnded names it; why: for the log; by_it: by the agent's end."""

    def __init__(self, how: str, why: str, *, by_it: bool = False) -> None:
        super().__init__(why)
        self.how, self.why, self.by_it = how, why, by_it


class BadFrameError(Exception):
    """What came is not the protocol; its text is one sentence, code is for the Refusal."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class _Frame(Struct):
    data: bytes
    order: SendOrder | None


class Connection:
    """Reads and writes one agent's frames. now: fleet time; report: takes facts that must not be lost.

    proofs: prove the leaderships that are told; None where agents speak openly.
    """

    def __init__(
        self,
        socket: web.WebSocketResponse,
        peer: str,
        now: Callable[[], float],
        report: Callable[[Event], None],
        proofs: LeadershipProofs | None = None,
    ) -> None:
        self.peer, self._proofs = peer, proofs
        self._seal: Seal | None = None  # of a relayed connection, once its challenge is out
        self.bytes_read = self.frames_read = 0
        self._socket, self._now, self._report = socket, now, report
        self._out: deque[_Frame] = deque()
        self._bytes_waiting = 0
        self._something = asyncio.Event()
        self._reader: asyncio.Task[object] | None = None  # while it waits for a frame
        self._ended: ConnectionEndedError | None = None
        self._allowance, self._allowed_at = FRAMES_AT_ONCE_MAX, asyncio.get_running_loop().time()
        self._writer = asyncio.create_task(self._write())

    @property
    def open(self) -> bool:
        """Whether anything may still be sent."""
        return self._ended is None and not self._socket.closed

    async def challenge(self, nonce: str, seal: Seal) -> None:
        """Begin a relayed connection: the challenge goes out bare, every frame after it is sealed."""
        await self._socket.send_bytes(FROM_AGGREGATOR.encode(Challenge(nonce)))
        self._seal = seal

    # --- writing

    def send(self, message: FromAggregator, order: SendOrder | None = None) -> bool:
        """Queue a message; False if it will never be sent: the connection is over, or its reader too slow."""
        if not self.open:
            return False
        try:
            data = FROM_AGGREGATOR.encode(message if self._proofs is None else self._proofs.prove(message))
        except CodecError:
            return False  # larger than any frame: it cannot be said
        if len(self._out) >= FRAMES_WAITING_MAX or self._bytes_waiting + len(data) > BYTES_WAITING_MAX:
            self.end("reset", "the agent reads too slowly")
            return False
        self._out.append(_Frame(data, order))
        self._bytes_waiting += len(data)
        self._something.set()
        return True

    def end(self, how: str, why: str) -> None:
        """End the connection for this reason; the first reason counts."""
        if self._ended is None:
            self._ended = ConnectionEndedError(how, why)
            self._something.set()
            if self._reader is not None:
                self._reader.cancel()

    async def _write(self) -> None:
        while self._ended is None:
            await self._something.wait()
            self._something.clear()
            while self._out and self._ended is None:
                frame = self._out.popleft()
                self._bytes_waiting -= len(frame.data)
                if frame.order is not None and self._now() - frame.order.decided_at > ACTION_AGE_S_MAX:
                    self._dropped(frame.order, "it waited too long to be sent")
                    continue
                try:
                    async with asyncio.timeout(WRITE_S_MAX):
                        await self._socket.send_bytes(self._sealed(frame.data))
                except TimeoutError:
                    self.end("reset", f"the agent took nothing for {WRITE_S_MAX:.0f} s")
                except (ConnectionError, RuntimeError) as error:
                    self.end("reset", str(error) or type(error).__name__)

    def _sealed(self, data: bytes) -> bytes:
        """Seal what is sent now: numbers are given in the order of sending, dropped frames have none."""
        return data if self._seal is None else self._seal.close(data)

    def _dropped(self, order: SendOrder, why: str) -> None:
        self._report(OrderDropped(at=self._now(), order_id=order.order.order_id, why=why))

    # --- reading

    async def receive(self, seconds_max: float) -> FromAgent:
        """Return the next message; ConnectionEndedError or BadFrameError. seconds_max: the longest silence."""
        if self._ended is not None:
            raise self._ended
        frame = await self._next_frame(seconds_max)
        if frame.type is WSMsgType.BINARY:
            return self._decode(frame.data)
        if frame.type is WSMsgType.TEXT:
            raise BadFrameError("bad-frame", "a text frame came; frames are binary MessagePack")
        if frame.type is WSMsgType.ERROR or self._socket.close_code not in (None, 1000, 1001):
            if self._socket.close_code == 1009:  # noqa: PLR2004 (RFC 6455: message too big)
                raise ConnectionEndedError("reset", "a frame was larger than the protocol allows")
            raise ConnectionEndedError(
                "reset", f"the connection broke (close code {self._socket.close_code})", by_it=True
            )
        raise ConnectionEndedError("closed", "the agent closed the connection", by_it=True)

    async def _next_frame(self, seconds_max: float) -> WSMessage:
        task = self._reader = asyncio.current_task()
        try:
            async with asyncio.timeout(seconds_max):
                return await self._socket.receive()
        except TimeoutError:
            raise ConnectionEndedError("timeout", f"nothing was heard for {seconds_max:.0f} s") from None
        except asyncio.CancelledError:
            if self._ended is None or task is None or task.uncancel() > 0:
                raise
            raise self._ended from None  # end() woke us
        finally:
            self._reader = None

    def _decode(self, data: bytes) -> FromAgent:
        now = asyncio.get_running_loop().time()
        self._allowance = min(FRAMES_AT_ONCE_MAX, self._allowance + (now - self._allowed_at) * FRAMES_A_SECOND_MAX)
        self._allowed_at = now
        self._allowance -= 1
        if self._allowance < 0:
            raise BadFrameError("rate", f"more than {FRAMES_A_SECOND_MAX:.0f} frames a second came")
        self.frames_read += 1
        self.bytes_read += len(data)
        try:
            return FROM_AGENT.decode(data if self._seal is None else self._seal.open(data))
        except SealError as error:
            raise BadFrameError("seal", str(error)) from None
        except CodecError as error:
            raise BadFrameError("bad-frame", str(error)) from None

    # --- the end

    async def close(self, last: FromAggregator | None = None) -> None:
        """Close the socket, with a last word if there is one. Orders that never left are reported."""
        self.end("closed", "closed by the aggregator")
        await asyncio.wait({self._writer}, timeout=WRITE_S_MAX)
        self._writer.cancel()
        for frame in self._out:
            if frame.order is not None:
                self._dropped(frame.order, "the connection ended before it was sent")
        self._out.clear()
        try:
            async with asyncio.timeout(CLOSE_S_MAX):
                if last is not None and not self._socket.closed:
                    await self._socket.send_bytes(self._sealed(FROM_AGGREGATOR.encode(last)))
                await self._socket.close()
        except (TimeoutError, ConnectionError, RuntimeError):
            pass  # nobody listens any more
