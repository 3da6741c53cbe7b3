"""A drain as people see it: how far it is, what is left of its plan, how long that takes, what blocks it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec
from msgspec import field

from aggregator.core.drain import why_waiting
from aggregator.core.eviction import eviction_method, no_target_words, way_out
from aggregator.core.forecast import Forecast
from aggregator.core.migration_drive import move_eta_s, moves_at_once
from aggregator.core.moments import rfc3339
from aggregator.core.objects import API_VERSION, ApiStruct, Metadata
from aggregator.core.seats import place_moves, stays_in_maintenance
from aggregator.core.state import DrainRecord, State, VmRecord
from aggregator.core.views import Plain, every_field
from fleet.model import RunStrategy

BEGUN = ("Running", "Paused")  # a plan for one that waits would be of another day, and a job has many


class BlockedVm(ApiStruct, frozen=True, kw_only=True):
    """A VM that keeps a drain from ending, why, and what a person can do about it."""

    vm: str
    reason: str
    way_out: str = ""


class PlannedMove(ApiStruct, frozen=True, kw_only=True):
    """What a drain does, or would do, to one VM. method: LiveMigrate | Restart | ShutDown | Stay.

    to: where it would go now, if it migrates. wave: with which others at once, from 1, as the limits
    allow; 0 if it does not.
    etaSeconds: of its own move, null where nothing is known of the link. forecast: of a dry run, which measures what
    the guest writes.
    """

    vm: str
    method: str
    to: str = ""
    reason: str = ""
    wave: int = 0
    eta_seconds: float | None = None
    forecast: Forecast | None = None


class DrainStatus(ApiStruct, frozen=True, kw_only=True):
    """How far the emptying of a node is. waitsFor: why it has not begun; etaSeconds: of what is left, where known."""

    phase: str
    waits_for: str = ""
    eta_seconds: float | None = None
    done: int = 0
    total: int = 0
    blocked: tuple[BlockedVm, ...] = ()
    plan: tuple[PlannedMove, ...] = ()
    since: str = ""
    deadline: str = ""
    ended: str = ""


class Drain(ApiStruct, frozen=True, kw_only=True):
    """Emptying one node; its name is the node's."""

    api_version: str = field(default=API_VERSION)
    kind: str = "Drain"
    metadata: Metadata
    status: DrainStatus


def vms_on(state: State, node: str) -> Iterator[VmRecord]:
    """Yield the VMs whose run is on a node, by name."""
    for name in sorted(state.vms):
        record = state.vms[name]
        if record.run_open and record.owner == node:
            yield record


def drain_view(state: State, record: DrainRecord) -> Drain:
    """Return one drain with its progress and what is left of its plan."""
    left = {vm.name for vm in vms_on(state, record.node)}
    plan = drain_plan(state, record.node, force=record.force) if record.state in BEGUN else ()
    return Drain(
        metadata=Metadata(name=record.node, creation_timestamp=rfc3339(record.since)),
        status=DrainStatus(
            phase=record.state,
            done=sum(name not in left for name in record.vms),
            total=len(record.vms),
            blocked=tuple(_blocked(state, vm, record.blocked[vm]) for vm in sorted(record.blocked)),
            plan=plan,
            waits_for=why_waiting(state, record) if record.state == "Waiting" else "",
            eta_seconds=plan_eta_s(plan),
            since=rfc3339(record.since),
            deadline=rfc3339(record.deadline),
            ended=rfc3339(record.ended),
        ),
    )


def planned_drain(
    state: State, node: str, *, force: bool, deadline_s: float = 0.0, foretold: Mapping[str, Forecast] | None = None
) -> Drain:
    """Return the drain that would begin now (dry run). foretold: how the moves of some VMs would go, by name."""
    plan = drain_plan(state, node, force=force, foretold=foretold)
    return Drain(
        metadata=Metadata(name=node),
        status=DrainStatus(
            phase="Planned",
            total=len(plan),
            blocked=tuple(_blocked(state, step.vm, step.reason) for step in plan if step.method == "Stay"),
            plan=tuple(step for step in plan if step.method != "Stay"),
            eta_seconds=plan_eta_s(plan),
            deadline=rfc3339(state.now + deadline_s) if deadline_s else "",
        ),
    )


def drain_plan(
    state: State, node: str, *, force: bool, foretold: Mapping[str, Forecast] | None = None
) -> tuple[PlannedMove, ...]:
    """Return what a drain does to each VM on a node (product.md, eviction), and where those that migrate would go."""
    records = [record for record in vms_on(state, node) if not stays_in_maintenance(record)]
    steps = {record.name: _planned(state, record, force=force) for record in records}
    moving = [record for record in records if steps[record.name].method == "LiveMigrate"]
    for record, verdict in zip(moving, place_moves(state, moving, node) if moving else (), strict=True):
        if verdict.node is not None:
            steps[record.name] = msgspec.structs.replace(steps[record.name], to=verdict.node)
        else:
            why = no_target_words(verdict.rejected)
            steps[record.name] = PlannedMove(vm=record.name, method="Stay", reason=why)
    return _in_waves(state, node, steps, foretold or {})


def _in_waves(
    state: State, node: str, steps: dict[str, PlannedMove], foretold: Mapping[str, Forecast]
) -> tuple[PlannedMove, ...]:
    """Return the steps with the wave each belongs to: as many migrations at once as the limits allow."""
    at_once = moves_at_once(state)
    found, number = [], 0
    for name, step in steps.items():
        if step.method != "LiveMigrate":
            found.append(step)
            continue
        eta = move_eta_s(state, state.vms[name], node)
        rounded = None if eta is None else round(eta, 1)
        told = foretold.get(name)
        if told is not None:
            rounded = told.seconds
        found.append(msgspec.structs.replace(step, wave=number // at_once + 1, eta_seconds=rounded, forecast=told))
        number += 1
    return tuple(found)


def plan_eta_s(plan: tuple[PlannedMove, ...]) -> float | None:
    """Return how long the migrations of a plan take, wave after wave; None where one of them is not known."""
    waves: dict[int, float] = {}
    for step in plan:
        if step.method == "LiveMigrate":
            if step.eta_seconds is None:
                return None
            waves[step.wave] = max(waves.get(step.wave, 0.0), step.eta_seconds)
    return round(sum(waves.values()), 1) if waves else None


def plain_drain(value: Drain) -> Plain:
    """Return the plain form of a drain: the status in full."""
    shown: Plain = {"apiVersion": value.api_version, "kind": value.kind}
    return {**shown, "metadata": msgspec.to_builtins(value.metadata), "status": every_field(value.status)}


def _blocked(state: State, vm: str, reason: str) -> BlockedVm:
    record = state.vms.get(vm)
    return BlockedVm(vm=vm, reason=reason, way_out=way_out(state, record) if record is not None else "")


def _planned(state: State, record: VmRecord, *, force: bool) -> PlannedMove:
    method, why = eviction_method(state, record)
    if method == "migrate":
        return PlannedMove(vm=record.name, method="LiveMigrate", reason=why)
    if method == "blocked" and not force:
        return PlannedMove(vm=record.name, method="Stay", reason=why)
    if record.spec.run_strategy in (RunStrategy.ALWAYS, RunStrategy.RERUN_ON_FAILURE):
        return PlannedMove(vm=record.name, method="Restart", reason=f"{why}; shut down and started elsewhere")
    return PlannedMove(
        vm=record.name, method="ShutDown", reason=f"{why}; stays down with runStrategy {record.spec.run_strategy}"
    )
