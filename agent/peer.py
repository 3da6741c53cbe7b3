"""Agent to agent over HTTP: the hand-over notice, and the ping by which a peer proves that we live.

Knows aiohttp; what a notice means is agent.arrivals'. A notice comes with its source's certificate, and
proves itself by the secret of its migration besides.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable

import aiohttp
import structlog
from aiohttp import web

from agent.access import Access
from agent.keeper_types import PeerAnswered, PeerNoticeReceived, TellPeer
from agent.relay import RelayDoor
from fleet.codec import BETWEEN_AGENTS, CodecError
from fleet.identity import Role
from fleet.messages import ReleasedNotice, ReleasedReceipt
from fleet.service import ServiceError
from fleet.tls import Listener, caller_of

BODY_BYTES_MAX = 64 * 1024
NONCE_CHARACTERS_MAX = 64
ANSWER_TIMEOUT_S = 5.0
TELL_TIMEOUT_S = 1.0
WAITING_MAX = 256
MEDIA_TYPE = "application/msgpack"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = structlog.get_logger(part="peer")


class PeerServer:
    """Listens for other agents on `listen` (host:port)."""

    def __init__(
        self, listen: str, noticed: Callable[[PeerNoticeReceived], None], relay: RelayDoor, access: Access
    ) -> None:
        self._host, self._port = split_listen(listen)
        self._relay, self._access = relay, access
        self._listener: Listener | None = None
        self._noticed = noticed
        self._waiting: dict[int, asyncio.Future[ReleasedReceipt]] = {}
        self._requests = 0
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Begin listening. Raises ServiceError if the port is taken."""
        app = web.Application(client_max_size=BODY_BYTES_MAX, middlewares=[self._refuse_denied])
        app.router.add_post("/peer/v1/released", self._released)
        app.router.add_get("/peer/v1/ping", self._ping)
        self._relay.add_routes(app)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        try:
            if self._access.incoming is not None:
                self._listener = Listener(self._runner, self._shown)
                self._listener.start(self._host, self._port)
                return
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            where = f"{self._host}:{self._port}"
            raise ServiceError(f"listen: {where} cannot be used: {error.strerror or error}") from None

    def _shown(self) -> ssl.SSLContext:
        context = self._access.incoming
        if context is None:
            raise ssl.SSLError("this node's identity is being replaced")
        return context

    async def stop(self) -> None:
        """Stop listening."""
        if self._listener is not None:
            await self._listener.stop()
        if self._runner is not None:
            await self._runner.cleanup()

    def answer(self, request: int, receipt: ReleasedReceipt) -> None:
        """Answer a notice."""
        future = self._waiting.pop(request, None)
        if future is not None and not future.done():
            future.set_result(receipt)

    @web.middleware
    async def _refuse_denied(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse who is no node, or whose certificates were revoked: TLS itself takes them until they end."""
        caller = caller_of(request)
        if caller is not None and caller.role is not Role.AGENT:
            return web.Response(status=403, text="only nodes of this fleet may ask here\n")
        if caller is not None and caller.enrolment in self._access.denied:
            log.warning("peer refused", peer=request.remote, node=caller.name, reason="its certificates were revoked")
            return web.Response(status=403, text="the certificates of this node were revoked or replaced\n")
        return await handler(request)

    async def _released(self, request: web.Request) -> web.Response:
        try:
            message = BETWEEN_AGENTS.decode(await request.read())
        except CodecError as error:
            return web.Response(status=400, text=f"{error}\n")
        if not isinstance(message, ReleasedNotice):
            return web.Response(status=400, text="a notice is wanted here\n")
        caller = caller_of(request)
        if self._access.secure and (caller is None or (caller.role, caller.name) != (Role.AGENT, message.source)):
            return web.Response(status=403, text="another node's certificate came with this notice\n")
        if len(self._waiting) >= WAITING_MAX:
            return web.Response(status=503, text="too many notices wait\n")
        self._requests += 1
        number = self._requests
        future: asyncio.Future[ReleasedReceipt] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        self._noticed(PeerNoticeReceived(number, message))
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                receipt = await future
        except TimeoutError:
            return web.Response(status=503, text="no answer in time\n")
        finally:
            self._waiting.pop(number, None)
        return web.Response(body=BETWEEN_AGENTS.encode(receipt), content_type=MEDIA_TYPE)

    async def _ping(self, request: web.Request) -> web.Response:
        return web.Response(text=request.query.get("nonce", "")[:NONCE_CHARACTERS_MAX])


async def tell(session: aiohttp.ClientSession, effect: TellPeer, access: Access) -> PeerAnswered:
    """Try the addresses in order, TELL_TIMEOUT_S each."""
    notice = effect.notice
    detail = "no address is known"
    timeout = aiohttp.ClientTimeout(total=TELL_TIMEOUT_S)
    body = BETWEEN_AGENTS.encode(notice)
    for address in effect.addresses:
        url = f"{'https' if access.secure else 'http'}://{address}/peer/v1/released"
        try:
            async with session.post(
                url,
                data=body,
                headers={"Content-Type": MEDIA_TYPE},
                timeout=timeout,
                ssl=access.outgoing,
                server_hostname=access.server_name(Role.AGENT),
            ) as answer:
                raw = await answer.content.read(BODY_BYTES_MAX)
                if answer.status != web.HTTPOk.status_code:
                    detail = f"{address} answered {answer.status}"
                    continue
                receipt = BETWEEN_AGENTS.decode(raw)
        except (aiohttp.ClientError, OSError, TimeoutError, CodecError) as error:
            detail = f"{address}: {str(error) or 'no answer within a second'}"
            continue
        if isinstance(receipt, ReleasedReceipt):
            return PeerAnswered(notice.uuid, notice.migration, receipt)
    log.info("peer not told", vm=notice.uuid, detail=detail)
    return PeerAnswered(notice.uuid, notice.migration, None, detail)


def split_listen(listen: str) -> tuple[str, int]:
    """Return host and port of `0.0.0.0:8422`, `[::]:8422` or `8422`. Raises ServiceError."""
    host, _, port = listen.rpartition(":")
    if not port.isdigit() or not 0 < int(port) < 2**16:
        raise ServiceError(f"listen: {listen!r} is no address like 0.0.0.0:8422")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - peers of every plane may ask
