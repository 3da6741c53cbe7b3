"""The running aggregator: its parts put together, in the order they must start and stop.

Fulfils FleetAccess for the API and Desk for the intake. Decides nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog
from aiohttp import web

from aggregator.act.agents import AgentsHand
from aggregator.act.fence import FenceHand
from aggregator.act.hands import AllHands
from aggregator.api.app import make_app
from aggregator.clock import FleetClock
from aggregator.core.events import Event
from aggregator.core.journal_form import FORM_VERSION
from aggregator.core.state import HistoryLine, State
from aggregator.fact_queue import Check
from aggregator.fault_point import FaultPoint
from aggregator.fleet_access import DefinitionVerdict, HistoryQuery, NotServingError
from aggregator.intake import Intake
from aggregator.journal_row import line_of
from aggregator.loop import CoreFailedError, Loop
from aggregator.new_life import begin
from aggregator.settings import Endpoint, Settings
from aggregator.store.protocol import Store, StoreError
from aggregator.store.sqlite import SqliteStore
from fleet.service import Service, ServiceError

STOP_S_MAX = 5.0

_log = structlog.get_logger("aggregator")


class Fleet:
    """The state behind its loop, as API and intake see it."""

    def __init__(self, loop: Loop, store: Store, clock: FleetClock, token_sha256: str) -> None:
        self._loop, self._store, self._clock = loop, store, clock
        self.token_sha256 = token_sha256
        self.now: Callable[[], float] = clock.now
        self.offer, self.report, self.at_rest = loop.offer, loop.report, loop.at_rest
        self.intake = Intake(self)

    @property
    def state(self) -> State:
        return self._loop.state

    @property
    def durable_position(self) -> int:
        return self._loop.durable_position

    @property
    def leading(self) -> bool:
        return self._loop.leading

    @property
    def leader_ready(self) -> bool:
        return self._loop.leading

    async def submit(self, fact: Event, check: Check | None = None) -> int:
        return await self._loop.submit(fact, check)

    async def check_definition(self, xml: str, timeout_s: float = 5.0) -> DefinitionVerdict:
        return await self.intake.checks.ask(xml, timeout_s)

    async def history(self, query: HistoryQuery) -> Sequence[HistoryLine]:
        try:
            return [line_of(row) for row in await self._store.history(query)]
        except StoreError as error:
            raise NotServingError(str(error)) from None

    async def wait_for_change(self, since_position: int) -> int:
        return await self._loop.wait_for_change(since_position)


async def run_aggregator(settings: Settings, service: Service, fault_point: FaultPoint) -> None:
    """Run until service.stopping; ServiceError if it cannot begin or must not go on."""
    clock = FleetClock()
    store = SqliteStore(settings.state_dir, FORM_VERSION)
    try:
        beginning = await begin(store, clock, settings.config)
    except StoreError as error:
        await store.close()
        raise ServiceError(str(error)) from None
    loop = Loop(beginning.state, store, clock, fault_point)
    fleet = Fleet(loop, store, clock, settings.token_sha256)
    fence = FenceHand(settings.fence_agents_dir, clock.now, loop.report, lambda: loop.leading)
    hands = AllHands(AgentsHand(fleet.intake, clock.now, loop.report, lambda: loop.leading), fence)
    turning = asyncio.create_task(loop.run(beginning.first, hands))
    runners: list[web.AppRunner] = []
    try:
        await loop.first_turn_or_end()
        if not turning.done():
            for app, endpoint in ((fleet.intake.make_app(), settings.agents), (make_app(fleet), settings.api)):
                runners.append(await _listen(app, endpoint))
            service.ready(f"leads in term {loop.state.leader.term}")
            _log.info("serving", api=str(settings.api), agents=str(settings.agents), term=loop.state.leader.term)
        await _until_stopped(service, loop, turning)
    finally:
        loop.stop()
        await asyncio.wait({turning}, timeout=STOP_S_MAX)
        turning.cancel()
        fence.close()
        await fleet.intake.close()
        for runner in runners:
            await runner.cleanup()
        await store.close()
    _raise_failure(turning)


async def _listen(app: web.Application, endpoint: Endpoint) -> web.AppRunner:
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, endpoint.host, endpoint.port, backlog=1024).start()
    except OSError as error:
        await runner.cleanup()
        raise ServiceError(f"cannot listen on {endpoint}: {error.strerror or error}; is another one running?") from None
    return runner


async def _until_stopped(service: Service, loop: Loop, turning: asyncio.Task[None]) -> None:
    """Return when asked to stop or when the loop has ended; feed systemd's watchdog while the loop turns."""
    stopping = asyncio.create_task(service.stopping.wait())
    every_s = service.watchdog_every_s
    try:
        while not turning.done() and not stopping.done():
            turns = loop.turns
            loop.wake()
            await asyncio.wait({turning, stopping}, timeout=every_s, return_when=asyncio.FIRST_COMPLETED)
            if loop.turns > turns:
                service.feed_watchdog()
    finally:
        stopping.cancel()


def _raise_failure(turning: asyncio.Task[None]) -> None:
    if turning.cancelled() or not turning.done():
        raise ServiceError(f"the loop did not end within {STOP_S_MAX:.0f} s; the store is too slow or hangs")
    error = turning.exception()
    if isinstance(error, (StoreError, CoreFailedError)):
        raise ServiceError(f"{error}; nothing more is done by this process") from None
    if error is not None:
        raise error
