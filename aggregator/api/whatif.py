"""What would happen: the loss of some nodes, and the standing report on the loss of each part of the fleet."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

import msgspec
from aiohttp import web

from aggregator.api.calls import Call, answer
from aggregator.api.problems import Problem, bad_request
from aggregator.api.router import Route
from aggregator.core import whatif as core
from aggregator.core.moments import rfc3339

NODES_MAX = 1000


async def what_if(call: Call) -> web.StreamResponse:
    """Answer which VMs would return where if the nodes of ?fail= were lost now; nothing is changed."""
    names = [name.strip() for name in call.query("fail").split(",") if name.strip()]
    if not names:
        raise bad_request("fail: name the nodes that are to be thought away, like ?fail=kvm2,kvm3")
    if len(names) > NODES_MAX:
        raise bad_request(f"fail: {len(names)} nodes are more than {NODES_MAX}")
    state = call.fleet.state
    unknown = [name for name in names if name not in state.nodes]
    if unknown:
        raise Problem(HTTPStatus.NOT_FOUND, f"there is no node {unknown[0]}")
    question = core.ask(state, tuple(dict.fromkeys(names)))
    return answer(msgspec.to_builtins(await asyncio.to_thread(core.answer, question)))


async def readiness(call: Call) -> web.StreamResponse:
    """Answer whether the loss of each node, rack and zone could be borne, as of the newest report."""
    report = call.fleet.readiness
    if report is None:
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "the first report is being made; ask again in some seconds")
    shown = msgspec.to_builtins(report)
    return answer({**shown, "at": rfc3339(report.at)})


ROUTES = [
    Route("GET", "/api/v1/whatif", what_if, "which VMs would return where if nodes were lost", answer="WhatIf"),
    Route("GET", "/api/v1/readiness", readiness, "whether each part's loss could be borne (N+1)", answer="Readiness"),
]
