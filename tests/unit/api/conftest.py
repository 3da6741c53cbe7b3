"""The real application on a socket of loopback, and a client that speaks to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from aggregator.api.app import make_app
from aggregator.fleet_access import FleetAccess
from tests.unit.api.world import TOKEN, World


@dataclass
class Answer:
    """What came back."""

    status: int
    type: str
    body: Any
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def detail(self) -> str:
        """The sentence of a problem."""
        assert self.type == "application/problem+json", self
        assert self.body["status"] == self.status
        detail: str = self.body["detail"]
        assert "Traceback" not in detail
        assert "\n" not in detail
        return detail


class Api:
    """A client of one application."""

    def __init__(self, world: FleetAccess, base: str, session: aiohttp.ClientSession) -> None:
        self.world, self.base, self.session = world, base, session

    async def __call__(self, method: str, path: str, body: Any = None, **options: Any) -> Answer:
        headers = {"Authorization": f"Bearer {TOKEN}", **options.pop("headers", {})}
        if options.pop("open", False):
            del headers["Authorization"]
        if isinstance(body, (bytes, str)):
            options["data"] = body
        elif body is not None:
            options["json"] = body
        from yarl import URL  # noqa: PLC0415

        url = URL(self.base + path, encoded=True)
        async with self.session.request(method, url, headers=headers, allow_redirects=False, **options) as response:
            raw = await response.read()
            parsed = await response.json(content_type=None) if "json" in response.content_type and raw else raw.decode()
            return Answer(response.status, response.content_type, parsed, dict(response.headers))


@pytest.fixture
async def world() -> World:
    return World()


@pytest.fixture
async def api(world: World) -> AsyncIterator[Api]:
    runner = web.AppRunner(make_app(world), shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    session = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))
    try:
        yield Api(world, f"http://{host}:{port}", session)
    finally:
        await session.close()
        await runner.cleanup()
