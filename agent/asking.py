"""Asks an aggregator outside of a session, over HTTP. Knows nothing of what is asked."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from http import HTTPStatus

import aiohttp

from fleet.identity import IdentityError

ASK_S_MAX = 5.0
ANSWER_BYTES_MAX = 512 * 1024  # revocation lists included


async def ask(url: str, path: str, body: bytes | None, context: ssl.SSLContext, server_name: str | None) -> bytes:
    """Return an aggregator's answer. IdentityError with its words if it refuses, aiohttp's errors if it cannot."""
    whole = url.rstrip("/").replace("wss://", "https://", 1) + path
    timeout = aiohttp.ClientTimeout(total=ASK_S_MAX)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.request(
            "GET" if body is None else "POST",
            whole,
            data=body,
            ssl=context,
            server_hostname=server_name,
            allow_redirects=False,
        ) as answer,
    ):
        raw = b"".join([part async for part in _bounded(answer)])
        if answer.status != HTTPStatus.OK:
            raise IdentityError(f"{url}: {raw.decode(errors='replace').strip()[:300] or answer.status}")
        return raw


async def _bounded(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    left = ANSWER_BYTES_MAX
    async for part in answer.content.iter_any():
        left -= len(part)
        if left < 0:
            raise IdentityError(f"the answer is longer than {ANSWER_BYTES_MAX} bytes")
        yield part
