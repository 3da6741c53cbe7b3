"""One request on its way through a handler: its names, query, body and answer.

Knows HTTP and JSON and hands the fleet on; knows no object.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus

import msgspec
from aiohttp import web

from aggregator.api.bodies import PlainObject, as_object, read_documents
from aggregator.api.problems import bad_request
from aggregator.api.rights import Rights
from aggregator.api.watch import Hub
from aggregator.fleet_access import FleetAccess

_TRUE = ("1", "true", "True", "yes")
_FALSE = ("", "0", "false", "False", "no")


@dataclass(kw_only=True)
class Call:
    """A request that has been let in."""

    fleet: FleetAccess
    hub: Hub
    request: web.Request
    names: dict[str, str]
    raw: bytes = b""
    rights: Rights
    _documents: list[object] | None = field(default=None, repr=False)

    @property
    def who(self) -> str:
        """Who asks."""
        return self.rights.who

    @property
    def name(self) -> str:
        """The object's name in the path."""
        return self.names["name"]

    def query(self, key: str) -> str:
        """Return a query parameter, empty if it is not there."""
        return self.request.query.get(key, "")

    def flag(self, key: str) -> bool:
        """Return a query parameter as yes or no; Problem 400 if it is neither."""
        value = self.query(key)
        if value in _TRUE:
            return True
        if value in _FALSE:
            return False
        raise bad_request(f"{key}={value!r} is neither 1 nor 0")

    def number(self, key: str, default: int, most: int) -> int:
        """Return a query parameter as a number between 0 and `most`; Problem 400 if it is none."""
        value = self.query(key)
        if not value:
            return default
        if not value.isascii() or not value.isdigit() or len(value) > 18:  # noqa: PLR2004 (digits of 2^63)
            raise bad_request(f"{key}={value!r} is no number")
        return min(int(value), most)

    @property
    def dry_run(self) -> bool:
        """Whether nothing shall be changed."""
        return self.flag("dryRun")

    async def documents(self) -> list[object]:
        """Return the documents of the body."""
        if self._documents is None:
            self._documents = await read_documents(self.raw, self.request.content_type if self.raw else "")
        return self._documents

    async def document(self) -> PlainObject:
        """Return the one object of the body; Problem 400 if it is none or not one."""
        found = await self.documents()
        if len(found) != 1:
            raise bad_request(f"the body holds {len(found)} documents; this takes one")
        return as_object(found[0], "the body")

    async def options(self) -> PlainObject:
        """Return the object of a verb's body; no body is an empty one."""
        found = await self.documents()
        return as_object(found[0], "the body") if found else {}


def is_dry(request: web.Request) -> bool:
    """Tell whether a request says that nothing shall be changed."""
    return request.query.get("dryRun", "") in _TRUE


def only(options: PlainObject, *allowed: str) -> None:
    """Refuse what a verb does not know."""
    for key in options:
        if key not in allowed:
            takes = f"it takes {', '.join(allowed)}" if allowed else "it takes none"
            raise bad_request(f"this verb has no option {key!r}; {takes}")


def truth(options: PlainObject, key: str) -> bool:
    """Return a yes or no of a verb's body; Problem 400 if it is neither."""
    value = options.get(key)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise bad_request(f"{key} must be true or false")
    return value


def word(options: PlainObject, key: str) -> str:
    """Return a text of a verb's body, empty if it is missing or null; Problem 400 if it is no text."""
    value = options.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise bad_request(f"{key} must be a text")
    return value


def answer(value: object, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    """Return a JSON answer."""
    return web.Response(status=status, body=msgspec.json.encode(value), content_type="application/json")
