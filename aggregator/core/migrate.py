"""One VM's way from one node to another.

Queued waits for room and a target. Preparing: the target holds a permit for the new epoch, and
the VM is bound to both nodes. Running: libvirt copies, peer to peer; the copy arrives paused.
Only when the source is Released, with the end "Migrated", does the owner change and is the copy
told to run (HandingOver), by its source's agent and by us. A source that crashed may have run
on after the copy was made, so then the copy is discarded and the VM started anew. Pure.
"""

from __future__ import annotations

import hashlib

from aggregator.core.arming import acts
from aggregator.core.arrival_check import ask_target, refusal
from aggregator.core.choice import Choice
from aggregator.core.copies import copy_is_the_vm, copy_runs, end_source, is_stuck_finished
from aggregator.core.draft import Draft
from aggregator.core.events import MigrationChanged, MigrationPhase, NodeState, OwnerChanged
from aggregator.core.fold_moves import ENDED
from aggregator.core.kept import pack
from aggregator.core.lookups import (
    binding_to,
    can_order,
    counts_from,
    current_report,
    gives_vms,
    grace_over,
    open_orders,
    takes_vms,
)
from aggregator.core.migratable import why_not_migratable
from aggregator.core.migration_drive import drive_of, has_bandwidth, migration_address_of, rescue_order
from aggregator.core.rescuable import why_no_source, why_not_rescued
from aggregator.core.seats import choice_of, migration_targets
from aggregator.core.state import MigrationRecord, NodeRecord, State, VmRecord
from fleet.messages import CancelMigration, DiscardIncoming, MigrateVm, ReceiveVm, RescueVm, ResumeVm
from fleet.model import Plane, QemuState

STEPS: dict[MigrationPhase, tuple[MigrationPhase, ...]] = {
    MigrationPhase.QUEUED: (
        MigrationPhase.PREPARING,
        MigrationPhase.FAILED,
        MigrationPhase.CANCELLED,
    ),
    MigrationPhase.PREPARING: (
        MigrationPhase.RUNNING,
        MigrationPhase.DISCARDING,
        MigrationPhase.HANDING_OVER,
    ),
    MigrationPhase.RUNNING: (MigrationPhase.HANDING_OVER, MigrationPhase.DISCARDING),
    MigrationPhase.HANDING_OVER: (MigrationPhase.SUCCEEDED, MigrationPhase.FAILED),
    MigrationPhase.DISCARDING: (
        MigrationPhase.FAILED,
        MigrationPhase.CANCELLED,
        MigrationPhase.HANDING_OVER,
    ),
    MigrationPhase.SUCCEEDED: (),
    MigrationPhase.FAILED: (),
    MigrationPhase.CANCELLED: (),
}
IN_FLIGHT = (
    MigrationPhase.PREPARING,
    MigrationPhase.RUNNING,
    MigrationPhase.HANDING_OVER,
    MigrationPhase.DISCARDING,
)


class IllegalMoveError(RuntimeError):
    """Somebody decided a step the table does not have: a defect."""


def decide_migrations(draft: Draft) -> None:
    """Take every migration one step."""
    waiting = []
    for migration in _open_migrations(draft.state):
        vm = draft.state.vms.get(migration.vm)
        if vm is None or not vm.run_open:
            _without_run(draft, migration)
        elif migration.phase is MigrationPhase.QUEUED:
            waiting.append((migration, vm))
        else:
            _STEPPERS[migration.phase](draft, migration, vm)
    if draft.transitions:
        return
    for migration, vm in sorted(waiting, key=lambda pair: (-pair[0].priority, pair[0].created)):
        _queued(draft, migration, vm)
        if draft.transitions:
            return


def _open_migrations(state: State) -> list[MigrationRecord]:
    """Return what has not ended, in the order it was asked for."""
    derived = state.derived
    if derived.open_migrations is None:
        derived.open_migrations = [m for m in state.migrations.values() if m.phase not in ENDED]
    return derived.open_migrations


def _step(draft: Draft, migration: MigrationRecord, to: MigrationPhase, reason: str, epoch: int = 0) -> None:
    if to not in STEPS[migration.phase]:
        raise IllegalMoveError(f"{migration.name} cannot go from {migration.phase} to {to}")
    node = draft.state.nodes.get(migration.target)
    draft.add(
        MigrationChanged(
            at=draft.now,
            migration=migration.name,
            vm=migration.vm,
            phase=to,
            target=migration.target,
            boot_id=node.boot_id if node is not None else "",
            epoch=epoch or migration.epoch,
            reason=reason,
            cause=draft.state.position,
        )
    )


def _without_run(draft: Draft, migration: MigrationRecord) -> None:
    ways = STEPS[migration.phase]
    if MigrationPhase.FAILED in ways:
        _step(draft, migration, MigrationPhase.FAILED, "the VM's run has ended")
    else:
        _step(draft, migration, MigrationPhase.DISCARDING, "the VM's run has ended")


def _why_not_begun(draft: Draft, migration: MigrationRecord, vm: VmRecord, source: NodeRecord) -> str | None:
    """Return why a queued migration fails, empty while it only has to wait; None: it may begin."""
    state = draft.state
    if migration.rescue:
        return why_not_rescued(draft, vm, source)
    if source.state not in {NodeState.UP, NodeState.SUSPECT, NodeState.UNSEEN}:
        return f"{source.name} is {source.state}"
    drain = state.drains.get(migration.drain)
    paused = drain is not None and drain.state == "Paused"
    if paused or not can_order(source) or not acts(state) or open_orders(state, vm):
        return ""
    return why_not_migratable(state, vm) or None


def _queued(draft: Draft, migration: MigrationRecord, vm: VmRecord) -> None:
    state = draft.state
    source = state.nodes.get(migration.source)
    if migration.cancel_wanted or vm.stopping is not None:
        why = "called off" if migration.cancel_wanted else "the VM is being stopped"
        _step(draft, migration, MigrationPhase.CANCELLED, why)
        return
    if vm.owner != migration.source or source is None:
        _step(draft, migration, MigrationPhase.FAILED, f"it no longer runs on {migration.source}")
        return
    if not grace_over(state, draft.now):
        draft.look_again(counts_from(state) + state.config.startup_grace.at_most)
        return  # who has not spoken yet in this life of the aggregator is no reason to fail
    why_not = _why_not_begun(draft, migration, vm, source)
    if why_not is not None:
        if why_not:
            _step(draft, migration, MigrationPhase.FAILED, why_not)
        return
    target, problem, choice = _target(draft, migration, vm)
    if problem:
        _step(draft, migration, MigrationPhase.FAILED, problem)
    elif target is not None:
        _prepare(draft, migration, vm, target, choice)


def _target(draft: Draft, migration: MigrationRecord, vm: VmRecord) -> tuple[NodeRecord | None, str, Choice | None]:
    """Return (target, "", why it) or (None, why none, None) or (None, "", None) while limits make it wait."""
    state = draft.state
    limits = state.config.migration
    flying = [m for m in state.migrations.values() if m.phase in IN_FLIGHT]
    outbound = sum(1 for m in flying if m.source == migration.source)
    if len(flying) >= limits.cluster_max or outbound >= limits.outbound_per_node_max:
        return None, "", None
    verdict = migration_targets(state, vm, migration.source)
    planned = migration.planned_target if migration.planned_target in verdict.feasible else None
    name = migration.wanted_target or planned or verdict.node
    if name is None or name not in verdict.feasible:
        rejected = {name: verdict.rejected.get(name, ())} if name else verdict.rejected
        reasons = "; ".join(f"{n}: {', '.join(r)}" for n, r in sorted(rejected.items()))
        return None, f"no node takes it ({reasons})", None
    free = [n for n in verdict.feasible if _has_way(state, vm, migration, n, flying)]
    if name not in free:
        if migration.wanted_target or not free:
            return None, "", None
        name = free[0]
    return state.nodes[name], "", None if migration.wanted_target else choice_of(state, verdict, name)


def _has_way(state: State, vm: VmRecord, migration: MigrationRecord, to: str, flying: list[MigrationRecord]) -> bool:
    """Return whether the limits of both ends let the VM come to that node now."""
    inbound = sum(1 for m in flying if m.target == to)
    if inbound >= state.config.migration.inbound_per_node_max:
        return False
    return all(has_bandwidth(state, vm, end, flying) for end in (migration.source, to))


def _prepare(draft: Draft, migration: MigrationRecord, vm: VmRecord, target: NodeRecord, choice: Choice | None) -> None:
    epoch = vm.epoch_top + 1
    draft.add(
        MigrationChanged(
            at=draft.now,
            migration=migration.name,
            vm=vm.name,
            phase=MigrationPhase.PREPARING,
            target=target.name,
            boot_id=target.boot_id,
            epoch=epoch,
            choice=choice,
            reason=migration.reason,
            cause=vm.fact,
        )
    )
    receive = ReceiveVm(
        migration=migration.name,
        run=vm.run,
        source=migration.source,
        source_epoch=vm.epoch,
        handover_secret=handover_secret(draft.state, migration.name),
        isolation=vm.isolation_told,  # as the source has it; a newer one follows when the VM has moved
        kept=pack(vm),
        probes=vm.probes_told,
    )
    draft.order(target, vm, receive, epoch=epoch, reason=f"{migration.name} comes here")
    ask_target(draft, migration, vm, target)


def handover_secret(state: State, migration: str) -> str:
    """Return what only the two agents of this migration are told; derived, so replay repeats it."""
    return hashlib.blake2b(migration.encode(), key=state.secret.encode()[:64], digest_size=16).hexdigest()


def _preparing(draft: Draft, migration: MigrationRecord, vm: VmRecord) -> None:
    state = draft.state
    source, target = state.nodes.get(migration.source), state.nodes.get(migration.target)
    if binding_to(vm, migration.target) is None:
        _step(draft, migration, MigrationPhase.DISCARDING, "the target did not take it")
    elif migration.cancel_wanted or vm.stopping is not None:
        _step(draft, migration, MigrationPhase.DISCARDING, "called off")
    elif migration.receive_order in state.orders:
        if not can_order(target):
            _step(draft, migration, MigrationPhase.DISCARDING, "the target is no longer there")
    elif not _permitted(state, vm, migration):
        _step(draft, migration, MigrationPhase.DISCARDING, "the target did not take it")
    elif source is None or target is None or not takes_vms(target):
        _step(draft, migration, MigrationPhase.DISCARDING, "one end is no longer there")
    elif (refused := refusal(draft, migration, vm, target)) != "":
        if refused is not None:
            _step(draft, migration, MigrationPhase.DISCARDING, f"{target.name} refuses it: {refused}")
    elif migration.rescue:
        _prepared_rescue(draft, migration, vm, source, target)
    elif not gives_vms(source):
        _step(draft, migration, MigrationPhase.DISCARDING, "one end is no longer there")
    elif not open_orders(state, vm):
        _step(draft, migration, MigrationPhase.RUNNING, "the target is ready")
        _send(draft, migration, vm, source, target)


def _prepared_rescue(
    draft: Draft, migration: MigrationRecord, vm: VmRecord, source: NodeRecord, target: NodeRecord
) -> None:
    if source.state is not NodeState.AGENT_LOST:
        if why := why_no_source(source):
            _step(draft, migration, MigrationPhase.DISCARDING, why)
    elif not open_orders(draft.state, vm):
        _step(draft, migration, MigrationPhase.RUNNING, "the target is ready")
        body = rescue_order(draft.state, migration, vm, source, target)
        draft.order(target, vm, body, epoch=migration.epoch, reason=f"{migration.name} from {source.name}")


def _permitted(state: State, vm: VmRecord, migration: MigrationRecord) -> bool:
    """Return whether the target's ledger shows the permit of this epoch."""
    report = current_report(state, vm, migration.target)
    return report is not None and report.epoch == migration.epoch and not report.released


def _send(draft: Draft, migration: MigrationRecord, vm: VmRecord, source: NodeRecord, target: NodeRecord) -> None:
    facts = target.facts
    addresses = facts.addresses if facts is not None else {}
    port = facts.agent_port if facts is not None else 0
    drive = drive_of(draft.state, vm)
    body = MigrateVm(
        migration=migration.name,
        run=vm.run,
        target=target.name,
        target_epoch=migration.epoch,
        peer_uri=facts.peer_uri if facts is not None else "",
        migration_address=migration_address_of(target),
        peer_agent=tuple(
            f"{addresses[plane]}:{port}" for plane in (Plane.CONTROL, Plane.MIGRATION) if addresses.get(plane)
        ),
        handover_secret=handover_secret(draft.state, migration.name),
        bandwidth_bytes_per_s=drive.bandwidth_bytes_per_s,
        downtime_ms_max=drive.downtime_ms_max,
        timeout_s=drive.timeout_s,
        progress_timeout_s=drive.progress_timeout_s,
        auto_converge=drive.auto_converge,
        parallel_connections=drive.parallel_connections,
    )
    draft.order(source, vm, body, epoch=vm.epoch, reason=f"{migration.name} to {target.name}")


def _running(draft: Draft, migration: MigrationRecord, vm: VmRecord) -> None:
    state = draft.state
    if copy_is_the_vm(state, vm, migration):
        _hand_over(draft, migration, vm)
    elif binding_to(vm, migration.source) is None:
        _step(draft, migration, MigrationPhase.DISCARDING, "the source ended without handing over")
    elif migration.migrate_order not in state.orders:
        if copy_runs(state, vm, migration):
            return  # handed over without us, and the source has not said so yet
        why = _last_words(state, migration) or "the source's migration ended without success"
        _step(draft, migration, MigrationPhase.DISCARDING, why)
    elif is_stuck_finished(draft, vm, migration.source):
        _end_source(draft, migration, vm)
    elif migration.cancel_wanted and not migration.cancel_order:
        who = state.nodes[migration.target if migration.rescue else migration.source]
        epoch = migration.epoch if migration.rescue else vm.epoch
        if can_order(who):
            draft.order(who, vm, CancelMigration(migration=migration.name), epoch=epoch, reason="called off")


def _end_source(draft: Draft, migration: MigrationRecord, vm: VmRecord) -> None:
    """End a source that lost its libvirtd at the hand-over: its run is started anew from the disk.

    Whether it ran on after the copy was made cannot be told, so the copy is not used.
    """
    end_source(draft, vm, draft.state.nodes[migration.source])


def _last_words(state: State, migration: MigrationRecord) -> str:
    for line in reversed(state.history):
        if line.kind == "OrderClosed" and line.detail.startswith(f"{migration.migrate_order} "):
            return line.reason
    return ""


def _hand_over(draft: Draft, migration: MigrationRecord, vm: VmRecord) -> None:
    draft.add(
        OwnerChanged(
            at=draft.now,
            vm=vm.name,
            node=migration.target,
            epoch=migration.epoch,
            reason=f"{migration.source} released it",
            cause=vm.fact,
        )
    )
    _step(draft, migration, MigrationPhase.HANDING_OVER, "the source is released")


def _handing_over(draft: Draft, migration: MigrationRecord, vm: VmRecord) -> None:
    target = draft.state.nodes[migration.target]
    report = current_report(draft.state, vm, migration.target)
    if report is not None and report.state is QemuState.RUNNING:
        _step(draft, migration, MigrationPhase.SUCCEEDED, "the copy runs")
    elif can_order(target) and not open_orders(draft.state, vm) and draft.due(vm.retry_at):
        body = ResumeVm(migration=migration.name, run=vm.run)
        draft.order(target, vm, body, epoch=migration.epoch, reason="its source is released")


def _discarding(draft: Draft, migration: MigrationRecord, vm: VmRecord) -> None:
    if copy_is_the_vm(draft.state, vm, migration):
        _hand_over(draft, migration, vm)
        return
    if binding_to(vm, migration.target) is None:
        end = MigrationPhase.CANCELLED if migration.cancel_wanted else MigrationPhase.FAILED
        _step(draft, migration, end, migration.reason)
        return
    target = draft.state.nodes.get(migration.target)
    if target is None or not can_order(target) or copy_runs(draft.state, vm, migration) or not draft.due(vm.retry_at):
        return
    copy = current_report(draft.state, vm, migration.target)
    if copy is not None and copy.released and copy.epoch >= migration.epoch:
        return  # nothing is left to discard; what is still in hand there ends by itself, and then it is freed
    mine = [r for r in open_orders(draft.state, vm) if r.node == migration.target]
    pending = [r for r in mine if not isinstance(r.order.body, RescueVm)]  # that one ends with its copy
    if not pending:
        body = DiscardIncoming(migration=migration.name)
        draft.order(target, vm, body, epoch=migration.epoch, reason=migration.reason)


_STEPPERS = {
    MigrationPhase.PREPARING: _preparing,
    MigrationPhase.RUNNING: _running,
    MigrationPhase.HANDING_OVER: _handing_over,
    MigrationPhase.DISCARDING: _discarding,
}
