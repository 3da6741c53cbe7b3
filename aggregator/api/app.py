"""The HTTP application: one door, one table of routes, and problems instead of tracebacks.

Knows how a request passes through: route, token, body, idempotency, handler. What handlers do is
in their own files.
"""

from __future__ import annotations

import asyncio
import secrets
from http import HTTPStatus
from pathlib import Path

import structlog
from aiohttp import web

from aggregator.api import (
    arming,
    cluster,
    drains,
    fencing,
    history,
    lists,
    moves,
    nodes,
    policies,
    rebalance,
    screenshots,
    tokens,
    vm_verbs,
    vms,
    whatif,
)
from aggregator.api.audit import Audit
from aggregator.api.auth import Door
from aggregator.api.bodies import BODY_BYTES_MAX
from aggregator.api.calls import Call
from aggregator.api.idempotency import Keys
from aggregator.api.idle import Idle
from aggregator.api.openapi import openapi_route
from aggregator.api.problems import Problem, problem_of, problem_response
from aggregator.api.rights import Rights, check_route
from aggregator.api.router import WRITES, Route, Router
from aggregator.api.watch import Hub
from aggregator.core.events import ApiRole
from aggregator.fleet_access import FleetAccess, NotServingError
from aggregator.ui.pages import Pages

BODY_S_MAX = 60.0
FORM_BYTES_MAX = 4096  # of a body that nobody vouches for
NOBODY = Rights("", ApiRole.VIEWER)
_log = structlog.get_logger(__name__)

API_ROUTES: tuple[Route, ...] = (
    *lists.ROUTES,
    *nodes.ROUTES,
    *vms.ROUTES,
    *vm_verbs.ROUTES,
    *moves.ROUTES,
    *drains.ROUTES,
    *policies.ROUTES,
    *fencing.ROUTES,
    *arming.ROUTES,
    *history.ROUTES,
    *screenshots.ROUTES,
    *cluster.ROUTES,
    *whatif.ROUTES,
    *rebalance.ROUTES,
    *tokens.ROUTES,
)


class Api:
    """Answers requests about one fleet."""

    def __init__(self, fleet: FleetAccess, audit: Audit, idle: Idle | None = None) -> None:
        self._fleet, self._audit, self._idle = fleet, audit, idle or Idle()
        self._door = Door(fleet)
        self._keys = Keys()
        self.hub = Hub(fleet, lists.RENDERS)
        pages = Pages(self._door)
        routes = [*API_ROUTES, *pages.routes()]
        self.router = Router([*routes, openapi_route(routes, cluster.own_version())])

    async def dispatch(self, request: web.Request) -> web.StreamResponse:
        """Answer one request, whatever happens."""
        transport = request.transport
        self._idle.asked(transport)
        try:
            return await self._dispatch(request)
        finally:
            self._idle.answered(transport)

    async def _dispatch(self, request: web.Request) -> web.StreamResponse:
        try:
            response = await self._answer(request)
        except Problem as problem:
            response = problem_response(problem)
        except NotServingError as error:
            response = problem_response(_not_serving(error))
        except web.HTTPException as error:
            response = problem_response(problem_of(error))
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception:  # noqa: BLE001 (the rim of the service: nothing but a sentence leaves it)
            response = problem_response(_unexpected(request))
        if not response.prepared:
            response.headers.setdefault("Cache-Control", "no-store")
            response.headers.setdefault("X-Content-Type-Options", "nosniff")
        return response

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        route, names = self.router.resolve(request.method, request.rel_url.raw_path)
        if route.is_open or route.method not in WRITES:
            if route.is_open:
                self._door.take_open(request)
                return await route.handler(await self._call(request, names, NOBODY, FORM_BYTES_MAX))
            rights = self._door.admit(request)
            check_route(rights, route, self._fleet.state, names)
            self._door.take_read(rights)
            return await route.handler(await self._call(request, names, rights))
        rights, status = NOBODY, int(HTTPStatus.INTERNAL_SERVER_ERROR)
        try:
            rights = self._door.admit(request)
            check_route(rights, route, self._fleet.state, names)
            self._door.take_write(rights)
            call = await self._call(request, names, rights)
            response = await self._keys.once(rights.who, request, call.raw, lambda: route.handler(call))
            status = response.status
        except Problem as problem:
            status = int(problem.status)
            raise
        except NotServingError:
            status = int(HTTPStatus.SERVICE_UNAVAILABLE)
            raise
        finally:
            await self._audit.note(self._fleet.now(), rights.who, request, status)
        return response

    async def _call(
        self, request: web.Request, names: dict[str, str], rights: Rights, bytes_max: int = BODY_BYTES_MAX
    ) -> Call:
        try:
            async with asyncio.timeout(BODY_S_MAX):
                raw = await (request.read() if bytes_max == BODY_BYTES_MAX else _read_form(request, bytes_max))
        except TimeoutError:
            raise Problem(HTTPStatus.REQUEST_TIMEOUT, f"the body did not arrive within {BODY_S_MAX:.0f} s") from None
        return Call(fleet=self._fleet, hub=self.hub, request=request, names=names, raw=raw, rights=rights)


async def _read_form(request: web.Request, bytes_max: int) -> bytes:
    """Return a body that nobody vouches for: no more of it is taken in than may be in it."""
    raw = b""
    async for part in request.content.iter_any():
        raw += part
        if len(raw) > bytes_max:
            raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is longer than {bytes_max} bytes")
    return raw


def _not_serving(error: NotServingError) -> Problem:
    why = str(error) or "it starts, stops or has lost its store"
    return Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        f"the aggregator takes no writes now: {why}; try again",
        headers={"Retry-After": "2"},
    )


def _unexpected(request: web.Request) -> Problem:
    mark = secrets.token_hex(4)
    _log.exception("request failed", method=request.method, path=request.path, mark=mark)
    return Problem(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        f"the aggregator failed at this request; its log says why, at the mark {mark}",
    )


def make_app(fleet: FleetAccess, audit_file: Path | None = None, idle: Idle | None = None) -> web.Application:
    """Return the application of a fleet: API, page, health and metrics. Its caller listens and shuts it down.

    audit_file: where every write is recorded; None: only in the log. idle: is told of connections that wait.
    """
    api = Api(fleet, Audit(audit_file), idle)
    app = web.Application(client_max_size=BODY_BYTES_MAX)
    app.router.add_route("*", "/{everything:.*}", api.dispatch)

    async def close(_app: web.Application) -> None:
        await api.hub.close()

    app.on_shutdown.append(close)
    return app
