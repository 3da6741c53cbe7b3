"""People's tokens: made, listed, revoked. A token is shown once; its SHA-256 alone is kept."""

from __future__ import annotations

import re
import secrets
from http import HTTPStatus

from aiohttp import web

from aggregator.api.calls import Call, answer, only, word
from aggregator.api.problems import bad_request, conflict, not_found
from aggregator.api.rights import TOKENS_PATH
from aggregator.api.router import Route
from aggregator.api.writes import commit
from aggregator.core.events import ApiRole, ApiTokenIssued, ApiTokenRevoked, Event
from aggregator.core.moments import rfc3339
from aggregator.core.selector import read_selector
from aggregator.core.state import State
from fleet.identity import IdentityError, certificate_digest, secret_digest

ADMIN = "admin"  # who has the token of the aggregator's own file
TOKEN_BYTES, ENROLMENT_BYTES = 32, 16
TOKENS_MAX = 1000
DAYS, DAYS_MAX = 90, 366
DAY_S = 86400.0
_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.@]{0,61}[A-Za-z0-9])?")


async def list_tokens(call: Call) -> web.StreamResponse:
    """Answer every token's name, rights and end; none of their secrets."""
    now = call.fleet.now()
    items = [
        {
            "name": name,
            "role": token.role,
            "selector": token.selector,
            "expires": rfc3339(token.until),
            "expired": token.until <= now,
            "issuedBy": token.who,
        }
        for name, token in sorted(call.fleet.state.tokens.items())
    ]
    return answer({"items": items, "resourceVersion": str(call.fleet.state.position)})


async def issue(call: Call) -> web.StreamResponse:
    """Make a token, or sign a certificate in its place. Problem 409 if the name has one already."""
    options = await call.options()
    only(options, "name", "role", "selector", "days", "request")
    name, role, selector = word(options, "name"), word(options, "role"), word(options, "selector")
    days = options.get("days", DAYS)
    if not _NAME.fullmatch(name) or name == ADMIN:
        raise bad_request(f"name: {name!r} is no name for a token; letters, digits, '-', '_', '.' and '@', not {ADMIN}")
    if role not in set(ApiRole):
        raise bad_request(f"role: must be one of {', '.join(ApiRole)}, not {role!r}")
    if not isinstance(days, int) or isinstance(days, bool) or not 1 <= days <= DAYS_MAX:
        raise bad_request(f"days: must be a number from 1 to {DAYS_MAX}")
    try:
        read_selector(selector)
    except ValueError as error:
        raise bad_request(f"selector: {error}") from None
    if selector and role == ApiRole.ADMIN:
        raise bad_request("selector: an admin's token cannot be limited to some VMs; make it an operator's")
    token, digest, certificate = secrets.token_urlsafe(TOKEN_BYTES), "", ""
    digest = secret_digest(token)
    if request := word(options, "request"):
        token, enrolment = "", secrets.token_hex(ENROLMENT_BYTES)
        digest = certificate_digest(enrolment)
        try:
            certificate = call.fleet.certify_person(request, name, enrolment, days * DAY_S)
        except IdentityError as error:
            raise bad_request(f"request: {error}") from None

    def make(state: State, now: float) -> Event:
        if name in state.tokens:
            raise conflict(f"there is a token {name!r} already; revoke it first")
        if len(state.tokens) >= TOKENS_MAX:
            raise conflict(f"there are {TOKENS_MAX} tokens already; revoke some first")
        return ApiTokenIssued(
            at=now,
            token=name,
            token_sha256=digest,
            role=ApiRole(role),
            selector=selector,
            until=now + days * DAY_S,
            who=call.who,
        )

    await commit(call, make)
    if call.dry_run:
        token = certificate = ""
    shown = {"certificate": certificate} if options.get("request") else {}
    return answer({"name": name, "token": token, **shown}, HTTPStatus.CREATED)


async def revoke(call: Call) -> web.StreamResponse:
    """End a token, and the page's sessions that were opened with it."""

    def make(state: State, now: float) -> Event:
        if call.name not in state.tokens:
            raise not_found("token", call.name)
        return ApiTokenRevoked(at=now, token=call.name, who=call.who)

    await commit(call, make)
    return answer({"name": call.name})


ROUTES = [
    Route("GET", TOKENS_PATH, list_tokens, "people's tokens, without their secrets"),
    Route("POST", TOKENS_PATH, issue, "make a token for a person or a program, shown once, or a certificate"),
    Route("DELETE", f"{TOKENS_PATH}/{{name}}", revoke, "end a token"),
]
