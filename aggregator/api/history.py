"""Events and explanations: what the journal says, for people and for programs that follow it."""

from __future__ import annotations

from aiohttp import web

from aggregator.api.calls import Call, answer
from aggregator.api.lists import KEEPALIVE_S, resume_point, stream
from aggregator.api.nodes import node_record
from aggregator.api.problems import not_found
from aggregator.api.router import Route
from aggregator.api.vm_state import vm_record
from aggregator.api.watch import frame
from aggregator.core.explain import explain_node, explain_vm
from aggregator.core.state import HistoryLine
from aggregator.core.views import every_field, plain_event
from aggregator.fleet_access import HISTORY_LINES_MAX, HistoryQuery

EVENTS_DEFAULT = 500
EXPLAINED_LINES_MAX = 200


def _query(call: Call, after: int, limit: int) -> HistoryQuery:
    return HistoryQuery(after=after, kind=call.query("kind"), node=call.query("node"), vm=call.query("vm"), limit=limit)


async def get_events(call: Call) -> web.StreamResponse:
    """Answer the newest events that match ?kind=, ?node=, ?vm=, ?after=, ?limit=, oldest first; or a watch."""
    if call.flag("watch"):
        return await watch_events(call)
    limit = call.number("limit", EVENTS_DEFAULT, HISTORY_LINES_MAX)
    position = await _journalled(call)
    lines = await call.fleet.history(_query(call, call.number("after", 0, 2**62), limit))
    return answer({"items": [plain_event(line) for line in lines], "resourceVersion": str(position)})


async def _journalled(call: Call) -> int:
    """Return up to where lines can be read. The state may be further: what is folded is journalled a moment later."""
    return await call.fleet.wait_for_change(-1)


async def get_event(call: Call) -> web.StreamResponse:
    """Answer one event by its position, of those that the journal still gives out."""
    name = call.name
    if name.isascii() and name.isdigit() and 0 < int(name[:19]) < 2**62:
        lines = await call.fleet.history(HistoryQuery(after=int(name) - 1, limit=HISTORY_LINES_MAX))
        for line in lines:
            if line.position == int(name):
                return answer(plain_event(line))
    raise not_found("event", name)


async def watch_events(call: Call) -> web.StreamResponse:
    """Stream events as they are journalled, each with its position, so that a watch is taken up without a gap.

    At most HISTORY_LINES_MAX lines are made up for.
    """
    since = resume_point(call)

    async def write(response: web.StreamResponse) -> None:
        cursor = since if since is not None else 0
        limit = HISTORY_LINES_MAX if since is not None else EVENTS_DEFAULT
        while not call.hub.closed:
            position = await _journalled(call)
            lines = await call.fleet.history(_query(call, cursor, limit))
            for line in lines:
                await response.write(frame("ADDED", plain_event(line), str(line.position)))
            cursor = max(cursor, position, lines[-1].position if lines else 0)
            limit = HISTORY_LINES_MAX
            if not await call.hub.position_after(cursor, KEEPALIVE_S):
                await response.write(b": still here\n\n")

    return await stream(call, write)


async def explain(call: Call) -> web.StreamResponse:
    """Answer why a VM or a node is as it is."""
    if call.request.path.split("/")[4] == "vms":
        lines = await _lines_of_vm(call)
        return answer(every_field(explain_vm(call.fleet.state, vm_record(call.fleet.state, call.name), lines)))
    node_record(call.fleet.state, call.name)
    lines = list(await call.fleet.history(HistoryQuery(node=call.name, limit=EXPLAINED_LINES_MAX)))
    return answer(every_field(explain_node(call.fleet.state, node_record(call.fleet.state, call.name), lines)))


async def _lines_of_vm(call: Call) -> list[HistoryLine]:
    """Return the VM's lines, and what happened to the nodes it is bound to since its run began."""
    record = vm_record(call.fleet.state, call.name)
    nodes, since = dict.fromkeys(binding.node for binding in record.bindings), record.run_since
    lines = list(await call.fleet.history(HistoryQuery(vm=call.name, limit=EXPLAINED_LINES_MAX)))
    for node in nodes:
        found = await call.fleet.history(HistoryQuery(node=node, limit=EXPLAINED_LINES_MAX))
        lines += [line for line in found if not line.vm and line.at >= since]
    return sorted(lines, key=lambda line: line.position)


ROUTES = [
    Route("GET", "/api/v1/events", get_events, "history, newest last; ?watch=1 streams it", answer="List"),
    Route("GET", "/api/v1/events/{name}", get_event, "one event by its position", answer="EventView"),
    Route("GET", "/api/v1/explain/vms/{name}", explain, "why a VM is as it is", answer="Explanation"),
    Route("GET", "/api/v1/explain/nodes/{name}", explain, "why a node is as it is", answer="Explanation"),
]
