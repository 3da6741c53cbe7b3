"""How events change migrations and drains. Assigns to the state; called by fold only."""

from __future__ import annotations

from collections.abc import Callable

from aggregator.core import events as ev
from aggregator.core.events import Event, MigrationPhase
from aggregator.core.fold_nodes import number_of, set_taints
from aggregator.core.state import Binding, DrainRecord, Eviction, MigrationPolicyRecord, MigrationRecord, State

PRIORITY_USER = 50
MIGRATIONS_KEPT_MAX = 500
DOUBLINGS_MAX = 30
WHO_STOPS_HOSTS = "the shutdown of its host"
DRAINS_OPEN = ("Waiting", "Running", "Paused")
ENDED = (MigrationPhase.SUCCEEDED, MigrationPhase.FAILED, MigrationPhase.CANCELLED)


def _migration_queued(state: State, event: ev.MigrationQueued) -> None:
    state.counters["mig"] = max(state.counters.get("mig", 0), number_of(event.migration))
    state.migrations[event.migration] = MigrationRecord(
        name=event.migration,
        vm=event.vm,
        source=event.source,
        priority=event.priority,
        created=event.at,
        wanted_target=event.target,
        planned_target=event.planned,
        drain=event.drain,
        rescue=event.rescue,
        reason=event.reason,
    )
    state.vms[event.vm].migration = event.migration
    ended = [name for name, m in state.migrations.items() if m.phase in ENDED]
    for name in ended[:-MIGRATIONS_KEPT_MAX]:
        del state.migrations[name]


def _migration_requested(state: State, event: ev.MigrationRequested) -> None:
    name = f"mig-{state.counters.get('mig', 0) + 1}"
    _migration_queued(
        state,
        ev.MigrationQueued(
            at=event.at,
            migration=name,
            vm=event.vm,
            source=state.vms[event.vm].owner,
            target=event.target,
            priority=PRIORITY_USER,
            reason=f"asked for by {event.who}" if event.who else "asked for",
        ),
    )


def _migration_changed(state: State, event: ev.MigrationChanged) -> None:
    migration = state.migrations[event.migration]
    vm = state.vms.get(event.vm)
    migration.phase = event.phase
    migration.reason = event.reason or migration.reason
    if event.phase is MigrationPhase.PREPARING and vm is not None:
        migration.target = event.target
        migration.epoch = event.epoch
        migration.source_epoch = vm.epoch
        migration.started = event.at
        migration.choice = event.choice
        vm.epoch_top = event.epoch
        vm.bindings.append(Binding(event.target, event.boot_id, event.epoch, event.at, "migration-target"))
    if event.phase is MigrationPhase.HANDING_OVER:
        migration.handed_over = event.at
    if event.phase in ENDED:
        migration.ended = event.at
        if event.phase is MigrationPhase.SUCCEEDED:
            migration.percent = 100.0
        if vm is not None and vm.migration == event.migration:
            vm.migration = ""
        _tell_drain(state, migration, event)


def _tell_drain(state: State, migration: MigrationRecord, event: ev.MigrationChanged) -> None:
    """Count the failure for whoever wanted the move: it is tried again after a time that doubles."""
    if event.phase is not MigrationPhase.FAILED:
        return
    drain = state.drains.get(migration.drain)
    vm = state.vms.get(event.vm)
    if drain is not None:
        failures = drain.failures[event.vm] = drain.failures.get(event.vm, 0) + 1
        drain.retry_at[event.vm] = event.at + _retry_s(state, failures)
    elif vm is not None and vm.eviction is not None and vm.eviction.node == migration.source:
        vm.eviction.failures += 1
        vm.eviction.retry_at = event.at + _retry_s(state, vm.eviction.failures)


def _retry_s(state: State, failures: int) -> float:
    limits = state.config.migration
    return min(float(limits.retry_max), limits.retry_from * 2.0 ** min(failures - 1, DOUBLINGS_MAX))


def _vm_eviction_changed(state: State, event: ev.VmEvictionChanged) -> None:
    vm = state.vms[event.vm]
    if event.over:
        vm.eviction = None
    elif vm.eviction is None:
        vm.eviction = Eviction(event.node, event.at, event.reason, event.blocked)
    else:
        vm.eviction.blocked = event.blocked


def _arrival_checked(state: State, event: ev.ArrivalChecked) -> None:
    migration = state.migrations.get(event.migration)
    if migration is not None and migration.phase is MigrationPhase.PREPARING and migration.target == event.node:
        migration.arrival = event.findings


def _migration_cancel_requested(state: State, event: ev.MigrationCancelRequested) -> None:
    migration = state.migrations[event.migration]
    migration.cancel_wanted = True


def _migration_progressed(state: State, event: ev.MigrationProgressed) -> None:
    for migration in state.migrations.values():
        if migration.migrate_order == event.order_id and migration.phase not in ENDED:
            migration.percent = event.far.percent
            migration.far = event.far


def _drain_requested(state: State, event: ev.DrainRequested) -> None:
    drain = state.drains[event.node] = DrainRecord(
        node=event.node,
        who=event.who,
        since=event.at,
        deadline=event.at + event.deadline_s if event.deadline_s else 0.0,
        force=event.force,
        state="Waiting" if event.job else "Running",
        job=event.job,
        domain=event.domain,
        turn=event.turn,
        keeps_spare=event.keeps_spare,
    )
    if not event.job:
        _begin_drain(state, drain, event.at)


def _turn_judged(state: State, event: ev.TurnJudged) -> None:
    for drain in state.drains.values():
        if (drain.job, drain.domain, drain.state) == (event.job, event.domain, "Waiting"):
            drain.judged_at, drain.judged_why = event.at, event.why_not


def _begin_drain(state: State, drain: DrainRecord, at: float) -> None:
    node = state.nodes[drain.node]
    node.drain = drain.node
    node.fact = state.position
    set_taints(node, at)
    drain.vms = tuple(vm.name for vm in state.vms.values() if any(b.node == drain.node for b in vm.bindings))


def _drain_cancelled(state: State, event: ev.DrainCancelled) -> None:
    node = state.nodes[event.node]
    node.drain = ""
    node.fact = state.position
    set_taints(node, event.at)
    drain = state.drains.get(event.node)
    if drain is not None:
        if drain.state in DRAINS_OPEN:
            drain.state = "Cancelled"
        drain.ended = drain.ended or event.at
    _call_off_queued(state, event.node)


def _host_stop_began(state: State, event: ev.HostStopBegan) -> None:
    node = state.nodes[event.node]
    node.host_stopping = True
    if not node.drain:
        asked = ev.DrainRequested(
            at=event.at, node=event.node, deadline_s=event.within_s, force=True, who=WHO_STOPS_HOSTS
        )
        _drain_requested(state, asked)


def _host_stop_ended(state: State, event: ev.HostStopEnded) -> None:
    state.nodes[event.node].host_stopping = False
    drain = state.drains.get(event.node)
    if drain is not None and drain.who == WHO_STOPS_HOSTS:
        _drain_cancelled(state, ev.DrainCancelled(at=event.at, node=event.node, who=WHO_STOPS_HOSTS))


def _call_off_queued(state: State, node: str) -> None:
    for migration in state.migrations.values():
        if migration.drain == node and migration.phase is MigrationPhase.QUEUED:
            migration.cancel_wanted = True


def _drain_paused(state: State, event: ev.DrainPaused) -> None:
    drain = state.drains[event.node]
    if drain.state in ("Running", "Paused"):
        drain.state = "Paused" if event.paused else "Running"


def _drain_changed(state: State, event: ev.DrainChanged) -> None:
    drain = state.drains[event.node]
    if drain.state == "Waiting" and event.state == "Running":
        _begin_drain(state, drain, event.at)
    drain.state = event.state
    drain.blocked = event.blocked
    if event.state not in DRAINS_OPEN:
        drain.ended = event.at
        _call_off_queued(state, event.node)


def _policy_applied(state: State, event: ev.MigrationPolicyApplied) -> None:
    known = state.migration_policies.get(event.policy)
    state.migration_policies[event.policy] = MigrationPolicyRecord(
        name=event.policy,
        spec=event.spec,
        labels=event.labels,
        created=known.created if known else event.at,
        version=state.position,
    )


def _policy_deleted(state: State, event: ev.MigrationPolicyDeleted) -> None:
    state.migration_policies.pop(event.policy, None)


def _rescue_due(state: State, event: ev.RescueDue) -> None:
    node = state.nodes[event.node]
    node.rescue_since = event.at
    set_taints(node, event.at)


HANDLERS: dict[type[Event], Callable[..., None]] = {
    ev.ArrivalChecked: _arrival_checked,
    ev.TurnJudged: _turn_judged,
    ev.MigrationQueued: _migration_queued,
    ev.MigrationRequested: _migration_requested,
    ev.MigrationChanged: _migration_changed,
    ev.MigrationCancelRequested: _migration_cancel_requested,
    ev.MigrationProgressed: _migration_progressed,
    ev.MigrationPolicyApplied: _policy_applied,
    ev.MigrationPolicyDeleted: _policy_deleted,
    ev.DrainRequested: _drain_requested,
    ev.DrainCancelled: _drain_cancelled,
    ev.DrainChanged: _drain_changed,
    ev.DrainPaused: _drain_paused,
    ev.HostStopBegan: _host_stop_began,
    ev.HostStopEnded: _host_stop_ended,
    ev.RescueDue: _rescue_due,
    ev.VmEvictionChanged: _vm_eviction_changed,
}
