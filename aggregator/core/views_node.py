"""A node as people see it: the Node object with its full status.

Pure. Secrets of its fence devices leave here hidden. Conditions that only the agent can know are
its own words; the rest follows from the state.
"""

from __future__ import annotations

import msgspec

from aggregator.core.arming import scope_key
from aggregator.core.events import NodeState
from aggregator.core.flapping import flap_words
from aggregator.core.fold_nodes import CHECKS_MAX
from aggregator.core.moments import rfc3339, span
from aggregator.core.objects import API_VERSION, ApiCondition, Load, Metadata, Node, NodeDisarming, NodeStatus, Taint
from aggregator.core.secrets import hide_rung
from aggregator.core.state import NodeRecord, State
from aggregator.core.views import Plain, every_field
from aggregator.core.views_vm import fencing_problem, rung_ready
from fleet.model import WAITED_FOR, LedgerState, NodeLoad
from fleet.units import format_bytes, format_cpu

MAINTENANCE = "virtward/maintenance"
_AGENTS_WORDS = ("LibvirtReady", "StorageReachable", "Degraded")
_UNTOLD = {"LibvirtReady": "Unknown", "StorageReachable": "Unknown", "Degraded": "False"}


def node_view(state: State, record: NodeRecord) -> Node:
    """Return the Node object of a record."""
    hidden = tuple(hide_rung(rung) for rung in record.spec.fencing)
    return Node(
        metadata=Metadata(
            name=record.name,
            uid=record.machine_id,
            labels=record.labels,
            resource_version=str(record.version),
            creation_timestamp=rfc3339(record.created),
        ),
        spec=msgspec.structs.replace(record.spec, fencing=hidden, taints=tuple(map(shown_taint, record.spec.taints))),
        status=node_status(state, record),
    )


def node_status(state: State, record: NodeRecord) -> NodeStatus:
    """Return what is true of a node now."""
    facts = record.facts
    ratio = state.config.overcommit
    return NodeStatus(
        state=record.state,
        since=rfc3339(record.state_since or record.created),
        reason=record.state_reason,
        approved=record.approved,
        capacity=_room(facts.cpu_m, facts.memory_bytes) if facts else {},
        allocatable=_room(int(facts.cpu_m * ratio.cpu), int(facts.memory_bytes * ratio.memory)) if facts else {},
        conditions=conditions_of(state, record),
        taints=tuple(map(shown_taint, record.taints)),
        boot_id=record.boot_id,
        agent_start=record.session.agent_start if record.session else "",
        disarmed=_disarmed(state, record),
        addresses=facts.addresses if facts else {},
        versions=facts.versions if facts else {},
        vms=sum(vm.run_open and vm.owner == record.name for vm in state.vms.values()),
        last_beat_ago=round(max(0.0, state.now - record.last_sign), 3) if record.last_sign else None,
        load=_load(record.load) if record.load is not None and record.connected else None,
    )


def _disarmed(state: State, record: NodeRecord) -> NodeDisarming | None:
    held = state.disarmed.get(scope_key(node=record.name))
    if held is None:
        return None
    until = rfc3339(held.until) if held.until else ""
    return NodeDisarming(since=rfc3339(held.since), until=until, who=held.who)


def shown_taint(taint: Taint) -> Taint:
    """Return a taint with its time as people read it (the state keeps seconds)."""
    try:
        return msgspec.structs.replace(taint, time_added=rfc3339(float(taint.time_added or "")))
    except ValueError:
        return taint


def plain_node(node: Node) -> Plain:
    """Return the plain form: what a person wrote without defaults, the status with every field."""
    shown: Plain = {"apiVersion": API_VERSION, "kind": "Node", "metadata": msgspec.to_builtins(node.metadata)}
    shown["spec"] = msgspec.to_builtins(node.spec)
    if node.status is not None:
        shown["status"] = every_field(node.status)
    return shown


def _load(load: NodeLoad) -> Load:
    waits = dict(zip(WAITED_FOR, load.waits_percent, strict=False))
    return Load(cpu_percent=load.cpu_percent, memory_available=format_bytes(load.memory_available_bytes), waits=waits)


def _room(cpu_m: int, memory_bytes: int) -> dict[str, str]:
    return {"cpu": format_cpu(cpu_m), "memory": format_bytes(memory_bytes)}


def conditions_of(state: State, record: NodeRecord) -> tuple[ApiCondition, ...]:
    """Return the node's six conditions (interfaces.md) and whatever else its agent reports."""
    told = {condition.type: condition for condition in (record.facts.conditions if record.facts else ())}
    found = [_ready(state, record)]
    for kind in _AGENTS_WORDS:
        word = told.pop(kind, None)
        if kind == "Degraded" and record.flaps:
            words = f"{flap_words(record, state.config.flap.node_per_day_max)}; virtward uncordon {record.name} ends it"
            found.append(ApiCondition(type=kind, status="True", reason="Flapping", message=words))
        elif kind == "Degraded" and record.via and record.connected:
            found.append(ApiCondition(type=kind, status="True", reason="Relayed", message=relayed_words(record)))
        elif kind == "Degraded" and record.connected and record.facts is not None and record.facts.checks:
            words = "; ".join(
                f"{check.name}: {check.message or check.level}" for check in record.facts.checks[:CHECKS_MAX]
            )
            found.append(ApiCondition(type=kind, status="True", reason="Checks", message=words))
        elif word is None:
            found.append(ApiCondition(type=kind, status=_UNTOLD[kind], reason="NotReported"))
        elif not record.connected:
            found.append(
                ApiCondition(type=kind, status="Unknown", reason="NodeSilent", message=f"last known: {word.status}")
            )
        else:
            found.append(ApiCondition(type=kind, status=word.status, reason=word.reason, message=word.message))
    found.extend((_fenceable(record), _maintenance(record)))
    found.extend(
        ApiCondition(type=word.type, status=word.status, reason=word.reason, message=word.message)
        for word in told.values()
    )
    return tuple(found)


def relayed_words(record: NodeRecord) -> str:
    """Return what it means, for people, that a node speaks through a peer."""
    return (
        f"its own way to the aggregator is cut; it speaks through {record.via}: its VMs run on and can be stopped, "
        "it is given no new ones"
    )


def _ready(state: State, record: NodeRecord) -> ApiCondition:
    reason, message = not_ready(state, record)
    return ApiCondition(
        type="Ready",
        status="False" if reason else "True",
        reason=reason or "Up",
        message=message,
        last_transition_time=rfc3339(record.state_since),
    )


def not_ready(state: State, record: NodeRecord) -> tuple[str, str]:
    """Return (reason, sentence) why a node takes no VM whatever its rules are; empty if it would."""
    if record.state is not NodeState.UP:
        silent = f"; last heard {span(state.now - record.last_sign)} ago" if record.last_sign else ""
        return str(record.state), (record.state_reason or f"it is {record.state}") + silent
    if not record.approved:
        return "NotApproved", f"it waits for approval: virtward node approve {record.name}"
    if not record.connected:
        return "NotConnected", "its agent is not connected"
    if record.via:
        return "Relayed", relayed_words(record)
    if record.ledger is LedgerState.LOST:
        return "LedgerLost", "its agent lost the ledger of what it promised; it only reports until it is re-seeded"
    if not record.complete:
        return "Incomplete", "its agent has not yet read the whole node (libvirt and /proc)"
    return "", ""


def _fenceable(record: NodeRecord) -> ApiCondition:
    problem = fencing_problem(record)
    if problem:
        status = "Unknown" if record.spec.fencing and not any(rung.checked_at for rung in record.readiness) else "False"
        reason = "NoDevice" if not record.spec.fencing else "NotProven"
        return ApiCondition(type="Fenceable", status=status, reason=reason, message=problem)
    proven = [rung for rung in record.readiness if rung_ready(rung)]
    who = "a person vouches that the device is its own" if proven[0].identity == "Operator" else ""
    return ApiCondition(type="Fenceable", status="True", reason="DeviceSaysOn", message=who)


def _maintenance(record: NodeRecord) -> ApiCondition:
    marked = any(taint.key == MAINTENANCE for taint in record.taints)
    return ApiCondition(
        type="Maintenance",
        status="True" if marked else "False",
        reason="Drained" if marked else "",
        message=f"ends with: virtward uncordon {record.name}" if marked else "",
    )
