"""`Idempotency-Key`: a write that is sent again gets the answer of the first, and nothing happens twice.

Knows requests and answers as bytes. Answers are kept in memory, bounded in number and time; after a
restart of the aggregator a repeated write is done anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from http import HTTPStatus
from time import monotonic
from typing import NamedTuple

from aiohttp import web

from aggregator.api.problems import Problem, bad_request, conflict

KEYS_MAX = 2000
KEEP_S_MAX = 600.0
KEY_CHARACTERS_MAX = 200
BODY_KEPT_BYTES_MAX = 256 * 1024


class Kept(NamedTuple):
    """One write under a key. answer: None while it is being done."""

    fingerprint: bytes
    at: float
    answer: tuple[int, bytes, str] | None


class Keys:
    """Remembers the answers of writes."""

    def __init__(self) -> None:
        self._kept: dict[str, Kept] = {}

    async def once(
        self, who: str, request: web.Request, raw: bytes, do: Callable[[], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Return the answer of `do`, or the earlier one for the same key.

        Problem 409 while the first is still being done, 422 if the key was used for another write.
        """
        key = request.headers.get("Idempotency-Key", "")
        if not key:
            return await do()
        if len(key) > KEY_CHARACTERS_MAX:
            raise bad_request(f"Idempotency-Key is longer than {KEY_CHARACTERS_MAX} characters")
        key = f"{who} {key}"  # nobody is given another's answer
        fingerprint = _fingerprint(request, raw)
        kept = self._kept.get(key)
        if kept is not None and monotonic() - kept.at < KEEP_S_MAX:
            return _again(kept, fingerprint)
        self._make_room()
        self._kept[key] = Kept(fingerprint, monotonic(), None)
        try:
            response = await do()
        except (Exception, asyncio.CancelledError):
            self._kept.pop(key, None)
            raise
        body = response.body if isinstance(response, web.Response) else None
        if isinstance(body, bytes) and len(body) <= BODY_KEPT_BYTES_MAX:
            self._kept[key] = Kept(fingerprint, monotonic(), (response.status, body, response.content_type))
        else:
            self._kept.pop(key, None)
        return response

    def _make_room(self) -> None:
        now = monotonic()
        while self._kept:
            oldest = next(iter(self._kept))
            if len(self._kept) < KEYS_MAX and now - self._kept[oldest].at < KEEP_S_MAX:
                return
            del self._kept[oldest]


def _again(kept: Kept, fingerprint: bytes) -> web.Response:
    if kept.fingerprint != fingerprint:
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY, "this Idempotency-Key was used for another request; take a new one"
        )
    if kept.answer is None:
        raise conflict("the first request with this Idempotency-Key is still being done; ask again")
    status, body, content_type = kept.answer
    return web.Response(status=status, body=body, content_type=content_type, headers={"Idempotency-Replayed": "true"})


def _fingerprint(request: web.Request, raw: bytes) -> bytes:
    digest = blake2b(digest_size=16)
    for part in (request.method.encode(), request.path_qs.encode(), request.content_type.encode(), raw):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.digest()
