"""The running aggregator: a life begun, its two doors open, until it is asked to stop or must not go on."""

from __future__ import annotations

import asyncio

import structlog
from aiohttp import web

from aggregator.agents_door import AgentsDoor
from aggregator.api_door import ApiDoor
from aggregator.fault_point import FaultPoint
from aggregator.fleet import Fleet, open_fleet
from aggregator.placement.exact import load_solver
from aggregator.settings import Endpoint, Settings
from fleet.service import Service

BACKLOG_CONNECTIONS_MAX = 1024

_log = structlog.get_logger("aggregator")


async def run_aggregator(settings: Settings, service: Service, fault_point: FaultPoint) -> None:
    """Run until service.stopping; ServiceError or ConfigError if it cannot begin or must not go on."""
    loading = asyncio.create_task(asyncio.to_thread(load_solver))  # a recovery in want of room must not wait for it
    fleet = await open_fleet(settings, fault_point)
    runners: list[web.AppRunner | AgentsDoor | ApiDoor] = []
    try:
        if fleet.authority is not None:
            door = AgentsDoor(fleet.intake.make_app(), fleet, fleet.authority)
            runners.append(door)
            await door.start(settings.agents, BACKLOG_CONNECTIONS_MAX)
        else:
            _log.warning("agents speak openly; keep their network to yourself", setting="agents_tls")
            runners.append(await _listen(fleet.intake.make_app(), settings.agents))
        api = ApiDoor(fleet, settings, fleet.authority)
        runners.append(api)
        await api.start(settings.api, BACKLOG_CONNECTIONS_MAX)
        term = fleet.state.leader.term
        service.ready(f"leads in term {term}")
        scheme = "https" if settings.api_tls else "http"
        _log.info(
            "serving", name=settings.name, api=f"{scheme}://{settings.api}", agents=str(settings.agents), term=term
        )
        await _until_stopped(service, fleet)
    finally:
        try:
            await fleet.close()
        finally:
            for runner in runners:
                await runner.cleanup()
            await loading


async def _listen(app: web.Application, endpoint: Endpoint) -> web.AppRunner:
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, endpoint.host, endpoint.port, backlog=BACKLOG_CONNECTIONS_MAX).start()
    except OSError as error:
        await runner.cleanup()
        raise endpoint.taken(error) from None
    return runner


async def _until_stopped(service: Service, fleet: Fleet) -> None:
    """Return when asked to stop or when the loop has ended; feed systemd's watchdog while the loop turns."""
    stopping = asyncio.create_task(service.stopping.wait())
    every_s = service.watchdog_every_s
    try:
        while not fleet.turning.done() and not stopping.done():
            turns = fleet.loop.turns
            fleet.loop.wake()
            await asyncio.wait({fleet.turning, stopping}, timeout=every_s, return_when=asyncio.FIRST_COMPLETED)
            if fleet.loop.turns > turns:
                service.feed_watchdog()
    finally:
        stopping.cancel()
