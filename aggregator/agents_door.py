"""The agents' listener: open, or behind TLS with the fleet's own authority, its certificate renewed in place."""

from __future__ import annotations

import asyncio
import time

import structlog
from aiohttp import web

from aggregator.authority import Authority
from aggregator.core.state import State
from aggregator.joining import Desk, Joining
from aggregator.settings import Endpoint
from fleet.identity import Identity
from fleet.service import ServiceError
from fleet.tls import Listener

BODY_BYTES_MAX = 64 * 1024
RENEW_PAUSE_S_MIN = 1.0
ROTATION_LOOK_S = 1.0
NODES_TOLD_MAX = 10

_log = structlog.get_logger("aggregator.agents_door")


class AgentsDoor:
    """Listens for agents with certificates."""

    def __init__(self, app: web.Application, desk: Desk, authority: Authority) -> None:
        Joining(desk, authority).add_routes(app)
        self._authority = authority
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        self._listener: Listener | None = None
        self._desk = desk
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens, once it has started."""
        if self._listener is None:
            raise RuntimeError("the agents' door has not started")
        return self._listener.address

    async def start(self, endpoint: Endpoint, backlog: int) -> None:
        """Begin to listen. Raises ServiceError if the port is taken."""
        _context, own = self._authority.context()
        await self._runner.setup()
        self._listener = Listener(self._runner, lambda: self._authority.present_context)
        try:
            self._listener.start(endpoint.host, endpoint.port, backlog)
        except OSError as error:
            await self._runner.cleanup()
            raise endpoint.taken(error) from None
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._keep_renewing(own)), loop.create_task(self._keep_rotating())]

    async def cleanup(self) -> None:
        """Stop listening and end every connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._listener is not None:
            await self._listener.stop()
        await self._runner.cleanup()

    async def _keep_renewing(self, own: Identity) -> None:
        while True:
            await asyncio.sleep(max(RENEW_PAUSE_S_MIN, own.renew_at - time.time()))
            try:
                _context, own = self._authority.context()
            except OSError as error:
                _log.warning("own certificate not renewed", reason=error.strerror or str(error))

    async def _keep_rotating(self) -> None:
        """Lead a rotation of the authorities through its steps, each when every member is ready for it."""
        told: list[str] = []
        while True:
            await asyncio.sleep(ROTATION_LOOK_S)
            try:
                if not self._authority.look():
                    continue
                waiting = waits_for(self._desk.state, self._authority)
                if not waiting:
                    _log.info("authority rotated", step=self._authority.step())
                elif waiting != told:
                    _log.info("rotation of the authority waits", nodes=waiting[:NODES_TOLD_MAX], count=len(waiting))
                told = waiting
            except (OSError, ServiceError) as error:
                _log.warning("authority not rotated", reason=str(error))


def waits_for(state: State, authority: Authority) -> list[str]:
    """Return the members that do not hold the present trust yet, with certificates by who signs now."""
    version = authority.trust(state).version
    members = (node for node in state.nodes.values() if node.credentials.enrolment)
    return [node.name for node in members if node.facts is None or node.facts.trust != version]
