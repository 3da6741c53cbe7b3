"""Which VMs are started, stopped and paused, and where.

A VM that should run and has no run is placed and started as soon as nothing binds it any more.
All that wait are placed together, by priority, so that a whole failed node is one batch. What no
node takes stays Recovering (or Pending), with the reasons per node, and is tried again whenever
anything changes. Pure.
"""

from __future__ import annotations

from aggregator.core.arming import acts, why_vm_held
from aggregator.core.choice import Choice
from aggregator.core.dependencies import dependency_notes, is_postponed
from aggregator.core.disk_users import users_of
from aggregator.core.draft import Draft
from aggregator.core.events import (
    MigrationPhase,
    PlacementRefused,
    RunOutcome,
    StartDecided,
    StopDecided,
    VmVerb,
)
from aggregator.core.health import HUNG, probes_of, wants_picture
from aggregator.core.host_state import left_behind
from aggregator.core.isolation import grace_of, isolation_of
from aggregator.core.kept import pack
from aggregator.core.lookups import (
    can_order,
    counts_from,
    current_report,
    grace_over,
    open_orders,
    wants_run,
)
from aggregator.core.runs import STARTS
from aggregator.core.seats import choice_of, place_vms
from aggregator.core.state import NodeRecord, State, VmRecord
from aggregator.core.tolerating import tolerated_until
from fleet.messages import DestroyVm, OrderBody, PauseVm, ShutdownVm, StartVm, UnpauseVm
from fleet.model import QemuState, RunStrategy


def decide_starts(draft: Draft) -> None:
    """Place and start, as one batch, every VM that should run and may."""
    state = draft.state
    waiting = [vm for vm in state.derived.active_vms if _may_start(draft, vm)]
    if not waiting or not acts(state):
        return
    if not grace_over(state, draft.now):
        draft.look_again(counts_from(state) + state.config.startup_grace.at_most)
        return
    waiting = [vm for vm in waiting if not is_postponed(draft, vm)]
    waiting.sort(key=lambda vm: (-vm.spec.restart_priority, vm.created, vm.name))
    in_flight = _starts_in_flight(state)
    room = state.config.recovery.cluster_max - sum(in_flight.values())
    for vm, verdict in place_vms(state, _with_free_disks(draft, waiting)):
        if verdict.node is None:
            _refuse(draft, vm, verdict.rejected, "no node takes it now")
            continue
        here = in_flight.get(verdict.node, 0)
        if room <= 0 or here >= state.config.recovery.per_node_max:
            continue
        _start(draft, vm, state.nodes[verdict.node], choice_of(state, verdict, verdict.node))
        in_flight[verdict.node] = here + 1
        room -= 1


def _refuse(draft: Draft, vm: VmRecord, rejected: dict[str, tuple[str, ...]], reason: str) -> None:
    if rejected != vm.rejected:
        draft.add(PlacementRefused(at=draft.now, vm=vm.name, rejected=rejected, reason=reason, cause=vm.fact))


def _with_free_disks(draft: Draft, waiting: list[VmRecord]) -> list[VmRecord]:
    """Return the VMs whose disks nobody else writes (S15). A VM writes its disks as long as it is bound."""
    users = users_of(vm for vm in draft.state.vms.values() if vm.bindings)
    free = []
    for vm in waiting:
        clashes: dict[str, tuple[str, ...]] = {
            f"disk {disk.target} ({disk.identity})": (f"DiskInUse: {why}",) for disk, why in users.clashes(vm)
        }
        if clashes:
            _refuse(draft, vm, clashes, "a disk has one writer")
            continue
        users.add(vm)
        free.append(vm)
    return free


def _may_start(draft: Draft, vm: VmRecord) -> bool:
    return (
        not vm.run_open
        and not vm.bindings
        and wants_run(vm)
        and (vm.start_wanted or not why_vm_held(draft.state, vm))
        and draft.due(vm.held_until)
        and draft.due(vm.retry_at)
        and (vm.start_wanted or draft.due(tolerated_until(draft.state, vm)))
        and not open_orders(draft.state, vm)
    )


def _starts_in_flight(state: State) -> dict[str, int]:
    count: dict[str, int] = {}
    for record in state.orders.values():
        if isinstance(record.order.body, STARTS):
            count[record.node] = count.get(record.node, 0) + 1
    return count


def _start(draft: Draft, vm: VmRecord, node: NodeRecord, choice: Choice | None) -> None:
    epoch, run = vm.epoch_top + 1, vm.run + 1
    reason = "; ".join([start_reason(vm), *dependency_notes(draft.state, draft.now, vm), *left_behind(vm, node.name)])
    draft.add(
        StartDecided(
            at=draft.now,
            vm=vm.name,
            node=node.name,
            boot_id=node.boot_id,
            epoch=epoch,
            run=run,
            choice=choice,
            reason=reason,
            cause=vm.fact,
        )
    )
    xml = vm.definition.xml if vm.definition is not None else vm.spec.domain_xml
    isolation, probes = isolation_of(draft.state, vm), probes_of(vm)
    body = StartVm(xml=xml, run=run, isolation=isolation, probes=probes, kept=pack(vm))
    draft.order(node, vm, body, epoch=epoch, reason=reason)


def start_reason(vm: VmRecord) -> str:
    """Return why a VM is started, for people."""
    if vm.start_wanted:
        return "asked for"
    if vm.outcome is None:
        return f"its run strategy is {vm.spec.run_strategy}"
    return f"its last run {vm.outcome.lower()}, its run strategy is {vm.spec.run_strategy}"


def decide_stops(draft: Draft) -> None:
    """End runs that shall end, and carry out pauses."""
    for vm in draft.state.derived.active_vms:
        if not vm.run_open:
            continue
        halted = vm.spec.run_strategy is RunStrategy.HALTED and not vm.start_wanted
        if halted and vm.stopping is None and acts(draft.state):
            draft.add(
                StopDecided(
                    at=draft.now,
                    vm=vm.name,
                    outcome=RunOutcome.STOPPED,
                    reason="its run strategy is Halted",
                    cause=vm.fact,
                )
            )
        elif vm.stopping is not None:
            _stop(draft, vm)
        else:
            _pause(draft, vm)


_STOP_REASONS = {RunOutcome.STOPPED: "shall stop", RunOutcome.FAILED: HUNG}


def _stop(draft: Draft, vm: VmRecord) -> None:
    node = draft.state.nodes.get(vm.owner)
    if node is None or not can_order(node) or not draft.due(vm.retry_at) or _is_moving(draft.state, vm):
        return
    pending = [r for r in open_orders(draft.state, vm) if r.node == vm.owner]
    if any(isinstance(r.order.body, DestroyVm) for r in pending):
        return
    if pending and not (vm.stop_force and isinstance(pending[0].order.body, ShutdownVm)):
        return
    report = current_report(draft.state, vm, vm.owner)
    if report is None or report.state is QemuState.GONE:
        return
    grace_s = grace_of(vm)
    reason = _STOP_REASONS.get(vm.stopping or RunOutcome.STOPPED, "leaves its node")
    if vm.stop_force or not grace_s:
        body: OrderBody = DestroyVm(run=vm.run, picture=wants_picture(vm, node.protocol))
    else:
        body = ShutdownVm(run=vm.run, grace_s=grace_s)
    draft.order(node, vm, body, epoch=vm.epoch, reason=reason)


def _is_moving(state: State, vm: VmRecord) -> bool:
    """Return whether a migration has to end first. A copy that is only to be discarded cannot run any more."""
    migration = state.migrations.get(vm.migration)
    if migration is None:
        return False
    return migration.phase is not MigrationPhase.DISCARDING or vm.owner != migration.source


def _pause(draft: Draft, vm: VmRecord) -> None:
    """Carry out a person's pause or unpause; a guest stopped by an I/O error is left alone."""
    node = draft.state.nodes.get(vm.owner)
    report = current_report(draft.state, vm, vm.owner)
    if vm.pause_asked is None or node is None or report is None or vm.migration:
        return
    if not can_order(node) or open_orders(draft.state, vm) or not draft.due(vm.retry_at):
        return
    if vm.pause_asked is VmVerb.PAUSE and report.state is QemuState.RUNNING:
        draft.order(node, vm, PauseVm(run=vm.run), epoch=vm.epoch, reason="asked to pause")
    elif vm.pause_asked is VmVerb.UNPAUSE and report.state is QemuState.PAUSED and not report.paused_on_io_error:
        draft.order(node, vm, UnpauseVm(run=vm.run), epoch=vm.epoch, reason="asked to run on")
