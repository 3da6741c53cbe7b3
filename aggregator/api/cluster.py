"""The fleet as a whole: its settings, its summary, and whether this aggregator is alive and serves."""

from __future__ import annotations

from functools import cache
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version

from aiohttp import web

from aggregator.api.bodies import PlainObject
from aggregator.api.calls import Call, answer
from aggregator.api.metrics import exposition
from aggregator.api.objects_in import merged_settings
from aggregator.api.problems import Problem, refused
from aggregator.api.router import Route
from aggregator.api.writes import commit
from aggregator.core.events import ConfigChanged, Event
from aggregator.core.moments import rfc3339
from aggregator.core.policy import read_config, write_config
from aggregator.core.state import State
from aggregator.core.views_fleet import fleet_view


@cache
def own_version() -> str:
    """Return the version of this installation."""
    try:
        return version("virtward")
    except PackageNotFoundError:
        return "unknown"


async def get_status(call: Call) -> web.StreamResponse:
    """Answer the fleet in a few lines."""
    shown = fleet_view(call.fleet.state, call.fleet.now())
    report = call.fleet.readiness
    uncovered = None if report is None else [f"{part.kind} {part.name}" for part in report.uncovered]
    ways = [
        {"source": way.source, "target": way.target, "why": way.why, "since": rfc3339(way.since)}
        for way in call.fleet.closed_ways
    ]
    known = {"uncoveredLosses": uncovered, "closedWays": ways}
    return answer({"version": own_version(), "ready": call.fleet.leader_ready, **shown, **known})


async def get_config(call: Call) -> web.StreamResponse:
    """Answer all settings."""
    return answer(write_config(call.fleet.state.config))


async def put_config(call: Call) -> web.StreamResponse:
    """Replace the settings; what is left out gets its default."""
    return await _change(call, await call.document(), whole=True)


async def patch_config(call: Call) -> web.StreamResponse:
    """Change some settings; null gives a setting its default."""
    return await _change(call, await call.document(), whole=False)


async def _change(call: Call, wanted: PlainObject, *, whole: bool) -> web.StreamResponse:
    def make(state: State, now: float) -> Event | None:
        current = write_config(state.config)
        raw = wanted if whole else merged_settings(current, wanted)
        try:
            config = read_config(raw)
        except ValueError as error:
            raise refused(f"ClusterConfig: {error}") from None
        plain = write_config(config)
        return None if plain == current else ConfigChanged(at=now, config=plain, who=call.who)

    state, _ = await commit(call, make)
    return answer(write_config(state.config))


async def healthz(_call: Call) -> web.StreamResponse:
    """Answer that this process answers."""
    return answer({"status": "alive"})


async def readyz(call: Call) -> web.StreamResponse:
    """Answer 200 only while this aggregator leads and its loop takes writes."""
    if not call.fleet.leader_ready:
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE, "this aggregator does not act now: it starts, stops or has no store"
        )
    return answer({"status": "ready"})


async def metrics(call: Call) -> web.StreamResponse:
    """Answer the metrics in Prometheus' text form."""
    text, content_type = exposition(call.fleet)
    return web.Response(body=text, headers={"Content-Type": content_type})


ROUTES = [
    Route("GET", "/api/v1/status", get_status, "the fleet in a few lines", answer="Status"),
    Route("GET", "/api/v1/config", get_config, "all settings", answer="ClusterConfig"),
    Route("PUT", "/api/v1/config", put_config, "replace the settings", "ClusterConfig", "ClusterConfig"),
    Route("PATCH", "/api/v1/config", patch_config, "change some settings", "ClusterConfig", "ClusterConfig"),
    Route("GET", "/healthz", healthz, "whether this process answers", is_open=True),
    Route("GET", "/readyz", readyz, "whether this aggregator acts", is_open=True),
    Route("GET", "/metrics", metrics, "metrics for Prometheus", is_open=True),
]
