"""The WebSocket to an aggregator: opened, kept, opened again within 5 s with jitter; or, on order, through a peer.

Knows aiohttp, the URLs and what to show; knows no message's meaning. Frames go through fleet.codec;
an unreadable one ends the connection. Only the newest connection's sends are performed.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable
from urllib.parse import quote

import aiohttp
import structlog

from agent.access import Access
from agent.joining import Enrolment
from agent.keeper_types import LinkClosed, LinkOpened, MessageReceived, OpenRelay
from agent.relay import RELAY_PATH
from fleet.codec import FROM_AGENT, FROM_AGGREGATOR, CodecError
from fleet.identity import Role
from fleet.messages import FRAME_BYTES_MAX, BeatAnswer, Challenge, FromAgent, Welcome
from fleet.sealing import NONCE_CHARACTERS, SEAL_BYTES, Claim, Seal, SealError, seal_of, token_digest
from fleet.service import ServiceError

PATH = "/agent/v1"
CONNECT_TIMEOUT_S = 3.0
CLOSE_TIMEOUT_S = 1.0
RECONNECT_S_MIN, RECONNECT_S_MAX = 0.2, 4.5  # with the connect time-outs of a dead first URL still near 5 s
SEND_QUEUE_MAX = 4000
UNAUTHORIZED = (401, 403)
TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)

log = structlog.get_logger(part="link")
LinkFact = LinkOpened | LinkClosed | MessageReceived


class Link:
    """Keeps one connection to one of the aggregators and hands everything on as facts."""

    def __init__(
        self,
        node: str,
        urls: tuple[str, ...],
        access: Access,
        facts: Callable[[LinkFact], None],
        enrolment: Enrolment | None = None,
    ) -> None:
        self._node = node
        self._urls = urls
        self.url = ""  # of the aggregator that took our last own connection
        self._access, self._enrolment = access, enrolment
        self._refused = False  # the last connection that was refused, was for who we are
        self._facts = facts
        self._number = 0
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._outbox: asyncio.Queue[bytes] = asyncio.Queue(SEND_QUEUE_MAX)
        self._wait_s = 0.0
        self._task: asyncio.Task[None] | None = None
        self._relay: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None

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
        tasks = [task for task in (self._task, self._relay) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def open_relay(self, effect: OpenRelay) -> None:
        """Connect through a peer; an older attempt is given up. Our own way goes on being tried."""
        if self._relay is not None:
            self._relay.cancel()
        self._relay = asyncio.get_running_loop().create_task(self._talk_through(effect))

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
        async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
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
        """Hold one connection of our own to its end; False if there never was one."""
        if self._enrolment is not None and not await self._enrolment.prepare(url, refused=self._refused):
            return False
        socket = await self._connect(session, url.rstrip("/") + PATH, self._access.headers(), Role.AGGREGATOR)
        if socket is None:
            return False
        self.url = url
        await self._hold(socket, url)
        return True

    async def _talk_through(self, effect: OpenRelay) -> None:
        """Hold one connection that a peer carries; every frame of it is sealed."""
        claim = Claim(self._node, effect.peer, secrets.token_hex(NONCE_CHARACTERS // 2))
        scheme = "wss" if self._access.secure else "ws"
        url = f"{scheme}://{effect.address}{RELAY_PATH}?ticket={quote(effect.ticket)}"
        async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
            socket = await self._connect(session, url, {"Authorization": claim.header()}, Role.AGENT)
            if socket is None:
                return
            challenge = await _challenge(socket)
            if challenge is None:
                log.warning("relay not opened", peer=effect.peer, reason="no challenge came from the aggregator")
                await _close(socket)
                return
            seal = seal_of(claim, challenge, token_digest(self._access.relay_secret), at_agent=True)
            await self._hold(socket, url, effect.peer, seal)

    async def _connect(
        self, session: aiohttp.ClientSession, url: str, headers: dict[str, str], role: Role
    ) -> aiohttp.ClientWebSocketResponse | None:
        """Return an open WebSocket to somebody of this role, or None and a line in the log."""
        shown = url.partition("?")[0]
        try:
            opening = session.ws_connect(
                url,
                headers=headers,
                max_msg_size=FRAME_BYTES_MAX + SEAL_BYTES + 1,
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT_S),
                ssl=self._access.outgoing,
                server_hostname=self._access.server_name(role),
            )
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                socket = await opening
        except aiohttp.WSServerHandshakeError as error:
            unknown = error.status in UNAUTHORIZED
            self._refused = unknown and role is Role.AGGREGATOR
            reason = "the aggregator does not accept this node's credentials" if unknown else str(error)
            log.warning("aggregator refused the connection", url=shown, reason=reason)
            return None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            log.info("aggregator not reached", url=shown, reason=str(error) or "no answer")
            return None
        self._refused = self._refused and role is not Role.AGGREGATOR
        return socket

    async def _hold(
        self, socket: aiohttp.ClientWebSocketResponse, url: str, via: str = "", seal: Seal | None = None
    ) -> None:
        """Make a connection the present one and hold it to its end; the one before it is closed."""
        if self._socket is not None:
            self._closing = asyncio.get_running_loop().create_task(_close(self._socket))
        self._number += 1
        number, self._socket, self._outbox = self._number, socket, asyncio.Queue(SEND_QUEUE_MAX)
        log.info("link opened", url=url.partition("?")[0], link=number, via=via)
        sender = asyncio.get_running_loop().create_task(_send(socket, self._outbox, seal))
        self._facts(LinkOpened(number, via))
        try:
            await self._receive(socket, number, seal)
        finally:
            sender.cancel()
            if self._number == number:
                self._socket = None
            self._facts(LinkClosed(number))
            await asyncio.shield(_close(socket))

    async def _receive(self, socket: aiohttp.ClientWebSocketResponse, number: int, seal: Seal | None) -> None:
        async for frame in socket:
            if frame.type is not aiohttp.WSMsgType.BINARY:
                return
            try:
                message = FROM_AGGREGATOR.decode(frame.data if seal is None else seal.open(frame.data))
            except (CodecError, SealError) as error:
                log.warning("unreadable frame", error=str(error))
                return
            if self._enrolment is not None and isinstance(message, BeatAnswer | Welcome) and message.trust:
                self._enrolment.trust_told(message.trust)
            self._facts(MessageReceived(number, message))


async def _challenge(socket: aiohttp.ClientWebSocketResponse) -> str | None:
    """Return what the aggregator's first frame challenges us with; None if there is none."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            frame = await socket.receive()
        message = FROM_AGGREGATOR.decode(frame.data) if frame.type is aiohttp.WSMsgType.BINARY else None
    except (TimeoutError, CodecError):
        return None
    return message.nonce if isinstance(message, Challenge) else None


async def _send(socket: aiohttp.ClientWebSocketResponse, outbox: asyncio.Queue[bytes], seal: Seal | None) -> None:
    while True:
        frame = await outbox.get()
        try:
            await socket.send_bytes(frame if seal is None else seal.close(frame))
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
        raise ServiceError("aggregators: name at least one URL, like wss://10.0.0.9:8421")
    for url in urls:
        if not url.startswith(("ws://", "wss://")):
            raise ServiceError(f"aggregators: {url!r} is no URL like wss://10.0.0.9:8421")
    if len({url.partition(":")[0] for url in urls}) > 1:
        raise ServiceError("aggregators: some URLs begin with wss:// and some with ws://; use wss:// for all of them")
    return urls
