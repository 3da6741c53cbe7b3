"""Which handler answers a request: our own table, so that 404 and 405 are sentences too.

Knows paths: names are percent-encoded, a verb follows the last colon of the last segment. The
table is data: /openapi.json and the test that nothing is open by mistake are made from it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from aiohttp import web

from aggregator.api.problems import Problem, bad_request

if TYPE_CHECKING:
    from aggregator.api.calls import Call

Handler = Callable[["Call"], Awaitable[web.StreamResponse]]
WRITES = ("POST", "PUT", "PATCH", "DELETE")
PATH_CHARACTERS_MAX = 2000


class Route(NamedTuple):
    """One line of the table.

    path: `{name}` stands for one segment, a trailing `:verb` is a verb. is_open: needs no token.
    body, answer: names of schemas in /openapi.json; empty where there is none.

    """

    method: str
    path: str
    handler: Handler
    summary: str
    body: str = ""
    answer: str = ""
    is_open: bool = False

    @property
    def verb(self) -> str:
        """The verb after the last colon, empty for none."""
        last = self.path.rsplit("/", 1)[-1]
        return last.partition("}:")[2]

    @property
    def segments(self) -> list[str]:
        """The path's segments without the verb."""
        path = self.path.removesuffix(f":{self.verb}") if self.verb else self.path
        return path.strip("/").split("/")


class Router:
    """Finds the route of a request."""

    def __init__(self, routes: Iterable[Route]) -> None:
        """Take the table; ValueError for two lines of one method and path."""
        self.routes: Sequence[Route] = tuple(routes)
        keys = {(route.method, route.path) for route in self.routes}
        if len(keys) != len(self.routes):
            raise ValueError("the table of routes names a method and path twice")

    def resolve(self, method: str, raw_path: str) -> tuple[Route, dict[str, str]]:
        """Return the route and its decoded names; Problem 404 or 405 (with Allow) if there is none.

        raw_path: as it was sent, still percent-encoded, without the query.
        """
        if len(raw_path) > PATH_CHARACTERS_MAX:
            raise bad_request(f"the path is longer than {PATH_CHARACTERS_MAX} characters")
        segments = raw_path.strip("/").split("/")
        last, _, verb = segments[-1].rpartition(":")
        with_verb = [*segments[:-1], last] if last else segments
        found = [
            (route, _match(route.segments, with_verb)) for route in self.routes if route.verb and route.verb == verb
        ]
        if not any(names is not None for _, names in found):
            found = [(route, _match(route.segments, segments)) for route in self.routes if not route.verb]
        fitting = [(route, names) for route, names in found if names is not None]
        asked = "GET" if method == "HEAD" else method
        for route, names in fitting:
            if route.method == asked:
                return route, names
        if fitting and not (method == "POST" and verb and self._verbs_at([*segments[:-1], last])):
            allowed = ", ".join(sorted({route.method for route, _ in fitting}))
            raise Problem(
                HTTPStatus.METHOD_NOT_ALLOWED,
                f"{method} does not work on {unquote(raw_path)}; it takes {allowed}",
                headers={"Allow": allowed},
            )
        raise self._nothing(segments, last, verb, raw_path)

    def _verbs_at(self, segments: list[str]) -> list[str]:
        return [route.verb for route in self.routes if route.verb and _match(route.segments, segments) is not None]

    def _nothing(self, segments: list[str], last: str, verb: str, raw_path: str) -> Problem:
        verbs = self._verbs_at([*segments[:-1], last]) if verb else []
        if verbs:
            return Problem(HTTPStatus.NOT_FOUND, f"there is no verb {verb!r} here; there are {', '.join(verbs)}")
        return Problem(
            HTTPStatus.NOT_FOUND, f"there is nothing at {unquote(raw_path)}; /openapi.json lists what there is"
        )


def _match(pattern: list[str], segments: list[str]) -> dict[str, str] | None:
    if len(pattern) != len(segments):
        return None
    names: dict[str, str] = {}
    for wanted, given in zip(pattern, segments, strict=True):
        if wanted.startswith("{"):
            if not given:
                return None
            names[wanted.strip("{}")] = unquote(given, errors="replace")
        elif wanted != given:
            return None
    return names
