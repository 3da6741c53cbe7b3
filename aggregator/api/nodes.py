"""Writing nodes: their objects, labels and taints, cordon, approval, tokens and their end.

Fencing by hand is in fencing.py, drains are in moves.py. Every check is made on the state the fact
is folded into (writes.py).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from hashlib import sha256
from http import HTTPStatus

import msgspec
from aiohttp import web

from aggregator.api.bodies import PlainObject
from aggregator.api.calls import Call, answer, only, truth, word
from aggregator.api.lists import one
from aggregator.api.objects_in import check_version, merged, read_as
from aggregator.api.problems import bad_request, conflict, not_found, refused
from aggregator.api.router import Route
from aggregator.api.writes import Make, commit
from aggregator.core.events import (
    DrainCancelled,
    Event,
    JoinTokenIssued,
    MigrationRequested,
    NodeApplied,
    NodeApproved,
    NodeDeleted,
    NodeForgiven,
    NodeRevoked,
    NodeTokenIssued,
)
from aggregator.core.labels import HOSTNAME
from aggregator.core.lookups import bound_to, off_may_act_until
from aggregator.core.manifest import ManifestError
from aggregator.core.manifest_rules import check_node
from aggregator.core.moments import rfc3339
from aggregator.core.objects import Metadata, Node, NodeSpec, Taint, TaintEffect
from aggregator.core.secrets import restore_ladder
from aggregator.core.state import NodeRecord, State
from fleet.identity import JoinToken

TOKEN_BYTES = 32
JOIN_TOKEN_S = 3600.0
UNDEGRADE = ("virtward/degraded-", "virtward/degraded:NoSchedule-")


def node_record(state: State, name: str) -> NodeRecord:
    """Return a node; Problem 404 if there is none."""
    record = state.nodes.get(name)
    if record is None:
        raise not_found("node", name)
    return record


def make_node(written: Node, who: str) -> Make:
    """Return what makes the state hold this node as written."""

    def make(state: State, now: float) -> Event | None:
        record = state.nodes.get(written.metadata.name)
        check_version(written.metadata, record.version if record else None, f"node {written.metadata.name}")
        try:
            fencing = restore_ladder(written.spec.fencing, record.spec.fencing if record else ())
        except ValueError as error:
            raise refused(str(error)) from None
        taints = dated(written.spec.taints, record.spec.taints if record else (), now)
        spec = msgspec.structs.replace(written.spec, fencing=fencing, taints=taints)
        return _applied(record, written.metadata.name, written.metadata.labels, spec, now, who)

    return make


def _applied(
    record: NodeRecord | None, name: str, labels: dict[str, str], spec: NodeSpec, now: float, who: str
) -> NodeApplied | None:
    if record is not None and record.spec == spec:
        reported = record.facts.labels if record.facts else {}
        if {**labels, **reported, HOSTNAME: name} == {**record.labels, HOSTNAME: name}:
            return None
    return NodeApplied(at=now, name=name, labels=labels, spec=spec, who=who)


def dated(written: tuple[Taint, ...], kept: tuple[Taint, ...], now: float) -> tuple[Taint, ...]:
    """Return the operator's taints with the time each was set first; tolerationSeconds count from it."""
    since = {(taint.key, taint.value, taint.effect): taint.time_added for taint in kept}
    return tuple(
        msgspec.structs.replace(taint, time_added=since.get((taint.key, taint.value, taint.effect)) or f"{now:.3f}")
        for taint in written
    )


async def put_node(call: Call) -> web.StreamResponse:
    """Create or replace a node's labels and spec."""
    return await _write(call, read_as(Node, await call.document(), call.name))


async def post_node(call: Call) -> web.StreamResponse:
    """Create a node before its agent first speaks; Problem 409 if there is one."""
    written = read_as(Node, await call.document())
    if written.metadata.name in call.fleet.state.nodes:
        raise conflict(f"there is a node {written.metadata.name!r} already; PUT replaces it")
    return await _write(call, written)


async def _write(call: Call, written: Node) -> web.StreamResponse:
    existed = written.metadata.name in call.fleet.state.nodes
    state, _ = await commit(call, make_node(written, call.who))
    return answer(one(state, "nodes", written.metadata.name), HTTPStatus.OK if existed else HTTPStatus.CREATED)


async def patch_node(call: Call) -> web.StreamResponse:
    """Merge into a node's labels and spec; null deletes."""
    patch = await call.document()

    def make(state: State, now: float) -> Event | None:
        node_record(state, call.name)
        written = read_as(Node, merged(one(state, "nodes", call.name), patch, call.name))
        return make_node(written, call.who)(state, now)

    return await _changed(call, make)


async def _changed(call: Call, make: Make) -> web.StreamResponse:
    state, _ = await commit(call, make)
    return answer(one(state, "nodes", call.name))


def make_spec(name: str, who: str, change: Callable[[NodeSpec, float], NodeSpec]) -> Make:
    """Return what changes a node's spec in one respect; Problem 404 if there is no such node."""

    def make(state: State, now: float) -> Event | None:
        record = node_record(state, name)
        spec = change(record.spec, now)
        return None if spec == record.spec else _applied(record, name, record.labels, spec, now, who)

    return make


def _schedulable(name: str, who: str, *, closed: bool) -> Make:
    return make_spec(name, who, lambda spec, _now: msgspec.structs.replace(spec, unschedulable=closed))


async def cordon(call: Call) -> web.StreamResponse:
    """Keep new VMs off a node."""
    only(await call.options())
    return await _changed(call, _schedulable(call.name, call.who, closed=True))


async def uncordon(call: Call) -> web.StreamResponse:
    """Open a node for VMs again; its drain ends. bringBack: the VMs it moved away are asked to return."""
    options = await call.options()
    only(options, "bringBack")
    bring_back = truth(options, "bringBack")
    record = node_record(call.fleet.state, call.name)
    drain = call.fleet.state.drains.get(call.name)
    moved = drain.vms if bring_back and drain is not None and record.drain else ()
    state, _ = await commit(call, _schedulable(call.name, call.who, closed=False))
    if record.drain:
        state, _ = await commit(call, _end_of_drain(call.name, call.who))
    if record.flaps:
        state, _ = await commit(call, _forgiven(call.name, call.who))
    for vm in moved:
        await commit(call, _back(vm, call.name, call.who))
    return answer(one(state if call.dry_run else call.fleet.state, "nodes", call.name))


def _end_of_drain(name: str, who: str) -> Make:
    def make(state: State, now: float) -> Event | None:
        return DrainCancelled(at=now, node=name, who=who) if node_record(state, name).drain else None

    return make


def _forgiven(name: str, who: str) -> Make:
    def make(state: State, now: float) -> Event | None:
        return NodeForgiven(at=now, name=name, who=who) if node_record(state, name).flaps else None

    return make


def _back(vm: str, node: str, who: str) -> Make:
    def make(state: State, now: float) -> Event | None:
        record = state.vms.get(vm)
        if record is None or not record.run_open or record.owner in ("", node) or record.migration or record.deleting:
            return None
        return MigrationRequested(at=now, vm=vm, target=node, who=who)

    return make


async def taint(call: Call) -> web.StreamResponse:
    """Set or remove one of the operator's taints."""
    options = await call.options()
    only(options, "taint")
    text = word(options, "taint")
    if text in UNDEGRADE and node_record(call.fleet.state, call.name).flaps:  # the system's, and a person's to lift
        return await _changed(call, _forgiven(call.name, call.who))

    def change(spec: NodeSpec, now: float) -> NodeSpec:
        return msgspec.structs.replace(spec, taints=dated(tainted(spec.taints, text), spec.taints, now))

    return await _changed(call, make_spec(call.name, call.who, change))


def tainted(taints: tuple[Taint, ...], text: str) -> tuple[Taint, ...]:
    """Return the taints after `key=value:Effect`, `key:Effect`, `key-` or `key:Effect-`; Problem 400 or 422."""
    body = text.removesuffix("-")
    left, colon, effect = body.partition(":")
    key, equals, value = left.partition("=")
    if effect and effect not in set(TaintEffect):
        raise bad_request(f"taint: {effect!r} is no effect; there are {', '.join(TaintEffect)}")
    if text.endswith("-"):
        if equals or not key or (colon and not effect):
            raise bad_request(f"taint: {text!r} removes nothing; write key- or key:Effect-")
        left_over = tuple(old for old in taints if old.key != key or (effect and old.effect != effect))
        if len(left_over) == len(taints):
            raise refused(f"taint: there is no taint {body!r} to remove")
        return left_over
    if not key or not effect:
        raise bad_request(f"taint: {text!r} is none; write key=value:Effect, or key- to remove it")
    new = Taint(key=key, value=value, effect=TaintEffect(effect))
    try:
        check_node(Node(metadata=Metadata(name="node"), spec=NodeSpec(taints=(new,))))
    except ManifestError as error:
        raise refused(f"taint: {error.problem}") from None
    return (*(old for old in taints if (old.key, old.effect) != (new.key, new.effect)), new)


async def approve(call: Call) -> web.StreamResponse:
    """Let a node take VMs."""
    only(await call.options())

    def make(state: State, now: float) -> Event | None:
        if node_record(state, call.name).approved:
            return None
        return NodeApproved(at=now, name=call.name, who=call.who)

    return await _changed(call, make)


async def issue_token(call: Call) -> web.StreamResponse:
    """Make a join token for a node's agent: good once, within JOIN_TOKEN_S. Only its SHA-256 is kept.

    Where agents speak openly it is the agent's lasting token instead.
    """
    only(await call.options())
    try:
        check_node(Node(metadata=Metadata(name=call.name)))
    except ManifestError as error:
        raise refused(str(error)) from None
    token = secrets.token_urlsafe(TOKEN_BYTES)
    digest = sha256(token.encode()).hexdigest()

    def make(_state: State, now: float) -> Event:
        if not call.fleet.authority_sha256:
            return NodeTokenIssued(at=now, name=call.name, token_sha256=digest, who=call.who)
        until = now + JOIN_TOKEN_S
        return JoinTokenIssued(at=now, name=call.name, token_sha256=digest, until=until, who=call.who)

    await commit(call, make)
    authority = call.fleet.authority_sha256
    shown = JoinToken(token, authority).text() if authority else token
    return answer({"token": "" if call.dry_run else shown})


async def revoke(call: Call) -> web.StreamResponse:
    """End all that a node's agent could show: its keys, its join token, its session. Its VMs run on."""
    only(await call.options())

    def make(state: State, now: float) -> Event:
        node_record(state, call.name)
        return NodeRevoked(at=now, name=call.name, who=call.who)

    return await _changed(call, make)


async def delete_node(call: Call) -> web.StreamResponse:
    """Take a node out of the fleet; Problem 409 while a VM is bound to it."""

    def make(state: State, now: float) -> Event | None:
        record = node_record(state, call.name)
        bound = [vm.name for vm in bound_to(state, record.name)]
        if bound:
            raise conflict(
                f"{len(bound)} VMs are bound to node {call.name} ({', '.join(bound[:5])}"
                f"{', …' if len(bound) > 5 else ''}); drain it first"  # noqa: PLR2004 (enough to recognise them)
            )
        if until := off_may_act_until(record, now):
            raise conflict(
                f"an off order to node {call.name} may still be carried out until {rfc3339(until)}; delete it then"
            )
        return NodeDeleted(at=now, name=call.name, who=call.who)

    shown: PlainObject = one(call.fleet.state, "nodes", call.name)
    await commit(call, make)
    return answer(shown)


_NODE = "/api/v1/nodes/{name}"
ROUTES = [
    Route("POST", "/api/v1/nodes", post_node, "create a node from a manifest", "Node", "Node"),
    Route("PUT", _NODE, put_node, "create or replace a node's labels and spec", "Node", "Node"),
    Route("PATCH", _NODE, patch_node, "merge into a node's labels and spec", "Patch", "Node"),
    Route("DELETE", _NODE, delete_node, "take a node out of the fleet", "", "Node"),
    Route("POST", f"{_NODE}:cordon", cordon, "keep new VMs off a node", "", "Node"),
    Route("POST", f"{_NODE}:uncordon", uncordon, "open a node again and end its drain", "Uncordon", "Node"),
    Route("POST", f"{_NODE}:taint", taint, "set or remove a taint", "TaintOrder", "Node"),
    Route("POST", f"{_NODE}:approve", approve, "let a node take VMs", "", "Node"),
    Route("POST", f"{_NODE}:token", issue_token, "make a join token, shown once", "", "Token"),
    Route("POST", f"{_NODE}:revoke", revoke, "end the keys, token and session of a node's agent", "", "Node"),
]
