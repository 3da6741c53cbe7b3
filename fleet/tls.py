"""TLS 1.3 between virtward's own processes, and a listener that a crowd without handshakes cannot fill.

Knows contexts and sockets; who somebody is and what they may do is for others. A context takes a
renewed certificate while it is in use: connections that stand keep theirs.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path

import structlog
from aiohttp import web

from fleet.identity import Identity, IdentityError, identity_of

HANDSHAKE_S_MAX = 5.0
HANDSHAKES_MAX = 1000
HANDSHAKES_PER_ADDRESS_MAX = 64
HANDSHAKES_A_SECOND_MAX = 500.0
TELL_EVERY_S = 1.0
RECEIVE_BYTES_MAX = 128 * 1024  # that the kernel keeps of one connection; by itself it takes 6 MiB
ACCEPT_PAUSE_S = 0.1  # when the process has no file left for another connection

log = structlog.get_logger(part="tls")


def server_context(authority: str, own: Path, *, everybody: bool) -> ssl.SSLContext:
    """Return a listener's context. own: key and certificate in one PEM file.

    everybody: one without a certificate may shake hands too (to join); one with a bad certificate may not.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_OPTIONAL if everybody else ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the fleet's authority may be one below another PKI's
    context.load_verify_locations(cadata=authority)
    context.load_cert_chain(own)
    return context


def https_context(certificate: Path, key: Path, authority: str = "") -> ssl.SSLContext:
    """Return a listener's context for clients of all kinds. OSError, SSLError.

    authority: PEM of those by whom a client may show a certificate; it need not show one.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    if authority:
        context.verify_mode = ssl.CERT_OPTIONAL
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(cadata=authority)
    return context


def https_trust(authority: Path) -> ssl.SSLContext:
    """Return a context for calls to an API that is known by an authority's file. OSError, SSLError."""
    context = ssl.create_default_context(cafile=authority)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # it may be one below another PKI's
    return context


def client_context(authority: str, own: Path | None) -> ssl.SSLContext:
    """Return a caller's context: the other end must bear the name that is asked for. own: None shows nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=authority)
    if own is not None:
        context.load_cert_chain(own)
    return context


def stranger_context() -> ssl.SSLContext:
    """Return a context that believes anybody: only to fetch an authority whose digest is known."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def caller_of(request: web.Request) -> Identity | None:
    """Return whom the caller's verified certificate names; None without one, or with one that names nobody."""
    transport = request.transport
    session = transport.get_extra_info("ssl_object") if transport is not None else None
    der = session.getpeercert(binary_form=True) if session is not None else None
    if not der:
        return None
    try:
        return identity_of(der)
    except IdentityError:
        return None


class Listener:
    """Accepts connections for a runner's server. Handshakes are bounded, all together and for each address.

    context: asked for at each handshake, for whom to trust may change; connections that stand keep theirs; None: no
    TLS. opened: told of each connection, and its address, once it may speak.
    """

    def __init__(
        self,
        runner: web.AppRunner,
        context: Callable[[], ssl.SSLContext] | None,
        opened: Callable[[asyncio.BaseTransport, str], None] | None = None,
    ) -> None:
        self._runner, self._context, self._opened = runner, context, opened
        self._shaking: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._socket: socket.socket | None = None
        self._silent: dict[socket.socket, asyncio.Future[None]] = {}  # that have not said anything, the oldest first
        self._turn_from = 0.0
        self.refused = 0  # without a handshake begun
        self._untold, self._tell_from = 0, float("-inf")

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        if self._socket is None:
            raise RuntimeError("this listener has not started")
        host, port = self._socket.getsockname()[:2]
        return str(host), int(port)

    def start(self, host: str, port: int, backlog: int = 1024) -> None:
        """Begin listening. Raises OSError if the port is taken."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=backlog, reuse_port=False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES_MAX)  # handed down to connections
        self._socket.setblocking(False)
        self._keep(self._accept(self._socket))

    async def stop(self) -> None:
        """Accept no more; connections that stand are the runner's."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._socket is not None:
            self._socket.close()

    def _tell(self, host: str, reason: str) -> None:
        """Write at most one line a second: a crowd must not fill the log."""
        now = asyncio.get_running_loop().time()
        self._untold += 1
        if now >= self._tell_from:
            log.warning("connections refused", peer=host, reason=reason, count=self._untold)
            self._untold, self._tell_from = 0, now + TELL_EVERY_S

    def _keep(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(listening)
            except OSError as error:
                log.warning("no connection can be taken", reason=error.strerror or str(error))
                await asyncio.sleep(ACCEPT_PAUSE_S)
                continue
            host = str(address[0])
            if self._shaking[host] >= HANDSHAKES_PER_ADDRESS_MAX or not self._has_room():
                self.refused += 1
                self._tell(host, "too many connections wait for their handshake")
                connection.close()
                continue
            self._shaking[host] += 1
            self._keep(self._shake(connection, host))

    def _has_room(self) -> bool:
        """Say whether another connection may wait; of those that have said nothing the oldest gives way to it."""
        if self._shaking.total() < HANDSHAKES_MAX:
            return True
        oldest = next(iter(self._silent), None)
        if oldest is not None:
            self._silent.pop(oldest).set_exception(ConnectionAbortedError("it said nothing, and others wait"))
        return oldest is not None

    async def _shake(self, connection: socket.socket, host: str) -> None:
        server = self._runner.server
        try:
            if server is None:
                connection.close()
                return
            loop, context = asyncio.get_running_loop(), None
            if self._context is not None:
                await self._first_word(connection)
                await self._turn()
                context = self._context()
            timeout_s = HANDSHAKE_S_MAX if context is not None else None
            transport, _ = await loop.connect_accepted_socket(
                server, connection, ssl=context, ssl_handshake_timeout=timeout_s
            )
            if self._opened is not None:
                self._opened(transport, host)
        except (OSError, ssl.SSLError, TimeoutError) as error:
            self._tell(host, str(error) or type(error).__name__)
            connection.close()
        finally:
            self._shaking[host] -= 1
            if not self._shaking[host]:
                del self._shaking[host]

    async def _first_word(self, connection: socket.socket) -> None:
        """Wait until a caller has said something: who does not costs no turn. TimeoutError, ConnectionAbortedError."""
        loop = asyncio.get_running_loop()
        said: asyncio.Future[None] = loop.create_future()
        self._silent[connection] = said
        loop.add_reader(connection, _fulfil, said)
        try:
            async with asyncio.timeout(HANDSHAKE_S_MAX):
                await said
        finally:
            self._silent.pop(connection, None)
            loop.remove_reader(connection)

    async def _turn(self) -> None:
        """Wait for a turn: a handshake is a millisecond of computing, and many at once would hold up everybody else."""
        loop = asyncio.get_running_loop()
        at = max(self._turn_from, loop.time())
        self._turn_from = at + 1 / HANDSHAKES_A_SECOND_MAX
        await asyncio.sleep(max(0.0, at - loop.time()))


def _fulfil(said: asyncio.Future[None]) -> None:
    if not said.done():
        said.set_result(None)
