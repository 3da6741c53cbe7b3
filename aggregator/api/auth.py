"""Who may come in: a token as a bearer, a person's certificate, or a page's session, which may only read.

Tokens are compared by their SHA-256, in constant time. A session is a random cookie, held in
memory: HttpOnly, SameSite=Strict and good for GET alone, so that no foreign page can make a
browser change anything; it ends with the token that opened it. Who fails too often is locked out.
"""

from __future__ import annotations

import secrets
from http import HTTPStatus
from time import monotonic
from urllib.parse import urlsplit

from aiohttp import web
from msgspec import Struct

from aggregator.api.problems import Problem
from aggregator.api.rights import Rights
from aggregator.api.tokens import ADMIN
from aggregator.attempts import Attempts
from aggregator.core.events import ApiRole
from aggregator.core.selector import read_selector
from aggregator.fleet_access import FleetAccess
from fleet.identity import Role, certificate_digest, same_digest, secret_digest
from fleet.tls import caller_of

COOKIE = "virtward_session"
SESSIONS_MAX = 200
SESSION_S_MAX = 12 * 3600.0
TOKEN_CHARACTERS_MAX = 1000
WRITES_A_SECOND_MAX, WRITES_AT_ONCE_MAX = 100.0, 1000.0  # of one token
READS_A_SECOND_MAX, READS_AT_ONCE_MAX = 200.0, 2000.0  # of one token
OPEN_A_SECOND_MAX, OPEN_AT_ONCE_MAX = 50.0, 500.0  # requests without a token, of one address
ALLOWANCES_MAX = 10_000
KNOWN_MAX = 10_000  # pairs of address and token that have come in


class _Session(Struct):
    """end: by this process's monotonic clock. digest: of the token that opened it."""

    end: float
    digest: str


class _Allowance(Struct):
    left: float
    at: float


class Door:
    """Decides who may come in."""

    def __init__(self, fleet: FleetAccess) -> None:
        self._fleet = fleet
        self._sessions: dict[str, _Session] = {}
        self._attempts = Attempts()
        self._known: dict[tuple[str, str], None] = {}
        self._allowances: dict[tuple[str, str], _Allowance] = {}

    def admit(self, request: web.Request) -> Rights:
        """Let a request in and say what it may; Problem 401, 403 or 429 if it may nothing."""
        header = request.headers.get("Authorization", "")
        if header:
            scheme, _, token = header.partition(" ")
            rights = self.try_token(request, token.strip() if scheme.lower() == "bearer" else "")
            if rights is None:
                raise _unauthorized("the token is wrong, revoked or too old; virtward token create makes one")
            return rights
        rights = self._certified(request)
        if rights is not None:
            if request.method not in ("GET", "HEAD"):
                refuse_foreign_origin(request)  # a browser shows a certificate for whatever page makes it ask
            return rights
        rights = self.session_rights(request)
        if rights is None:
            raise _unauthorized("a token is needed: Authorization: Bearer TOKEN")
        if request.method not in ("GET", "HEAD"):
            raise Problem(HTTPStatus.FORBIDDEN, "a page's session may only read; send the token as a bearer to write")
        return rights

    def _certified(self, request: web.Request) -> Rights | None:
        """Return what a caller's certificate may, None without one that counts."""
        named = caller_of(request)
        if named is None or named.role is not Role.OPERATOR:
            return None
        rights = self._rights(certificate_digest(named.enrolment))
        if rights is None or rights.who != named.name:
            raise _unauthorized(f"the certificate of {named.name} was revoked or has ended")
        return rights

    def try_token(self, request: web.Request, token: str) -> Rights | None:
        """Return what a token may, None if it is wrong. Problem 429 once an address has shown too many wrong ones.

        A token that has come in from there before still does: somebody's guesses must not lock its owner out.
        """
        address, now = str(request.remote), monotonic()
        digest = secret_digest(token) if 0 < len(token) <= TOKEN_CHARACTERS_MAX else ""
        locked_s = self._attempts.locked_s(address, now)
        if locked_s and (address, digest) not in self._known:
            raise Problem(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"too many wrong tokens came from {address}; try again in {locked_s:.0f} s",
                headers={"Retry-After": f"{locked_s:.0f}"},
            )
        rights = self._rights(digest)
        if rights is None:
            self._attempts.failed(address, now)
            return None
        if (address, digest) not in self._known:
            while len(self._known) >= KNOWN_MAX:
                del self._known[next(iter(self._known))]
            self._known[address, digest] = None
        return rights

    def take_write(self, rights: Rights) -> None:
        """Count a write; Problem 429 if its token writes too fast."""
        self._take(rights.who, "writes", WRITES_A_SECOND_MAX, WRITES_AT_ONCE_MAX)

    def take_read(self, rights: Rights) -> None:
        """Count a read; Problem 429 if its token reads too fast."""
        self._take(rights.who, "reads", READS_A_SECOND_MAX, READS_AT_ONCE_MAX)

    def take_open(self, request: web.Request) -> None:
        """Count a request without a token; Problem 429 if its address sends too many."""
        self._take(str(request.remote), "asks", OPEN_A_SECOND_MAX, OPEN_AT_ONCE_MAX)

    def _take(self, who: str, does: str, a_second: float, at_once: float) -> None:
        now = monotonic()
        held = self._allowances.pop((does, who), None) or _Allowance(at_once, now)
        while len(self._allowances) >= ALLOWANCES_MAX:
            del self._allowances[next(iter(self._allowances))]
        self._allowances[does, who] = held  # the latest one last
        held.left = min(at_once, held.left + (now - held.at) * a_second)
        held.at = now
        if held.left < 1:
            raise Problem(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"{who} {does} more than {a_second:g} times a second; try again in a moment",
                headers={"Retry-After": "1"},
            )
        held.left -= 1

    def _rights(self, digest: str) -> Rights | None:
        if same_digest(digest, self._fleet.token_sha256):
            return Rights(ADMIN, ApiRole.ADMIN, (), digest)
        now = self._fleet.now()
        for name, token in self._fleet.state.tokens.items():
            if same_digest(digest, token.token_sha256) and now < token.until:
                return Rights(name, token.role, read_selector(token.selector), digest)
        return None

    def session_rights(self, request: web.Request) -> Rights | None:
        """Return what the session may that a request carries, None if none stands."""
        session = self._sessions.get(request.cookies.get(COOKIE, ""))
        return self._rights(session.digest) if session is not None and monotonic() < session.end else None

    def open_session(self, request: web.Request, response: web.Response, rights: Rights) -> None:
        """Give the browser a session."""
        now = monotonic()
        self._sessions = {name: session for name, session in self._sessions.items() if session.end > now}
        while len(self._sessions) >= SESSIONS_MAX:
            del self._sessions[next(iter(self._sessions))]
        name = secrets.token_urlsafe(32)
        self._sessions[name] = _Session(now + SESSION_S_MAX, rights.digest)
        response.set_cookie(
            COOKIE, name, max_age=int(SESSION_S_MAX), httponly=True, samesite="Strict", secure=request.secure, path="/"
        )

    def close_session(self, request: web.Request, response: web.Response) -> None:
        """End the browser's session."""
        self._sessions.pop(request.cookies.get(COOKIE, ""), None)
        response.del_cookie(COOKIE, path="/")


def refuse_foreign_origin(request: web.Request) -> None:
    """Refuse a form that another site's page sent; Problem 403. A program that is no browser says neither."""
    origin, site = request.headers.get("Origin", ""), request.headers.get("Sec-Fetch-Site", "")
    if (origin and urlsplit(origin).netloc != request.host) or site not in ("", "same-origin", "none"):
        raise Problem(HTTPStatus.FORBIDDEN, "this form was sent by another site's page")


def _unauthorized(detail: str) -> Problem:
    return Problem(HTTPStatus.UNAUTHORIZED, detail, headers={"WWW-Authenticate": 'Bearer realm="virtward"'})
