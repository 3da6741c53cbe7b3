"""Carries another agent's frames to our aggregator, unread: a WebSocket in, a WebSocket out, one hop.

Only whom we have just offered it to, by order of the aggregator, gets in: with a ticket, once.
What is sealed stays sealed (fleet.sealing); backpressure is TCP's own, so nothing queues here.
Knows aiohttp and tickets; whether to offer is agent.relaying's.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from collections.abc import Callable

import aiohttp
import structlog
from aiohttp import web

from agent.access import Access
from agent.keeper_types import OfferToPeer, RelayOffered
from fleet.codec import BETWEEN_AGENTS, CodecError
from fleet.identity import Role
from fleet.messages import FRAME_BYTES_MAX, RelayOffer
from fleet.sealing import SEAL_BYTES, read_claim
from fleet.tls import caller_of

RELAY_PATH = "/peer/v1/relay"
OFFER_PATH = "/peer/v1/relay-offer"
AGENT_PATH = "/agent/v1"
TICKET_S_MAX = 10.0
RELAYS_MAX = 8
TELL_TIMEOUT_S = 1.0
STALL_S_MAX = 6.0  # a lease: what could not be passed on for so long says nothing any more
CLOSE_TIMEOUT_S = 1.0

log = structlog.get_logger(part="relay")
Socket = aiohttp.ClientWebSocketResponse | web.WebSocketResponse


class RelayDoor:
    """Offers to carry, and carries. upstream: the URL of the aggregator we speak to."""

    def __init__(
        self,
        node: str,
        port: int,
        upstream: Callable[[], str],
        offered: Callable[[RelayOffered], None],
        access: Access,
    ) -> None:
        self._node, self._port, self._access = node, port, access
        self._upstream, self._offered = upstream, offered
        self._tickets: dict[str, tuple[str, float]] = {}  # node -> (its ticket, monotonic s at which it is void)
        self._carried = 0

    def add_routes(self, app: web.Application) -> None:
        """Add what other agents may ask of us about relays."""
        app.router.add_post(OFFER_PATH, self._take_offer)
        app.router.add_get(RELAY_PATH, self._carry)

    async def offer(self, session: aiohttp.ClientSession, effect: OfferToPeer) -> None:
        """Send an offer with a fresh ticket; that nobody takes it is no error."""
        now_s = time.monotonic()
        self._tickets = {
            node: held for node, held in self._tickets.items() if held[1] > now_s and node != effect.target
        }
        if self._carried + len(self._tickets) >= RELAYS_MAX:
            log.info("relay not offered", target=effect.target, reason="enough others are carried")
            return
        ticket = secrets.token_hex(16)
        self._tickets[effect.target] = (ticket, now_s + TICKET_S_MAX)
        body = BETWEEN_AGENTS.encode(RelayOffer(self._node, effect.target, self._port, ticket))
        url = f"{'https' if self._access.secure else 'http'}://{effect.address}{OFFER_PATH}"
        timeout = aiohttp.ClientTimeout(total=TELL_TIMEOUT_S)
        shown, name = self._access.outgoing, self._access.server_name(Role.AGENT)
        try:
            async with session.post(url, data=body, timeout=timeout, ssl=shown, server_hostname=name) as answer:
                await answer.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            log.info("relay offer not delivered", target=effect.target, reason=str(error) or "no answer")

    async def _take_offer(self, request: web.Request) -> web.Response:
        try:
            offer = BETWEEN_AGENTS.decode(await request.read())
        except CodecError as error:
            return web.Response(status=400, text=f"{error}\n")
        if not isinstance(offer, RelayOffer) or not request.remote:
            return web.Response(status=400, text="an offer to relay is wanted here\n")
        if not self._is(request, offer.peer):
            return web.Response(status=403, text="another node's certificate came with this offer\n")
        host = f"[{request.remote}]" if ":" in request.remote else request.remote
        self._offered(RelayOffered(offer, f"{host}:{offer.port}"))
        return web.Response(status=204)

    async def _carry(self, request: web.Request) -> web.StreamResponse:
        claim = read_claim(request.headers.get("Authorization", ""))
        if (
            claim is None
            or claim.via != self._node
            or not self._is(request, claim.node)
            or not self._take_ticket(claim.node, request.query.get("ticket", ""))
        ):
            return web.Response(status=403, text="this relay was not offered to you\n")
        upstream = self._upstream()
        if not upstream or self._carried >= RELAYS_MAX:
            return web.Response(status=503, text="this agent can relay nobody now\n")
        self._carried += 1
        try:
            return await self._between(request, upstream, claim.node)
        finally:
            self._carried -= 1

    def _is(self, request: web.Request, node: str) -> bool:
        """Tell whether a request comes from this node's agent; where agents speak openly, nobody can tell."""
        if not self._access.secure:
            return True
        caller = caller_of(request)
        return caller is not None and (caller.role, caller.name) == (Role.AGENT, node)

    def _take_ticket(self, node: str, shown: str) -> bool:
        """Return whether the node may come in now; its ticket is void afterwards."""
        ticket, void_s = self._tickets.get(node, ("", 0.0))
        if not ticket or void_s < time.monotonic() or not hmac.compare_digest(ticket.encode(), shown.encode()):
            return False
        del self._tickets[node]
        return True

    async def _between(self, request: web.Request, upstream: str, origin: str) -> web.StreamResponse:
        """Open the way on first, then take the origin in; whichever ends, both do."""
        size, headers = FRAME_BYTES_MAX + SEAL_BYTES + 1, {"Authorization": request.headers["Authorization"]}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=TELL_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            try:
                async with asyncio.timeout(TELL_TIMEOUT_S):
                    onward = await session.ws_connect(
                        upstream.rstrip("/") + AGENT_PATH,
                        headers=headers,
                        max_msg_size=size,
                        timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT_S),
                        ssl=self._access.outgoing,
                        server_hostname=self._access.server_name(Role.AGGREGATOR),
                    )
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                log.warning("relay not opened", origin=origin, reason=str(error) or "no answer")
                return web.Response(status=502, text="the aggregator does not take it\n")
            inward = web.WebSocketResponse(max_msg_size=size, compress=False, timeout=CLOSE_TIMEOUT_S)
            await inward.prepare(request)
            log.info("relay opened", origin=origin)
            ways = [asyncio.create_task(_pass_on(inward, onward)), asyncio.create_task(_pass_on(onward, inward))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
                await _end(onward)
                await _end(inward)
                log.info("relay closed", origin=origin)
            return inward


async def _pass_on(source: Socket, target: Socket) -> None:
    """Carry binary frames one way until either end is over or takes nothing for STALL_S_MAX."""
    async for frame in source:
        if frame.type is not aiohttp.WSMsgType.BINARY:
            return
        try:
            async with asyncio.timeout(STALL_S_MAX):
                await target.send_bytes(frame.data)
        except (TimeoutError, ConnectionError, RuntimeError, aiohttp.ClientError):
            return


async def _end(socket: Socket) -> None:
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await socket.close()
    except (TimeoutError, ConnectionError, RuntimeError, aiohttp.ClientError):
        return
