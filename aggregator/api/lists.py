"""GET of collections and objects, and their watches; one way for all kinds.

Knows which view renders which collection. Events are in history.py: they come from the journal.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from http import HTTPStatus
from typing import NamedTuple

import structlog
from aiohttp import web

from aggregator.api.calls import Call, answer
from aggregator.api.problems import Problem, bad_request, not_found
from aggregator.api.router import Route
from aggregator.api.selector import read_selector
from aggregator.api.watch import Render, frame, kind_of, labels_of
from aggregator.core.manifest import plain_object
from aggregator.core.selector import Selector, selects
from aggregator.core.state import State
from aggregator.core.views import Plain, incident_view, migration_view, plain, policy_view
from aggregator.core.views_drain import drain_view, plain_drain
from aggregator.core.views_node import node_view, plain_node
from aggregator.core.views_vm import plain_vm, vm_view

WATCHERS_MAX = 200
KEEPALIVE_S = 15.0
_log = structlog.get_logger(__name__)


class Collection(NamedTuple):
    """A collection of the API. one: renders an object by name, None if there is none."""

    name: str
    word: str
    schema: str
    one: Callable[[State, str], Plain | None]
    names: Callable[[State], list[str]]

    def items(self, state: State) -> Iterator[tuple[str, Plain]]:
        """Yield every object with its name, in the collection's order."""
        for name in self.names(state):
            value = self.one(state, name)
            if value is not None:
                yield name, value


def _vm(state: State, name: str) -> Plain | None:
    record = state.vms.get(name)
    return plain_vm(vm_view(state, record)) if record else None


def _node(state: State, name: str) -> Plain | None:
    record = state.nodes.get(name)
    return plain_node(node_view(state, record)) if record else None


def _migration(state: State, name: str) -> Plain | None:
    record = state.migrations.get(name)
    return plain(migration_view(record)) if record else None


def _policy(state: State, name: str) -> Plain | None:
    record = state.migration_policies.get(name)
    return {**plain_object(policy_view(record))} if record else None


def _drain(state: State, name: str) -> Plain | None:
    record = state.drains.get(name)
    return plain_drain(drain_view(state, record)) if record else None


def _incident(state: State, name: str) -> Plain | None:
    record = state.incidents.get(name)
    return plain(incident_view(record)) if record else None


COLLECTIONS = {
    collection.name: collection
    for collection in (
        Collection("nodes", "node", "Node", _node, lambda state: sorted(state.nodes)),
        Collection("vms", "VM", "VirtualMachine", _vm, lambda state: sorted(state.vms)),
        Collection("migrations", "migration", "Migration", _migration, lambda state: list(state.migrations)),
        Collection(
            "migrationpolicies",
            "migration policy",
            "MigrationPolicy",
            _policy,
            lambda state: sorted(state.migration_policies),
        ),
        Collection("drains", "drain", "Drain", _drain, lambda state: sorted(state.drains)),
        Collection("incidents", "incident", "Incident", _incident, lambda state: list(state.incidents)),
    )
}
RENDERS: dict[str, Render] = {name: collection.items for name, collection in COLLECTIONS.items()}


def one(state: State, collection: str, name: str) -> Plain:
    """Return an object in its plain form; Problem 404 if there is none."""
    found = COLLECTIONS[collection].one(state, name)
    if found is None:
        raise not_found(COLLECTIONS[collection].word, name)
    return found


async def get_list(call: Call) -> web.StreamResponse:
    """Answer a collection, or a watch of it."""
    collection = COLLECTIONS[call.request.path.rsplit("/", 1)[-1]]
    selector = read_selector(call.query("labelSelector")) + call.rights.scope
    if call.flag("watch"):
        return await watch(call, collection.name, selector)
    call.hub.touch()
    state = call.fleet.state
    items = [value for _, value in collection.items(state) if selects(selector, labels_of(value))]
    return answer({"items": items, "resourceVersion": str(state.position)})


async def get_one(call: Call) -> web.StreamResponse:
    """Answer one object."""
    collection = call.request.path.strip("/").split("/")[2]
    value = one(call.fleet.state, collection, call.name)
    if not selects(call.rights.scope, labels_of(value)):
        raise not_found(COLLECTIONS[collection].word, call.name)
    return answer(value)


async def watch(call: Call, collection: str, selector: Selector) -> web.StreamResponse:
    """Stream the changes of a collection until the client goes."""
    hub = call.hub
    since = resume_point(call)
    hub.touch()

    async def write(response: web.StreamResponse) -> None:
        number = hub.number_at(since) if since is not None and hub.resumes(since) else None
        begun = since is None
        while not hub.closed:
            if number is None:
                objects, number, position = hub.snapshot(collection, selector)
                if not begun:
                    await response.write(frame("RESYNC", {}))
                for value in objects:
                    await response.write(frame("ADDED", value))
                await response.write(f"event: BOOKMARK\nid: {position}\ndata: {{}}\n\n".encode())
            newest = hub.newest
            changes = hub.after(collection, number)
            if changes is None:
                number, begun = None, False
                continue
            for place, change in enumerate(changes):
                last = place + 1 == len(changes) or changes[place + 1].position > change.position
                if kind := kind_of(change, selector):
                    await response.write(frame(kind, change.value, str(change.position) if last else ""))
            number = newest
            if newest == hub.newest and not await hub.wait(KEEPALIVE_S):
                await response.write(b": still here\n\n")

    return await stream(call, write)


def resume_point(call: Call) -> int | None:
    """Return the position a watch goes on from, None to begin with everything; Problem 400 if it is no number."""
    text = call.query("resourceVersion") or call.request.headers.get("Last-Event-ID", "")
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:  # noqa: PLR2004 (digits of 2^63)
        raise bad_request(f"resourceVersion={text!r} is not one of ours; leave it out to begin with everything")
    return int(text)


async def stream(call: Call, write: Callable[[web.StreamResponse], Awaitable[None]]) -> web.StreamResponse:
    """Answer with an event stream that `write` fills until it returns or the reader goes.

    Problem 503 if too many are open.
    """
    if call.hub.watchers >= WATCHERS_MAX:
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, f"{WATCHERS_MAX} watches are open already; try again later")
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/event-stream; charset=utf-8",
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",
        }
    )
    call.hub.watchers += 1
    try:
        await response.prepare(call.request)
        await write(response)
    except ConnectionError:
        pass  # the reader went away, which is how a stream ends
    except Exception:
        if not response.prepared:
            raise
        # The answer has begun, so no problem document can follow: the stream ends, and the reader asks again.
        _log.exception("stream failed", path=call.request.path)
    finally:
        call.hub.watchers -= 1
    return response


ROUTES = [
    Route(
        "GET", f"/api/v1/{collection.name}", get_list, f"all {collection.name}; ?watch=1 streams changes", answer="List"
    )
    for collection in COLLECTIONS.values()
] + [
    Route("GET", f"/api/v1/{collection.name}/{{name}}", get_one, f"one {collection.word}", answer=collection.schema)
    for collection in COLLECTIONS.values()
]
