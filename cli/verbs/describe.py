"""`virtward describe`: everything about one object, for a person.

Each kind is a list of sections; a section without content is left out. Fields this version does
not know are shown in `get -o yaml`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from cli.client import path_of
from cli.document import Document, age, documents, look, name_of, show, text
from cli.errors import WrongUsage
from cli.options import complete_objects
from cli.render import colours_wanted, paint
from cli.resources import KINDS, SINGULAR, read_targets
from cli.tables import (
    bound_text,
    colour_of,
    details,
    memory,
    node_state,
    rejections,
    taint_text,
    taints_of,
)

if TYPE_CHECKING:
    from cli.client import Client
    from cli.session import Session

EVENTS_MAX = 20
LABEL_WIDTH = 20
Lines = Iterable[str]


@click.command()
@click.argument("objects", nargs=-1, required=True, metavar="KIND NAME...", shell_complete=complete_objects)
@click.pass_obj
def describe(session: Session, objects: tuple[str, ...]) -> None:
    """Show everything about a node, vm, migration, drain or incident, its events included."""
    kinds = ("nodes", "vms", "migrations", "drains", "incidents")
    collection, names = read_targets(objects, kinds)
    if not names:
        raise WrongUsage(f"say which {SINGULAR[collection]}")
    parts = []
    for name in names:
        found = session.client.get(path_of(collection, name))
        parts.append("\n".join(page(session.client, collection, found)))
    click.echo("\n\n".join(parts))


def page(client: Client, collection: str, found: Document) -> list[str]:
    """Return the lines about one object."""
    now = datetime.now(UTC)
    lines = [*_pair("Name", name_of(found)), *_pair("Kind", KINDS[collection])]
    lines += _block("Labels", [f"{key}={value}" for key, value in details(found, "metadata.labels")])
    lines += PAGES[collection](found, now)
    if collection in ("nodes", "vms"):
        other = "vm" if collection == "nodes" else "node"
        about = {SINGULAR[collection]: name_of(found), "limit": str(EVENTS_MAX)}
        events = documents(client.get(path_of("events"), **about), "items")
        lines += _block("Events", [_event(item, other) for item in events] or ["none"])
    return lines


def _pair(label: str, value: str, *, coloured: bool = False) -> list[str]:
    if not value:
        return []
    shown = paint(value, colour_of(value)) if coloured and colours_wanted() else value
    return [f"{label + ':':<{LABEL_WIDTH}}{shown}"]


def _block(label: str, lines: list[str]) -> list[str]:
    return [f"{label}:", *(f"  {line}" for line in lines)] if lines else []


def _event(event: Document, other_kind: str) -> str:
    """Return an event's line; other_kind: of what it is about besides the object that is described."""
    other = text(event, other_kind)
    parts = (text(event, "at"), text(event, "kind"), other, text(event, "reason"), text(event, "message"))
    return "  ".join(part for part in parts if part)


def _since(found: Document, now: datetime) -> str:
    since = text(found, "status.since")
    return f"{since} ({age(since, now)})" if since else ""


def _conditions(found: Document) -> list[str]:
    rows = []
    for item in documents(found, "status.conditions"):
        why = text(item, "reason")
        said = text(item, "message")
        rows.append(
            f"{text(item, 'type'):<20} {text(item, 'status'):<8} {why}" + (f": {said}" if said and why else said)
        )
    return _block("Conditions", [row.rstrip() for row in rows])


def _vm(vm: Document, now: datetime) -> list[str]:
    restarts = text(vm, "status.restarts", "0")
    lines = [
        *_pair("Phase", text(vm, "status.phase"), coloured=True),
        *_pair("Reason", text(vm, "status.reason")),
        *_pair("Message", text(vm, "status.message")),
        *_pair("Since", _since(vm, now)),
        *_pair("Node", text(vm, "status.node", "none")),
        *_pair("Bound to", bound_text(vm)),
        *_pair("Epoch", text(vm, "status.epoch", "0")),
        *_pair("Run", f"{text(vm, 'status.run', '0')}, {restarts} restarts"),
        *_pair("Migration", text(vm, "status.migration")),
        *_pair("Run strategy", text(vm, "spec.runStrategy", "Always")),
        *_pair("Eviction strategy", text(vm, "spec.evictionStrategy", "the cluster's default")),
        *_pair("Restart priority", text(vm, "spec.restartPriority", "500")),
        *_pair("Requests", text(vm, "spec.resources.requests")),
        *_pair("Node selector", text(vm, "spec.nodeSelector")),
        *_pair("UID", text(vm, "metadata.uid")),
    ]
    lines += _block("Tolerations", [show(item) for item in documents(vm, "spec.tolerations")])
    lines += _block("Cannot be placed", [f"{node}: {rules}" for node, rules in rejections(vm)])
    return lines + _conditions(vm)


def _node(node: Document, now: datetime) -> list[str]:
    lines = [
        *_pair("State", node_state(node), coloured=True),
        *_pair("Reason", text(node, "status.reason")),
        *_pair("Since", _since(node, now)),
        *_pair("Approved", text(node, "status.approved", "False")),
        *_pair("Cordoned", "True, by a person" if look(node, "spec.unschedulable") else "False"),
        *_pair("VMs", text(node, "status.vms", "0")),
        *_pair("Capacity", _resources(node, "status.capacity")),
        *_pair("Allocatable", _resources(node, "status.allocatable")),
        *_pair("Boot id", text(node, "status.bootID")),
        *_pair("Last beat", _beat(node)),
        *_pair("Versions", text(node, "status.versions")),
        *_pair("Addresses", text(node, "status.addresses")),
        *_pair("After a fence", text(node, "spec.afterFence", "On")),
    ]
    rungs = documents(node, "spec.fencing")
    lines += _block("Taints", [taint_text(taint) for taint in taints_of(node)])
    lines += _block("Fencing", [_rung(rung) for rung in rungs] or ["none: it cannot be fenced"])
    return lines + _conditions(node)


def _resources(node: Document, path: str) -> str:
    return ", ".join(f"{key} {memory(value) if key == 'memory' else value}" for key, value in details(node, path))


def _beat(node: Document) -> str:
    ago = text(node, "status.lastBeatAgo")
    return f"{float(ago):.1f} s ago" if ago else ""


def _rung(rung: Document) -> str:
    devices = documents(rung, "devices") or [rung]
    proof = ", listens for the crash kernel" if text(rung, "proof") == "CrashKernel" else ""
    return f"{' and '.join(map(_device, devices))}, {text(rung, 'timeout', '30s')}{proof}"


def _device(device: Document) -> str:
    parameters = ", ".join(f"{key}={value}" for key, value in details(device, "params") if "passw" not in key)
    return f"{text(device, 'agent')} ({parameters})"


def _migration(migration: Document, now: datetime) -> list[str]:
    return [
        *_pair("VM", text(migration, "spec.vm")),
        *_pair("From", text(migration, "status.source")),
        *_pair("To", text(migration, "status.target") or text(migration, "spec.target")),
        *_pair("Phase", text(migration, "status.phase"), coloured=True),
        *_pair("Progress", _percent(migration)),
        *_pair("Reason", text(migration, "status.reason")),
        *_pair("Since", _since(migration, now)),
        *_pair("Ordered by", _ordered_by(migration)),
    ]


def _ordered_by(migration: Document) -> str:
    drain = text(migration, "status.drain")
    return f"drain of {drain}" if drain else "a person"


def _percent(migration: Document) -> str:
    percent, words = text(migration, "status.percent"), text(migration, "status.progress")
    return f"{percent} %" + (f", {words}" if words else "") if percent else ""


def _drain(drain: Document, now: datetime) -> list[str]:
    blocked = documents(drain, "status.blocked")
    plan = documents(drain, "status.plan")
    done, total = text(drain, "status.done", "0"), text(drain, "status.total", "0")
    return [
        *_pair("Phase", text(drain, "status.phase"), coloured=True),
        *_pair("Done", f"{done} of {total} VMs"),
        *_pair("Since", _since(drain, now)),
        *_block("Blocked", [f"{text(item, 'vm')}: {text(item, 'reason')}" for item in blocked]),
        *_block("Plan", [show(item) for item in plan]),
    ]


def _incident(incident: Document, now: datetime) -> list[str]:
    steps = documents(incident, "status.steps")
    opened = text(incident, "status.opened")
    rows = [_step(step) for step in steps]
    return [
        *_pair("Title", text(incident, "status.title")),
        *_pair("Node", text(incident, "spec.node")),
        *_pair("Phase", text(incident, "status.phase"), coloured=True),
        *_pair("Opened", f"{opened} ({age(opened, now)} ago)" if opened else ""),
        *_pair("Closed", text(incident, "status.closed")),
        *_pair("VMs", text(incident, "status.vms")),
        *_pair("Way out", text(incident, "status.wayOut")),
        *_block("Steps", rows),
    ]


def _step(step: Document) -> str:
    """Return one line; an observation that repeated itself says how often and until when."""
    times = text(step, "times", "1")
    again = f"({times} times, last {text(step, 'lastAt')})" if times != "1" else ""
    return "  ".join(part for part in (text(step, "at"), text(step, "what"), text(step, "detail"), again) if part)


PAGES: dict[str, Callable[[Document, datetime], list[str]]] = {
    "vms": _vm,
    "nodes": _node,
    "migrations": _migration,
    "drains": _drain,
    "incidents": _incident,
}
