"""Errors as people and programs see them: RFC 9457 problem documents, one sentence each.

Knows HTTP's words for what went wrong and nothing of the fleet.
"""

from __future__ import annotations

from http import HTTPStatus

import msgspec
from aiohttp import web

CONTENT_TYPE = "application/problem+json"


class Problem(Exception):  # noqa: N818 (RFC 9457's word for it)
    """A request that is answered with an error. detail: one sentence: what, where, what to do.

    errors: further sentences, where a document has more than one fault.
    """

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        *,
        errors: tuple[str, ...] = (),
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = errors
        self.headers = headers or {}


def bad_request(detail: str) -> Problem:
    """Return the problem of a request that cannot be read."""
    return Problem(HTTPStatus.BAD_REQUEST, detail)


def refused(detail: str, errors: tuple[str, ...] = ()) -> Problem:
    """Return the problem of an object that can be read and is not accepted."""
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, errors=errors)


def conflict(detail: str) -> Problem:
    """Return the problem of an order that does not fit what is."""
    return Problem(HTTPStatus.CONFLICT, detail)


def not_found(kind: str, name: str) -> Problem:
    """Return the problem of a name that nothing has."""
    return Problem(HTTPStatus.NOT_FOUND, f"there is no {kind} {name!r}")


def problem_response(problem: Problem) -> web.Response:
    """Return the answer of a problem."""
    document: dict[str, object] = {
        "type": "about:blank",
        "title": problem.status.phrase,
        "status": int(problem.status),
        "detail": problem.detail,
    }
    if problem.errors:
        document["errors"] = list(problem.errors)
    return web.Response(
        status=problem.status,
        body=msgspec.json.encode(document),
        content_type=CONTENT_TYPE,
        headers=problem.headers,
    )


def problem_of(error: web.HTTPException) -> Problem:
    """Return the problem that one of the HTTP library's own errors comes to."""
    status = HTTPStatus(error.status)
    if status is HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return Problem(status, "the body is larger than the aggregator reads at once; send fewer documents")
    return Problem(status, f"{status.phrase.lower()}: the aggregator cannot answer this request")
