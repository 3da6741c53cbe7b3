"""Who may come in: the admin token as a bearer, or a page's session, which may only read.

Tokens are compared by their SHA-256, in constant time. A session is a random cookie, held in
memory: HttpOnly, SameSite=Strict and good for GET alone, so that no foreign page can make a
browser change anything.
"""

from __future__ import annotations

import hmac
import secrets
from hashlib import sha256
from http import HTTPStatus
from time import monotonic
from urllib.parse import urlsplit

from aiohttp import web

from aggregator.api.problems import Problem
from aggregator.fleet_access import FleetAccess

COOKIE = "virtward_session"
SESSIONS_MAX = 200
SESSION_S_MAX = 12 * 3600.0
TOKEN_CHARACTERS_MAX = 1000


class Door:
    """Decides who may come in."""

    def __init__(self, fleet: FleetAccess) -> None:
        self._fleet = fleet
        self._sessions: dict[str, float] = {}  # id -> end, by this process's monotonic clock

    def admit(self, request: web.Request) -> None:
        """Let a request in; Problem 401 or 403 if it may not."""
        header = request.headers.get("Authorization", "")
        if header:
            scheme, _, token = header.partition(" ")
            if scheme.lower() == "bearer" and self.knows(token.strip()):
                return
            raise _unauthorized("the token is wrong; use the one in the aggregator's token file")
        if self.has_session(request):
            if request.method in ("GET", "HEAD"):
                return
            raise Problem(HTTPStatus.FORBIDDEN, "a page's session may only read; send the token as a bearer to write")
        raise _unauthorized("a token is needed: Authorization: Bearer TOKEN")

    def knows(self, token: str) -> bool:
        """Tell whether this is the admin token."""
        if not token or len(token) > TOKEN_CHARACTERS_MAX:
            return False
        digest = sha256(token.encode(errors="surrogateescape")).hexdigest()
        return hmac.compare_digest(digest.encode(), self._fleet.token_sha256.encode())

    def has_session(self, request: web.Request) -> bool:
        """Tell whether a request carries a session that stands."""
        end = self._sessions.get(request.cookies.get(COOKIE, ""))
        return end is not None and monotonic() < end

    def open_session(self, request: web.Request, response: web.Response) -> None:
        """Give the browser a session."""
        now = monotonic()
        self._sessions = {name: end for name, end in self._sessions.items() if end > now}
        while len(self._sessions) >= SESSIONS_MAX:
            del self._sessions[next(iter(self._sessions))]
        name = secrets.token_urlsafe(32)
        self._sessions[name] = now + SESSION_S_MAX
        response.set_cookie(
            COOKIE, name, max_age=int(SESSION_S_MAX), httponly=True, samesite="Strict", secure=request.secure, path="/"
        )

    def close_session(self, request: web.Request, response: web.Response) -> None:
        """End the browser's session."""
        self._sessions.pop(request.cookies.get(COOKIE, ""), None)
        response.del_cookie(COOKIE, path="/")


def refuse_foreign_origin(request: web.Request) -> None:
    """Refuse a form that another site's page sent; Problem 403."""
    origin = request.headers.get("Origin", "")
    if origin and origin != "null" and urlsplit(origin).netloc != request.host:
        raise Problem(HTTPStatus.FORBIDDEN, "this form was sent by another site's page")


def _unauthorized(detail: str) -> Problem:
    return Problem(HTTPStatus.UNAUTHORIZED, detail, headers={"WWW-Authenticate": 'Bearer realm="virtward"'})
