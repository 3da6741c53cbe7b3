"""State to API objects: migrations, incidents, events, and how any object is written out.

Pure: builds what people read from what the core knows, and decides nothing. VMs, nodes and drains have
their own files (views_vm, views_node, views_drain). Secrets leave here hidden.
"""

from __future__ import annotations

from functools import cache

import msgspec
from msgspec import Struct, field

from aggregator.core.events import MigrationPhase
from aggregator.core.migration_words import eta_s, progress_words
from aggregator.core.moments import rfc3339
from aggregator.core.objects import API_VERSION, ApiStruct, Metadata, MigrationPolicy
from aggregator.core.state import (
    HistoryLine,
    IncidentRecord,
    IncidentStep,
    MigrationPolicyRecord,
    MigrationRecord,
)

Plain = dict[str, object]


class MigrationSpecView(ApiStruct, frozen=True, kw_only=True):
    """What was asked: which VM, from where, and where to if a target is chosen."""

    vm: str
    source: str
    target: str = ""


class MigrationStatus(ApiStruct, frozen=True, kw_only=True):
    """How far one attempt to move a VM is.

    etaSeconds: null where it is not known, or does not end as it goes; downtimeMs: the pause allowed by now;
    progress: all of it in a few words. They are there while the copying goes on.
    """

    phase: str
    source: str
    target: str = ""
    percent: float = 0.0
    remaining_bytes: int = 0
    total_bytes: int = 0
    bytes_per_second: int = 0
    dirty_bytes_per_second: int = 0
    iteration: int = 0
    throttle_percent: int = 0
    downtime_ms: int = 0
    eta_seconds: float | None = None
    progress: str = ""
    reason: str = ""
    priority: int = 0
    drain: str = ""
    since: str = ""
    started: str = ""
    handed_over: str = ""
    ended: str = ""


class Migration(ApiStruct, frozen=True, kw_only=True):
    """One attempt to move one VM."""

    api_version: str = field(default=API_VERSION)
    kind: str = "Migration"
    metadata: Metadata
    spec: MigrationSpecView
    status: MigrationStatus


class IncidentSpec(ApiStruct, frozen=True, kw_only=True):
    """Whom it is about."""

    node: str = ""
    vm: str = ""


class IncidentStepView(ApiStruct, frozen=True, kw_only=True):
    """One thing that was seen, decided or proven. who: whose observation; times, last_at: where it repeated itself."""

    at: str
    what: str
    detail: str = ""
    who: str = ""
    times: int = 1
    last_at: str = ""


class IncidentStatus(ApiStruct, frozen=True, kw_only=True):
    """Everything known about one failure. way_out: what a person can do, empty if nothing is needed.

    screenshot: whether what a guest showed before its end is kept.
    """

    phase: str
    title: str
    opened: str
    closed: str = ""
    way_out: str = ""
    vms: tuple[str, ...] = ()
    screenshot: bool = False
    steps: tuple[IncidentStepView, ...] = ()


class Incident(ApiStruct, frozen=True, kw_only=True):
    """One failure and everything decided about it."""

    api_version: str = field(default=API_VERSION)
    kind: str = "Incident"
    metadata: Metadata
    spec: IncidentSpec
    status: IncidentStatus


class EventView(Struct, frozen=True, kw_only=True):
    """One line of history. metadata.name is its journal position; cause is the position behind it."""

    metadata: Metadata
    at: str
    kind: str
    node: str = ""
    vm: str = ""
    reason: str = ""
    cause: int = 0
    message: str = ""


@cache
def _names(kind: type[Struct]) -> tuple[tuple[str, str], ...]:
    return tuple((entry.name, entry.encode_name) for entry in msgspec.structs.fields(kind))


def every_field(value: Struct) -> Plain:
    """Return the plain form of a struct with every field in it, defaults too (for a status)."""
    return {shown: msgspec.to_builtins(getattr(value, name)) for name, shown in _names(type(value))}


def plain(value: Migration | Incident) -> Plain:
    """Return the plain form of an object: the status in full, the rest without what says nothing."""
    shown: Plain = {"apiVersion": value.api_version, "kind": value.kind}
    shown["metadata"] = msgspec.to_builtins(value.metadata)
    shown["spec"] = every_field(value.spec)
    shown["status"] = every_field(value.status)
    return shown


def migration_view(record: MigrationRecord) -> Migration:
    """Return one migration. resourceVersion is left to the list: a migration is never written."""
    far = record.far if record.far is not None and record.phase is MigrationPhase.RUNNING else None
    eta = eta_s(far) if far is not None else None
    return Migration(
        metadata=Metadata(name=record.name, creation_timestamp=rfc3339(record.created)),
        spec=MigrationSpecView(vm=record.vm, source=record.source, target=record.wanted_target or record.target),
        status=MigrationStatus(
            phase=record.phase,
            source=record.source,
            target=record.target,
            percent=round(record.percent, 1),
            remaining_bytes=far.remaining_bytes if far else 0,
            total_bytes=far.total_bytes if far else 0,
            bytes_per_second=far.rate_bytes_per_s if far else 0,
            dirty_bytes_per_second=far.dirty_bytes_per_s if far else 0,
            iteration=far.iteration if far else 0,
            throttle_percent=far.throttle_percent if far else 0,
            downtime_ms=far.downtime_ms if far else 0,
            eta_seconds=None if eta is None else round(eta, 1),
            progress=progress_words(far) if far else "",
            reason=record.reason,
            priority=record.priority,
            drain=record.drain,
            since=rfc3339(record.created),
            started=rfc3339(record.started),
            handed_over=rfc3339(record.handed_over),
            ended=rfc3339(record.ended),
        ),
    )


def policy_view(record: MigrationPolicyRecord) -> MigrationPolicy:
    """Return one MigrationPolicy as it was written."""
    return MigrationPolicy(
        metadata=Metadata(
            name=record.name,
            labels=record.labels,
            resource_version=str(record.version),
            creation_timestamp=rfc3339(record.created),
        ),
        spec=record.spec,
    )


def incident_view(record: IncidentRecord) -> Incident:
    """Return one incident."""
    return Incident(
        metadata=Metadata(name=record.name, creation_timestamp=rfc3339(record.opened)),
        spec=IncidentSpec(node=record.node, vm=record.vm),
        status=IncidentStatus(
            phase="Closed" if record.closed else "Open",
            title=record.title,
            opened=rfc3339(record.opened),
            closed=rfc3339(record.closed),
            way_out="" if record.closed else record.way_out,
            vms=tuple(record.vms),
            screenshot=record.screenshot,
            steps=tuple(map(_step_view, record.steps)),
        ),
    )


def _step_view(step: IncidentStep) -> IncidentStepView:
    return IncidentStepView(
        at=rfc3339(step.at),
        what=step.what,
        detail=step.detail,
        who=step.who,
        times=step.times,
        last_at=rfc3339(step.last_at),
    )


def event_view(line: HistoryLine) -> EventView:
    """Return one line of history as an Event."""
    return EventView(
        metadata=Metadata(name=str(line.position)),
        at=rfc3339(line.at),
        kind=line.kind,
        node=line.node,
        vm=line.vm,
        reason=line.reason,
        cause=line.cause,
        message=line.detail,
    )


def plain_event(line: HistoryLine) -> Plain:
    """Return one line of history in its plain form."""
    shown = every_field(event_view(line))
    return {"apiVersion": API_VERSION, "kind": line.kind, **{k: v for k, v in shown.items() if k != "kind"}}
