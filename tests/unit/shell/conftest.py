"""A whole aggregator without its API, on a port of loopback, with real store, loop and core."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from aggregator.fault_point import FaultPoint
from aggregator.fleet import Fleet, open_fleet
from tests.unit.shell.agent_speaker import AgentSpeaker
from tests.unit.shell.identity_world import World, settings_of

Opener = Callable[..., Awaitable["Running"]]


class Running:
    """An aggregator that listens for agents."""

    def __init__(self, fleet: Fleet, runner: web.AppRunner) -> None:
        self.fleet, self.runner = fleet, runner
        self.speakers: list[AgentSpeaker] = []
        self.closed = False

    @property
    def url(self) -> str:
        host, port = self.runner.addresses[0][:2]
        return f"http://{host}:{port}/agent/v1"

    def agent(self, node: str, token: str = "", **changes: object) -> AgentSpeaker:
        """Return an agent that is not connected yet. token: empty for the right one."""
        speaker = AgentSpeaker(self.url, node, token or f"token-of-{node}", tls=None, **changes)
        self.speakers.append(speaker)
        return speaker

    async def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        for speaker in self.speakers:
            await speaker.close()
        try:
            await self.fleet.close()
        finally:
            await self.runner.cleanup()


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opener]:
    """Open aggregators over one store, one after the other; the last ones are closed afterwards."""
    running: list[Running] = []

    async def open_one(**config: object) -> Running:
        fleet = await open_fleet(settings_of(tmp_path, **config), FaultPoint(""))
        runner = web.AppRunner(fleet.intake.make_app(), access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        running.append(Running(fleet, runner))
        return running[-1]

    yield open_one
    for one in running:
        await one.close()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """An aggregator whose agents have certificates."""
    one = World(tmp_path)
    await one.start()
    yield one
    await one.close()
