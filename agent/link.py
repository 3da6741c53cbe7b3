"""The WebSocket to an aggregator: opened, kept, opened again within 5 s with jitter.

Knows aiohttp, the URLs and the token; knows no message's meaning. Frames go through fleet.codec;
an unreadable one ends the connection. Only the newest connection's sends are performed.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import aiohttp
import structlog

from agent.keeper_types import LinkClosed, LinkOpened, MessageReceived
from fleet.codec import FROM_AGENT, FROM_AGGREGATOR, CodecError
from fleet.messages import FRAME_BYTES_MAX, FromAgent
from fleet.service import ServiceError

PATH = "/agent/v1"
CONNECT_TIMEOUT_S = 3.0
CLOSE_TIMEOUT_S = 1.0
RECONNECT_S_MIN, RECONNECT_S_MAX = 0.2, 4.5  # with the connect time-outs of a dead first URL still near 5 s
SEND_QUEUE_MAX = 4000
UNAUTHORIZED = (401, 403)

log = structlog.get_logger(part="link")
LinkFact = LinkOpened | LinkClosed | MessageReceived


class Link:
    """Keeps one connection to one of the aggregators and hands everything on as facts."""

    def __init__(self, urls: tuple[str, ...], token: str, facts: Callable[[LinkFact], None]) -> None:
        self._urls = urls
        self._token = token
        self._facts = facts
        self._number = 0
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._outbox: asyncio.Queue[bytes] = asyncio.Queue(SEND_QUEUE_MAX)
        self._wait_s = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin connecting."""
        self._task = asyncio.get_running_loop().create_task(self._keep())

    async def stop(self) -> None:
        """Send what is queued (bounded), then close."""
        if self._socket is not None:
            for _ in range(20):
                if self._outbox.empty():
                    break
                await asyncio.sleep(0.02)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def send(self, link: int, message: FromAgent) -> None:
        """Queue a message if that connection is still the present one."""
        if link != self._number or self._socket is None:
            return
        try:
            self._outbox.put_nowait(FROM_AGENT.encode(message))
        except (asyncio.QueueFull, CodecError) as error:
            self.close(link, f"cannot send: {str(error) or 'the queue is full'}", 0.0)

    def close(self, link: int, reason: str, wait_s: float) -> None:
        """End that connection; connect again no sooner than wait_s from now."""
        if link == self._number and self._socket is not None:
            self._wait_s = wait_s
            log.warning("link closed by us", reason=reason)
            socket, self._socket = self._socket, None
            self._closing = asyncio.get_running_loop().create_task(_close(socket))

    async def _keep(self) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            turn = random.randrange(len(self._urls))
            while True:
                if await self._talk(session, self._urls[turn % len(self._urls)]):
                    self._wait_s = max(self._wait_s, RECONNECT_S_MIN)
                turn += 1
                await asyncio.sleep(max(self._wait_s, random.uniform(RECONNECT_S_MIN, self._pause_s_max())))
                self._wait_s = 0.0

    def _pause_s_max(self) -> float:
        """The pause before the next try: each of several aggregators is asked within the 5 s."""
        return max(2 * RECONNECT_S_MIN, RECONNECT_S_MAX / len(self._urls) / 2)

    async def _talk(self, session: aiohttp.ClientSession, url: str) -> bool:
        """Hold one connection to its end; False if there never was one."""
        headers = {"Authorization": f"Bearer {self._token}"}
        try:
            opening = session.ws_connect(
                url.rstrip("/") + PATH,
                headers=headers,
                max_msg_size=FRAME_BYTES_MAX + 1,
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT_S),
            )
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                socket = await opening
        except aiohttp.WSServerHandshakeError as error:
            reason = "the aggregator does not accept this node's token" if error.status in UNAUTHORIZED else str(error)
            log.warning("aggregator refused the connection", url=url, reason=reason)
            return False
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            log.info("aggregator not reached", url=url, reason=str(error) or "no answer")
            return False
        self._number += 1
        number, self._socket, self._outbox = self._number, socket, asyncio.Queue(SEND_QUEUE_MAX)
        log.info("link opened", url=url, link=number)
        sender = asyncio.get_running_loop().create_task(_send(socket, self._outbox))
        self._facts(LinkOpened(number))
        try:
            await self._receive(socket, number)
        finally:
            sender.cancel()
            if self._number == number:
                self._socket = None
            self._facts(LinkClosed(number))
            await asyncio.shield(_close(socket))
        return True

    async def _receive(self, socket: aiohttp.ClientWebSocketResponse, number: int) -> None:
        async for frame in socket:
            if frame.type is not aiohttp.WSMsgType.BINARY:
                return
            try:
                message = FROM_AGGREGATOR.decode(frame.data)
            except CodecError as error:
                log.warning("unreadable frame", error=str(error))
                return
            self._facts(MessageReceived(number, message))


async def _send(socket: aiohttp.ClientWebSocketResponse, outbox: asyncio.Queue[bytes]) -> None:
    while True:
        frame = await outbox.get()
        try:
            await socket.send_bytes(frame)
        except (ConnectionError, aiohttp.ClientError):
            await _close(socket)
            return


async def _close(socket: aiohttp.ClientWebSocketResponse) -> None:
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await socket.close()
    except (TimeoutError, aiohttp.ClientError, ConnectionError):
        return


def check_urls(urls: tuple[str, ...]) -> tuple[str, ...]:
    """Return the URLs, or raise ServiceError for one that is no WebSocket URL."""
    if not urls:
        raise ServiceError("aggregators: name at least one URL, like ws://10.0.0.9:8421")
    for url in urls:
        if not url.startswith(("ws://", "wss://")):
            raise ServiceError(f"aggregators: {url!r} is no URL like ws://10.0.0.9:8421")
    return urls
