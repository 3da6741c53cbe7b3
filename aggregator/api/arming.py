"""Disarming and arming: a person stops virtward's own action, on the fleet or a part of it, and lets it go on."""

from __future__ import annotations

from math import isfinite

from aiohttp import web

from aggregator.api.bodies import PlainObject
from aggregator.api.calls import Call, answer, only, word
from aggregator.api.nodes import node_record
from aggregator.api.problems import bad_request
from aggregator.api.router import Route
from aggregator.api.selector import read_selector
from aggregator.api.vm_state import vm_record
from aggregator.api.writes import commit
from aggregator.core.arming import scope_key
from aggregator.core.events import Armed, Disarmed, Event
from aggregator.core.state import State
from aggregator.core.views_fleet import holds

FOR_S_MAX = 366 * 86400.0


async def disarm(call: Call) -> web.StreamResponse:
    """Stop automatic action on a scope; said again, the new end counts. Answers what holds virtward then."""
    options = await call.options()
    only(options, "node", "vm", "labelSelector", "forSeconds")
    for_s = _seconds(options)

    def make(state: State, now: float) -> Event | None:
        node, vm, selector = _scope(state, options)
        until = now + for_s if for_s else 0.0
        return Disarmed(at=now, node=node, vm=vm, selector=selector, until=until, who=call.who)

    state, _ = await commit(call, make)
    return answer({"holds": holds(state, call.fleet.now())})


async def arm(call: Call) -> web.StreamResponse:
    """Let virtward act on a scope again; nothing changes where it is not disarmed."""
    options = await call.options()
    only(options, "node", "vm", "labelSelector")

    def make(state: State, now: float) -> Event | None:
        key = scope_key(word(options, "node"), word(options, "vm"), word(options, "labelSelector"))
        if key in state.disarmed:  # also of what has been deleted since
            held = state.disarmed[key]
            return Armed(at=now, node=held.node, vm=held.vm, selector=held.selector, who=call.who)
        _scope(state, options)
        return None

    state, _ = await commit(call, make)
    return answer({"holds": holds(state, call.fleet.now())})


def _scope(state: State, options: PlainObject) -> tuple[str, str, str]:
    node, vm, selector = word(options, "node"), word(options, "vm"), word(options, "labelSelector")
    if bool(node) + bool(vm) + bool(selector) > 1:
        raise bad_request("say a node, a VM or a labelSelector, one of them; with none it is the whole fleet")
    if node:
        node_record(state, node)
    if vm:
        vm_record(state, vm)
    if selector:
        read_selector(selector)
    return node, vm, selector


def _seconds(options: PlainObject) -> float:
    """Return how long, 0 for no end; Problem 400 for anything that is no time."""
    value = options.get("forSeconds")
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise bad_request("forSeconds must be a number")
    if not isfinite(value) or not 0 < value <= FOR_S_MAX:
        raise bad_request(f"forSeconds must be more than 0 and at most {FOR_S_MAX:.0f} (a year)")
    return float(value)


ROUTES = [
    Route(
        "POST",
        "/api/v1/disarm",
        disarm,
        "stop automatic action on the fleet, a node, a VM or what has these labels",
        "DisarmOrder",
    ),
    Route("POST", "/api/v1/arm", arm, "end a disarming; every silence counts anew", "ArmOrder"),
]
