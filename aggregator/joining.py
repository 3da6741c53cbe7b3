"""How an agent comes by a certificate: once by a join token, then by the one that it has.

Knows HTTP, the authority and the facts; what a node's record holds is the core's. A join is
journalled first: a token is spent before its certificate leaves.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from time import monotonic
from typing import Protocol, TypeVar

import msgspec
import structlog
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec import structs

from aggregator.attempts import Attempts
from aggregator.authority import Authority
from aggregator.core.events import Event, HypervisorCertified, NodeJoined
from aggregator.core.state import NodeRecord, State
from aggregator.fleet_access import NotServingError
from fleet.hypervisor_tls import HYPERVISOR_PATH, HypervisorIssued, HypervisorRequest, Purpose, signer_of
from fleet.identity import (
    AUTHORITY_PATH,
    JOIN_PATH,
    RENEW_PATH,
    Identity,
    IdentityError,
    Issued,
    JoinRequest,
    RenewRequest,
    Role,
    key_digest,
    read_join_token,
    read_request,
    same_digest,
    secret_digest,
)
from fleet.tls import caller_of
from fleet.trust import TRUST_PATH, Trust

RENEW_AFTER_END_S_MAX = 30 * 24 * 3600.0
BODY_S_MAX = 5.0
RELAY_SECRET_BYTES, ENROLMENT_BYTES = 32, 16
Kind = TypeVar("Kind", JoinRequest, RenewRequest, HypervisorRequest)
Handler = Callable[[web.Request, bytes], Awaitable[Issued | HypervisorIssued | Trust]]

_log = structlog.get_logger("aggregator.joining")


class Desk(Protocol):
    """What joining needs of the fleet."""

    @property
    def state(self) -> State: ...
    def now(self) -> float: ...
    async def submit(self, fact: Event, check: Callable[[State], None] | None = None) -> int: ...


class _RefusedError(Exception):
    """status: of the answer. The text is one sentence; no secret stands in it."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class Joining:
    """Answers who wants a certificate."""

    def __init__(self, desk: Desk, authority: Authority) -> None:
        self._desk, self._authority = desk, authority
        self._attempts = Attempts()

    def add_routes(self, app: web.Application) -> None:
        """Add what is asked outside of sessions; all but the last two may be asked without a certificate."""
        app.router.add_get(AUTHORITY_PATH, self._show_authority)
        app.router.add_post(JOIN_PATH, self._answer(self._join))
        app.router.add_post(RENEW_PATH, self._answer(self._renew))
        app.router.add_post(TRUST_PATH, self._answer(self._tell_trust))
        app.router.add_post(HYPERVISOR_PATH, self._answer(self._certify_hypervisor))

    async def _show_authority(self, _request: web.Request) -> web.Response:
        return web.Response(text=self._authority.text, content_type="application/x-pem-file")

    def _answer(self, handler: Handler) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answer(request: web.Request) -> web.Response:
            peer = str(request.remote)
            locked_s = self._attempts.locked_s(peer, monotonic())
            try:
                if locked_s:
                    raise _RefusedError(HTTPStatus.TOO_MANY_REQUESTS, f"too many failures; try in {locked_s:.0f} s")
                async with asyncio.timeout(BODY_S_MAX):
                    issued = await handler(request, await request.read())
            except _RefusedError as error:
                if error.status is HTTPStatus.FORBIDDEN:
                    self._attempts.failed(peer, monotonic())
                _log.warning("no certificate given", peer=peer, path=request.path, reason=str(error))
                return web.Response(status=error.status, text=f"{error}\n")
            except (NotServingError, TimeoutError) as error:
                why = str(error) or f"the request was not answered within {BODY_S_MAX:g} s"
                return web.Response(status=HTTPStatus.SERVICE_UNAVAILABLE, text=f"{why}\n")
            return web.Response(body=msgspec.json.encode(issued), content_type="application/json")

        return answer

    async def _join(self, request: web.Request, raw: bytes) -> Issued:
        asked = _read(raw, JoinRequest)
        key, _key_sha256 = _request_of(asked.request)
        try:
            token_sha256 = secret_digest(read_join_token(asked.token).secret)
        except IdentityError as error:
            raise _RefusedError(HTTPStatus.FORBIDDEN, str(error)) from None
        node = self._holder(self._desk.state, token_sha256)
        enrolment = secrets.token_hex(ENROLMENT_BYTES)
        certificate, _named = self._authority.sign(key, Role.AGENT, node.name, enrolment)
        relay_secret = secrets.token_urlsafe(RELAY_SECRET_BYTES)
        sealed = secret_digest(relay_secret)
        fact = NodeJoined(at=self._desk.now(), name=node.name, enrolment=enrolment, relay_sha256=sealed)
        await self._desk.submit(fact, lambda state: self._check_holder(state, token_sha256, node.name))
        self._attempts.succeeded(str(request.remote))
        _log.info("node joined", node=node.name, peer=request.remote)
        return Issued(certificate, relay_secret)

    def _holder(self, state: State, token_sha256: str) -> NodeRecord:
        """Return the node that a join token is for; _RefusedError if it is for none, spent or too old."""
        found = [node for node in state.nodes.values() if same_digest(node.credentials.join_sha256, token_sha256)]
        if not found or found[0].credentials.join_until <= self._desk.now():
            raise _RefusedError(
                HTTPStatus.FORBIDDEN,
                "this join token is unknown, used or too old; virtward node token NODE makes another",
            )
        return found[0]

    def _check_holder(self, state: State, token_sha256: str, name: str) -> None:
        """Run right before the fact is folded: of two that show one token at once, one joins."""
        if self._holder(state, token_sha256).name != name:
            raise _RefusedError(HTTPStatus.FORBIDDEN, "this join token is for another node now")

    async def _renew(self, request: web.Request, raw: bytes) -> Issued:
        """Sign anew for whom a certificate names that holds, or that has ended and whose key signed the request.

        Nothing is journalled: what counts is the enrolment, and that is as it was.
        """
        asked = _read(raw, RenewRequest)
        key, key_sha256 = _request_of(asked.request)
        named = caller_of(request)
        if named is None:
            named = self._ended(asked.certificate, key_sha256)
        self._check_counts(named)
        certificate, _named = self._authority.sign(key, Role.AGENT, named.name, named.enrolment)
        _log.info("certificate renewed", node=named.name, peer=request.remote)
        return Issued(certificate)

    async def _certify_hypervisor(self, request: web.Request, raw: bytes) -> HypervisorIssued:
        """Sign for libvirt and QEMU of the host whose certificate is shown."""
        asked = _read(raw, HypervisorRequest)
        named = caller_of(request)
        if named is None:
            raise _RefusedError(HTTPStatus.FORBIDDEN, "only a node that has joined gets certificates for its libvirt")
        self._check_counts(named)
        keys = {purpose: _request_of(text)[0] for purpose, text in asked.requests.items()}
        if set(keys) != set(Purpose):
            raise _RefusedError(HTTPStatus.BAD_REQUEST, f"requests are wanted for each of {', '.join(Purpose)}")
        proven = signer_of(asked)
        self._check_held(self._desk.state, named, proven)
        fact = HypervisorCertified(
            at=self._desk.now(),
            name=named.name,
            enrolment=named.enrolment,
            key_sha256=key_digest(keys[Purpose.LIBVIRT]),
            proven_sha256=proven if self._held(self._desk.state, named) else "",
        )
        await self._desk.submit(fact, lambda state: self._check_held(state, named, proven))
        issued = self._authority.hypervisors.issue(self._desk.state, named, keys, asked.addresses)
        _log.info("hypervisor certified", node=named.name, peer=request.remote, left_out=issued.left_out)
        return structs.replace(issued, trust=self._authority.trust(self._desk.state).version)

    @staticmethod
    def _held(state: State, named: Identity) -> tuple[str, ...]:
        """Return the digests of the keys of which the node's libvirt must hold one; empty before its first."""
        node = state.nodes.get(named.name)
        return node.credentials.hypervisor_keys if node is not None else ()

    def _check_held(self, state: State, named: Identity, proven: str) -> None:
        """Raise _RefusedError unless who asks holds the key certified before: a stolen certificate does not."""
        held = self._held(state, named)
        if held and not any(same_digest(proven, each) for each in held):
            raise _RefusedError(
                HTTPStatus.FORBIDDEN,
                f"{named.name}'s libvirt has a certificate, and its key did not sign for another one; if that is lost, "
                f"virtward node token {named.name} lets the node join anew",
            )

    async def _tell_trust(self, request: web.Request, _raw: bytes) -> Trust:
        """Say whom to trust, to a node whose certificate is shown."""
        named = caller_of(request)
        if named is None:
            raise _RefusedError(HTTPStatus.FORBIDDEN, "only a node that has joined is told whom to trust")
        self._check_counts(named)
        return self._authority.trust(self._desk.state)

    def _check_counts(self, named: Identity) -> None:
        """Raise _RefusedError if the certificates of this enrolment were revoked or replaced."""
        node = self._desk.state.nodes.get(named.name)
        known = node.credentials.enrolment if node is not None else ""
        if named.role is not Role.AGENT or not same_digest(known, named.enrolment):
            raise _RefusedError(
                HTTPStatus.FORBIDDEN,
                f"the certificates of {named.name} were revoked or replaced; "
                f"virtward node token {named.name} lets it join anew",
            )

    def _ended(self, certificate: str, key_sha256: str) -> Identity:
        """Return whom a certificate names that has ended, if who asks holds its key and it is not too old."""
        try:
            named = self._authority.signed(certificate)
        except IdentityError as error:
            raise _RefusedError(HTTPStatus.FORBIDDEN, str(error)) from None
        if named.key_sha256 != key_sha256:
            raise _RefusedError(HTTPStatus.FORBIDDEN, "the request is not signed by the key of the certificate")
        if self._desk.now() > named.until + RENEW_AFTER_END_S_MAX:
            raise _RefusedError(
                HTTPStatus.FORBIDDEN,
                f"this certificate ended more than 30 days ago; "
                f"virtward node token {named.name} lets the node join anew",
            )
        return named


def _read(raw: bytes, kind: type[Kind]) -> Kind:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise _RefusedError(HTTPStatus.BAD_REQUEST, f"the body is no {kind.__name__}") from None


def _request_of(text: str) -> tuple[ec.EllipticCurvePublicKey, str]:
    try:
        return read_request(text)
    except IdentityError as error:
        raise _RefusedError(HTTPStatus.BAD_REQUEST, str(error)) from None
