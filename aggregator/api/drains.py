"""Drains, as people order, pause, resume and cancel them: of one node, or of all with some labels in turn."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from msgspec import structs

from aggregator.api.calls import Call, answer, only, truth, word
from aggregator.api.foretelling import foretell
from aggregator.api.lists import one
from aggregator.api.nodes import node_record
from aggregator.api.problems import bad_request, conflict, not_found, refused
from aggregator.api.router import Route
from aggregator.api.selector import read_selector
from aggregator.api.writes import Make, commit
from aggregator.core.events import DrainCancelled, DrainPaused, DrainRequested, Event
from aggregator.core.fold_moves import DRAINS_OPEN
from aggregator.core.labels import RACK, ZONE
from aggregator.core.selector import selects
from aggregator.core.state import DrainRecord, NodeRecord, State
from aggregator.core.views_drain import plain_drain, planned_drain

DEADLINE_S_MAX = 30 * 86400.0
JOB_NODES_MAX = 1000


async def drain(call: Call) -> web.StreamResponse:
    """Empty a node and keep it empty until uncordon; dryRun: only the plan."""
    options = await call.options()
    only(options, "dryRun", "deadlineSeconds", "force")
    force = truth(options, "force")
    deadline_s = _deadline(options.get("deadlineSeconds"), call.fleet.state)
    record = node_record(call.fleet.state, call.name)
    if truth(options, "dryRun") or call.dry_run:
        foretold = await foretell(call.fleet, [record.name], force=force)
        plan = planned_drain(call.fleet.state, record.name, force=force, deadline_s=deadline_s, foretold=foretold)
        return answer(plain_drain(plan))

    def make(state: State, now: float) -> Event | None:
        node = node_record(state, call.name)
        running = state.drains.get(call.name)
        if node.drain and running is not None and running.state == "Running" and running.force == force:
            return None
        return DrainRequested(at=now, node=call.name, deadline_s=deadline_s, force=force, who=call.who)

    state, _ = await commit(call, make)
    return answer(one(state, "drains", call.name))


async def drain_in_turn(call: Call) -> web.StreamResponse:
    """Empty all nodes with some labels, one failure domain after another: the next one when the last is open again."""
    options = await call.options()
    only(options, "labelSelector", "dryRun", "deadlineSeconds", "force")
    force = truth(options, "force")
    deadline_s = _deadline(options.get("deadlineSeconds"), call.fleet.state)
    selector = read_selector(word(options, "labelSelector"))
    if not selector:
        raise bad_request("labelSelector is required: which nodes are to be emptied")
    nodes = [node for _, node in sorted(call.fleet.state.nodes.items()) if selects(selector, node.labels)]
    if not nodes:
        raise refused(f"no node has the labels {word(options, 'labelSelector')}")
    if len(nodes) > JOB_NODES_MAX:
        raise refused(f"{len(nodes)} nodes have these labels; drain at most {JOB_NODES_MAX} at once")
    turns = in_turn(nodes)
    if truth(options, "dryRun") or call.dry_run:
        foretold = await foretell(call.fleet, [node.name for node, _ in turns], force=force)
        plans = [
            planned_drain(call.fleet.state, node.name, force=force, deadline_s=deadline_s, foretold=foretold)
            for node, _ in turns
        ]
        return answer({"items": [plain_drain(plan) for plan in plans]})
    job = f"drain-{call.fleet.state.position}"
    for node, _ in turns:  # all or none
        _refuse_second(call.fleet.state, node)
    for turn, (node, domain) in enumerate(turns):
        wanted = DrainRequested(
            at=0.0,
            node=node.name,
            deadline_s=deadline_s,
            force=force,
            who=call.who,
            job=job,
            domain=domain,
            turn=turn,
            keeps_spare=True,
        )
        await commit(call, _requested(wanted))
    return answer({"items": [one(call.fleet.state, "drains", node.name) for node, _ in turns]})


def in_turn(nodes: list[NodeRecord]) -> list[tuple[NodeRecord, str]]:
    """Return the nodes with the failure domain of each, those of one domain together.

    The domain is the rack where all of them have one, else the zone, else each node is one of its own.
    """
    key = next((label for label in (RACK, ZONE) if all(node.labels.get(label) for node in nodes)), "")
    found = [(node, node.labels[key] if key else node.name) for node in nodes]
    return sorted(found, key=lambda pair: (pair[1], pair[0].name))


def _requested(wanted: DrainRequested) -> Make:
    def make(state: State, now: float) -> Event | None:
        _refuse_second(state, node_record(state, wanted.node))
        return structs.replace(wanted, at=now)

    return make


def _refuse_second(state: State, node: NodeRecord) -> None:
    running = state.drains.get(node.name)
    if node.drain or (running is not None and running.state in DRAINS_OPEN):
        raise conflict(f"node {node.name} is being drained already; virtward uncordon {node.name} ends that")


def _deadline(value: object, state: State) -> float:
    if value is None:
        return float(state.config.eviction.deadline or 0.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= DEADLINE_S_MAX:
        raise bad_request(f"deadlineSeconds must be a number from 0 to {DEADLINE_S_MAX:.0f}")
    return float(value)


def _open_drain(state: State, name: str) -> DrainRecord:
    record = state.drains.get(name)
    if record is None or name not in state.nodes:
        raise not_found("drain", name)
    if record.state not in DRAINS_OPEN:
        raise conflict(f"the drain of {name} has ended already ({record.state}); uncordon opens the node again")
    return record


async def _change(call: Call, event_of: Callable[[DrainRecord, float], Event | None]) -> web.StreamResponse:
    only(await call.options())
    state, _ = await commit(call, lambda state, now: event_of(_open_drain(state, call.name), now))
    return answer(one(state, "drains", call.name))


async def cancel_drain(call: Call) -> web.StreamResponse:
    """Stop a drain where it is; what has moved stays moved."""
    return await _change(call, lambda record, now: DrainCancelled(at=now, node=record.node, who=call.who))


async def pause_drain(call: Call) -> web.StreamResponse:
    """Begin nothing more of a drain; migrations in flight go on to their end."""
    return await _change(call, lambda record, now: _paused(call, record, now, paused=True))


async def resume_drain(call: Call) -> web.StreamResponse:
    """Go on with a drain that was paused."""
    return await _change(call, lambda record, now: _paused(call, record, now, paused=False))


def _paused(call: Call, record: DrainRecord, now: float, *, paused: bool) -> Event | None:
    if record.state == "Waiting":
        raise conflict(f"the drain of {record.node} has not begun; virtward drain {record.node} --cancel takes it back")
    if (record.state == "Paused") == paused:
        return None
    return DrainPaused(at=now, node=record.node, paused=paused, who=call.who)


_DRAIN = "/api/v1/drains/{name}"
ROUTES = [
    Route("POST", "/api/v1/nodes/{name}:drain", drain, "empty a node, or show the plan", "DrainOrder", "Drain"),
    Route("POST", "/api/v1/drains", drain_in_turn, "empty nodes, one domain after another", "DrainsOrder", "List"),
    Route("POST", f"{_DRAIN}:cancel", cancel_drain, "stop a drain where it is", "", "Drain"),
    Route("POST", f"{_DRAIN}:pause", pause_drain, "begin nothing more of a drain", "", "Drain"),
    Route("POST", f"{_DRAIN}:resume", resume_drain, "go on with a paused drain", "", "Drain"),
]
