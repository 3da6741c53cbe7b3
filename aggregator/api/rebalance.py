"""Which move for balance would be next, and what it waits for."""

from __future__ import annotations

from aiohttp import web

from aggregator.api.calls import Call, answer
from aggregator.api.router import Route
from aggregator.core.views_balance import rebalance_view


async def rebalance(call: Call) -> web.StreamResponse:
    """Answer the move that would make the fleet more balanced; nothing is changed."""
    return answer(rebalance_view(call.fleet.state, call.fleet.now()))


ROUTES = [Route("GET", "/api/v1/rebalance", rebalance, "which move for balance would be next", answer="Rebalance")]
