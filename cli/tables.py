"""What the tables of `virtward get` show: for each kind its columns, from an object to a text.

Pure. Columns after the plain ones appear with `-o wide`. Colours are chosen here by the word
shown; whether there are any is render.py's decision.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from cli.document import Document, age, documents, look, mapping, name_of, number, show, strings, text

Cell = Callable[[Document, datetime], str]


class Column(NamedTuple):
    """A heading, how its text is read from an object, and whether only -o wide shows it."""

    heading: str
    cell: Cell
    wide: bool = False


def _plain(path: str, missing: str = "-") -> Cell:
    return lambda document, _now: text(document, path, missing)


def _age(path: str) -> Cell:
    return lambda document, now: age(text(document, path), now)


def _name(document: Document, _now: datetime) -> str:
    return name_of(document)


def _labels(document: Document, _now: datetime) -> str:
    return text(document, "metadata.labels", "-")


def taints_of(node: Document) -> list[Document]:
    """Return a node's taints: the operator's, then the system's."""
    return documents(node, "spec.taints") + documents(node, "status.taints")


def taint_text(taint: Document) -> str:
    """Return a taint as `kubectl` writes it: key=value:Effect."""
    value = text(taint, "value")
    return text(taint, "key") + (f"={value}" if value else "") + f":{text(taint, 'effect')}"


def node_state(node: Document) -> str:
    """Return a node's state with what else keeps VMs from it: `Up,Maintenance,Degraded,SchedulingDisabled`.

    A person's cordon and the system's own NoSchedule taints both disable scheduling.
    """
    words = [text(node, "status.state", "Unknown")]
    system = documents(node, "status.taints")
    if any(text(taint, "key") == "virtward/maintenance" for taint in system):
        words.append("Maintenance")
    if any(text(taint, "key") == "virtward/degraded" for taint in system):
        words.append("Degraded")
    closed = any(text(taint, "effect") == "NoSchedule" for taint in system)
    if closed or look(node, "spec.unschedulable") is True:
        words.append("SchedulingDisabled")
    return ",".join(words)


def _state(node: Document, _now: datetime) -> str:
    return node_state(node)


def _taints(node: Document, _now: datetime) -> str:
    return ",".join(taint_text(taint) for taint in taints_of(node)) or "-"


def _memory(node: Document, _now: datetime) -> str:
    return memory(text(node, "status.allocatable.memory"))


def memory(quantity: str) -> str:
    """Return a quantity of bytes rounded for the eye: `16384Ki` becomes `16Mi`."""
    from fleet.units import round_bytes

    return round_bytes(quantity) or "-"


def _ready(vm: Document, _now: datetime) -> str:
    return _condition(vm, "Protected")


def _condition(document: Document, kind: str) -> str:
    for condition in documents(document, "status.conditions"):
        if text(condition, "type") == kind:
            status = text(condition, "status", "Unknown")
            reason = text(condition, "reason")
            return status if status == "True" or not reason else f"{status}:{reason}"
    return "-"


def _vm_reason(vm: Document, _now: datetime) -> str:
    return text(vm, "status.reason", "-")


def _settings(policy: Document, _now: datetime) -> str:
    own = {name: value for name, value in mapping(policy, "spec").items() if name != "selectors"}
    return show(own) or "-"


def _progress(document: Document, _now: datetime) -> str:
    done, total = number(document, "status.done"), number(document, "status.total")
    return f"{done:.0f}/{total:.0f}"


def _blocked(document: Document, _now: datetime) -> str:
    return ",".join(text(item, "vm") for item in documents(document, "status.blocked")) or "-"


def _duration(document: Document, now: datetime) -> str:
    from cli.document import duration, seconds_since

    closed = text(document, "status.closed")
    since = seconds_since(text(document, "status.opened"), now)
    if since is None:
        return "-"
    after = seconds_since(closed, now) if closed else 0.0
    return duration(since - (after or 0.0))


def _object(event: Document, _now: datetime) -> str:
    for kind in ("vm", "node"):
        if text(event, kind):
            return f"{kind}/{text(event, kind)}"
    return "-"


COLUMNS: dict[str, tuple[Column, ...]] = {
    "nodes": (
        Column("NAME", _name),
        Column("STATE", _state),
        Column("SINCE", _age("status.since")),
        Column("VMS", _plain("status.vms", "0")),
        Column("CPU", _plain("status.allocatable.cpu")),
        Column("MEMORY", _memory),
        Column("VERSION", _plain("status.versions.agent")),
        Column("REASON", _plain("status.reason"), wide=True),
        Column("TAINTS", _taints, wide=True),
        Column("LABELS", _labels, wide=True),
    ),
    "vms": (
        Column("NAME", _name),
        Column("PHASE", _plain("status.phase", "Pending")),
        Column("NODE", _plain("status.node")),
        Column("STRATEGY", _plain("spec.runStrategy", "Always")),
        Column("RESTARTS", _plain("status.restarts", "0")),
        Column("SINCE", _age("status.since")),
        Column("REASON", _vm_reason),
        Column("EPOCH", _plain("status.epoch", "0"), wide=True),
        Column("PROTECTED", _ready, wide=True),
        Column("LABELS", _labels, wide=True),
    ),
    "migrations": (
        Column("NAME", _name),
        Column("VM", _plain("spec.vm")),
        Column("FROM", _plain("status.source")),
        Column("TO", _plain("status.target")),
        Column("PHASE", _plain("status.phase")),
        Column("PROGRESS", _plain("status.progress")),
        Column("SINCE", _age("status.since")),
        Column("REASON", _plain("status.reason")),
    ),
    "migrationpolicies": (
        Column("NAME", _name),
        Column("VMS WITH", _plain("spec.selectors.virtualMachineInstanceSelector", "(all)")),
        Column("SETTINGS", _settings),
        Column("LABELS", _labels, wide=True),
    ),
    "drains": (
        Column("NODE", _name),
        Column("PHASE", _plain("status.phase")),
        Column("DONE", _progress),
        Column("BLOCKED", _blocked),
        Column("SINCE", _age("status.since")),
    ),
    "incidents": (
        Column("NAME", _name),
        Column("NODE", _plain("spec.node")),
        Column("PHASE", _plain("status.phase")),
        Column("OPENED", _plain("status.opened")),
        Column("TOOK", _duration),
        Column("TITLE", _plain("status.title")),
        Column("WAY OUT", _plain("status.wayOut"), wide=True),
    ),
    "events": (
        Column("AT", _plain("at")),
        Column("EVENT", _plain("kind")),
        Column("OBJECT", _object),
        Column("REASON", _plain("reason")),
        Column("MESSAGE", _plain("message", "")),
        Column("CAUSE", _plain("cause"), wide=True),
    ),
}

COLOURS = {
    "Up": "green",
    "Running": "green",
    "Succeeded": "green",
    "Done": "green",
    "Closed": "green",
    "Suspect": "yellow",
    "AgentLost": "yellow",
    "Unseen": "yellow",
    "Joining": "yellow",
    "Starting": "yellow",
    "Stopping": "yellow",
    "Pending": "yellow",
    "Paused": "yellow",
    "Migrating": "cyan",
    "Recovering": "yellow",
    "Open": "yellow",
    "Lost": "red",
    "Fencing": "red",
    "Fenced": "red",
    "Failed": "red",
    "Blocked": "red",
    "CrashLoopBackOff": "red",
    "Unknown": "red",
}


def columns_of(collection: str, *, wide: bool) -> tuple[Column, ...]:
    """Return the columns of a kind."""
    return tuple(column for column in COLUMNS[collection] if wide or not column.wide)


def row_of(columns: tuple[Column, ...], document: Document, now: datetime) -> list[str]:
    """Return one object's texts, line breaks taken out."""
    return [" ".join(column.cell(document, now).split()) for column in columns]


def colour_of(word: str) -> str | None:
    """Return the colour a cell is shown in, None for plain; the part before a comma counts."""
    return COLOURS.get(word.split(",", maxsplit=1)[0])


def details(document: Document, path: str) -> list[tuple[str, str]]:
    """Return the (key, text) pairs of the object at path, sorted."""
    return sorted((key, text({key: value}, key)) for key, value in mapping(document, path).items())


def bound_text(vm: Document) -> str:
    """Return the nodes a VM is bound to, with why."""
    found = documents(vm, "status.bound")
    return ", ".join(f"{text(item, 'node')} ({text(item, 'why', 'bound')})" for item in found)


def rejections(vm: Document) -> list[tuple[str, str]]:
    """Return (node, rules) for each node that a waiting VM cannot be placed on."""
    nodes = mapping(vm, "status.rejected")
    return [(node, ", ".join(strings(nodes, node))) for node in sorted(nodes)]
