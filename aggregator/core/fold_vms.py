"""How events change VMs: reports, bindings, runs, orders. What people ask of them is in fold_wishes.

Assigns to the state; called by fold only. A report of a QEMU always makes a binding, and no
report ever takes one away: that is a decision with a proof (BindingFreed).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec import structs

from aggregator.core import events as ev
from aggregator.core import fold_definitions, fold_leftovers
from aggregator.core.events import Event, ProofKind, RunOutcome
from aggregator.core.flapping import HOUR_S
from aggregator.core.state import (
    EPOCHS_PAST_MAX,
    Binding,
    NodeRecord,
    OrderRecord,
    Postponed,
    SecondRun,
    SeenReport,
    State,
    VmRecord,
)
from fleet.messages import (
    CODE_HAS_RUN,
    CancelMigration,
    DiscardIncoming,
    MigrateVm,
    PauseVm,
    ReceiveVm,
    RescueVm,
    ResumeVm,
    SetIsolation,
    SetProbes,
    StartVm,
    UndefineVm,
    UnpauseVm,
)
from fleet.model import (
    Definition,
    EndReason,
    OrderOutcome,
    QemuState,
    RunStrategy,
    VmReport,
)

BACKOFF_STEP_S = 10.0
ORDER_RETRY_S = 5.0
DROPPED_RETRY_S = 1.0


def take_reports(
    state: State,
    node: NodeRecord,
    vms: Iterable[VmReport],
    definitions: Iterable[Definition],
    *,
    full: bool,
    at: float,
) -> None:
    """Note what a node says of its VMs; a full report also forgets what it no longer names."""
    if node.session is None:
        return
    said = {report.uuid: report for report in vms}
    if full:
        for vm in state.vms.values():
            if vm.uuid not in said:
                vm.reports.pop(node.name, None)
        state.foreign[node.name] = {}
    if state.leftovers:
        fold_leftovers.take(state, node, said, full=full)
    for report in said.values():
        known = state.vms.get(state.names.get(report.uuid, ""))
        if known is None:
            foreign = state.foreign.setdefault(node.name, {})
            if report.state is QemuState.GONE:
                foreign.pop(report.uuid, None)
            else:
                foreign[report.uuid] = report
        else:
            _take_report(state, node, known, report, at)
    fold_definitions.take(state, node, definitions)


def _take_report(state: State, node: NodeRecord, vm: VmRecord, report: VmReport, at: float) -> None:
    if node.session is None:
        return
    vm.reports[node.name] = SeenReport(report, node.session, at)
    vm.fact = state.position
    if report.state is not QemuState.GONE and not any(
        b.node == node.name and b.boot_id == node.boot_id for b in vm.bindings
    ):
        vm.bindings.append(Binding(node.name, node.boot_id, report.epoch, at, "foreign"))
    vm.epoch_top = max(vm.epoch_top, report.epoch)
    if (
        vm.run_open
        and vm.owner == node.name
        and report.state is QemuState.RUNNING
        and report.run == vm.run
        and report.epoch >= vm.epoch
    ):
        vm.run_reached_running = True
        vm.failed_starts = 0


def _order_issued(state: State, event: ev.OrderIssued) -> None:
    state.counters["ord"] = max(state.counters.get("ord", 0), int(event.order.order_id.rsplit("-", 1)[1]))
    record = state.orders[event.order.order_id] = OrderRecord(event.order, event.node, event.vm, event.at)
    if isinstance(event.order.body, SetIsolation) and event.vm in state.vms:
        record.kept_version = state.vms[event.vm].version
    node = state.nodes.get(event.node)
    if node is not None:
        node.last_order_at = event.at
    body = event.order.body
    if not event.vm:
        fold_leftovers.ordered(state, event.node, event.order.uuid, event.at)
    if isinstance(body, UnpauseVm):
        state.vms[event.vm].resumed_at.append(event.at)
    if isinstance(body, StartVm):
        state.vms[event.vm].isolation_told = body.isolation
        state.vms[event.vm].kept_told = state.vms[event.vm].version
        state.vms[event.vm].probes_told = body.probes
    if isinstance(body, ReceiveVm | MigrateVm | RescueVm | CancelMigration):
        migration = state.migrations.get(body.migration)
        if migration is not None and isinstance(body, ReceiveVm):
            migration.receive_order = event.order.order_id
        elif migration is not None and isinstance(body, MigrateVm | RescueVm):
            migration.migrate_order = event.order.order_id
        elif migration is not None:
            migration.cancel_order = event.order.order_id


def _order_reported(state: State, event: ev.OrderReported) -> None:
    record = state.orders.get(event.order_id)
    node = state.nodes.get(event.node)
    current = node is not None and node.connected and node.session == event.session
    if record is not None and record.node == event.node and current:
        record.accepted = True
        if event.outcome is not OrderOutcome.ACCEPTED:
            record.outcome = event.outcome
            record.code = event.code
            record.message = event.message
            body = record.order.body
            if isinstance(body, DiscardIncoming) and event.code == CODE_HAS_RUN and body.migration in state.migrations:
                state.migrations[body.migration].copy_ran = True
            done = event.outcome is OrderOutcome.DONE
            if isinstance(body, RescueVm) and done and body.migration in state.migrations:
                state.migrations[body.migration].source_read = True
    if node is not None and current:
        node.last_sign = event.at
        if event.outcome is not OrderOutcome.ACCEPTED:
            node.in_hand = tuple(hand for hand in node.in_hand if hand.order_id != event.order_id)
        vm = state.vms.get(state.names.get(event.uuid, ""))
        if vm is not None:
            vm.fact = state.position
            if event.vm is not None:
                _take_report(state, node, vm, event.vm, event.at)


def _order_dropped(state: State, event: ev.OrderDropped) -> None:
    record = state.orders.get(event.order_id)
    if record is not None:
        record.dropped = event.why


def _order_closed(state: State, event: ev.OrderClosed) -> None:
    record = state.orders.pop(event.order_id, None)
    vm = state.vms.get(event.vm)
    if record is not None and not record.vm:
        fold_leftovers.closed(state, record)
    if record is None or vm is None:
        return
    never = event.outcome in {"NeverBegan", "Dropped", "Refused"}
    if isinstance(record.order.body, StartVm) and record.order.epoch == vm.epoch and never:
        vm.run_void = True
    if isinstance(record.order.body, UndefineVm) and event.outcome in {"Done", "Failed", "Refused"}:
        _undefined(vm, record.node, done=event.outcome == "Done")
    if isinstance(record.order.body, SetIsolation) and event.outcome == "Done":
        vm.isolation_told = record.order.body.isolation
        vm.kept_told = record.kept_version or vm.kept_told
    if isinstance(record.order.body, SetProbes) and event.outcome == "Done":
        vm.probes_told = record.order.body.probes
    if isinstance(record.order.body, PauseVm | UnpauseVm) and event.outcome == "Done":
        vm.pause_asked = None
    if event.outcome in {"Failed", "Refused"} and not isinstance(record.order.body, MigrateVm | RescueVm):
        vm.retry_at = event.at + ORDER_RETRY_S
    elif event.outcome == "Dropped" or isinstance(record.order.body, ResumeVm):
        vm.retry_at = event.at + DROPPED_RETRY_S


def _undefined(vm: VmRecord, node: str, *, done: bool) -> None:
    """A node was told to forget a deleted VM. Where it could not, it is told again after the VM is removed."""
    vm.undefined_on.append(node)
    seen = vm.reports.get(node)
    if done and seen is not None:
        vm.reports[node] = structs.replace(seen, report=structs.replace(seen.report, definition_hash=""))


def _start_decided(state: State, event: ev.StartDecided) -> None:
    vm = state.vms[event.vm]
    if vm.run and not vm.run_void and not vm.start_wanted:
        vm.restart_count += 1
    vm.epoch = vm.epoch_top = event.epoch
    vm.run = event.run
    vm.run_open = True
    vm.run_void = False
    vm.run_reached_running = False
    vm.run_since = event.at
    vm.resumed_at = []
    vm.run_xml_version = vm.xml_version
    vm.owner = event.node
    vm.bindings.append(Binding(event.node, event.boot_id, event.epoch, event.at, "start"))
    vm.last_end = EndReason.NOT_ENDED
    vm.stopping = None
    vm.rejected = {}
    vm.postponed = None
    vm.choice, vm.chosen_at = event.choice, event.at
    state.rotation += 1


def _binding_freed(state: State, event: ev.BindingFreed) -> None:
    vm = state.vms[event.vm]
    freed = (event.node, event.boot_id)
    if event.node in state.nodes:
        state.nodes[event.node].left_at = event.at
    vm.bindings = [b for b in vm.bindings if (b.node, b.boot_id) != freed or b.epoch > event.epoch]
    if event.node == vm.owner and event.end is not EndReason.NOT_ENDED:
        vm.last_end = event.end
    if event.node == vm.owner and event.proof is ProofKind.RELEASED:
        vm.failed_on = event.node if event.end is EndReason.CRASHED else ""


def _owner_changed(state: State, event: ev.OwnerChanged) -> None:
    vm = state.vms[event.vm]
    vm.owner = event.node
    moved = state.migrations.get(vm.migration)
    vm.choice = moved.choice if moved is not None and moved.target == event.node else None
    vm.chosen_at = moved.started if moved is not None else event.at
    vm.epoch = event.epoch
    vm.epoch_top = max(vm.epoch_top, event.epoch)
    vm.last_end = EndReason.NOT_ENDED
    if event.run:
        vm.run = max(vm.run, event.run)
        vm.run_open = vm.run_reached_running = True
    for binding in vm.bindings:
        if binding.node == event.node:
            binding.why = "owner"


def _run_restarted(state: State, event: ev.RunRestarted) -> None:
    vm = state.vms[event.vm]
    vm.run = event.run
    vm.run_since = event.at
    vm.resumed_at = []
    vm.restart_count += 1
    _count_restart(state, vm, event.at)
    seen = vm.reports.get(event.node)
    vm.run_reached_running = seen is not None and seen.report.state is QemuState.RUNNING


def _run_ended(state: State, event: ev.RunEnded) -> None:
    vm = state.vms[event.vm]
    vm.run_open = False
    vm.postponed = None
    went_down = event.outcome is RunOutcome.FAILED and vm.last_end is EndReason.NOT_ENDED
    vm.lost_with = vm.owner if went_down else ""
    vm.owner = ""
    vm.stop_force = False
    vm.pause_asked = None
    restarts = vm.stopping is RunOutcome.STOPPED and vm.start_wanted
    vm.stopping = None
    if vm.run_void:
        return
    vm.ran_under_strategy = vm.ever_ran = True
    vm.outcome = event.outcome
    if not restarts:
        vm.start_wanted = False
    if went_down:
        vm.node_losses = [t for t in vm.node_losses if t > event.at - HOUR_S] + [event.at]
    own_failure = event.outcome is RunOutcome.FAILED and vm.last_end is not EndReason.NOT_ENDED
    if own_failure and not vm.run_reached_running:
        vm.failed_starts += 1
        wait = min(state.config.restart.backoff_max, BACKOFF_STEP_S * vm.failed_starts**2)
        vm.held_until = event.at + wait
        vm.held_why = f"start failed {vm.failed_starts} times in a row"
        vm.start_wanted = vm.start_wanted or not _restarts_by_itself(vm)
    elif own_failure:
        _count_restart(state, vm, event.at)


def _restarts_by_itself(vm: VmRecord) -> bool:
    return vm.spec.run_strategy in {
        RunStrategy.ALWAYS,
        RunStrategy.RERUN_ON_FAILURE,
    }


def _count_restart(state: State, vm: VmRecord, at: float) -> None:
    limits = state.config.restart
    vm.restarts = [t for t in vm.restarts if t > at - limits.window] + [at]
    if len(vm.restarts) > limits.budget:
        vm.held_until = vm.restarts[0] + limits.window
        vm.held_why = f"crashed {len(vm.restarts)} times within the restart window"


def _stop_decided(state: State, event: ev.StopDecided) -> None:
    vm = state.vms[event.vm]
    vm.stopping = event.outcome
    vm.stopping_since = event.at
    vm.stop_force = vm.stop_force or event.force


def _vm_phase_changed(state: State, event: ev.VmPhaseChanged) -> None:
    vm = state.vms[event.vm]
    vm.phase = event.phase
    vm.phase_since = event.at
    vm.phase_reason = event.reason


def _placement_refused(state: State, event: ev.PlacementRefused) -> None:
    state.vms[event.vm].rejected = event.rejected


def _vm_held(state: State, event: ev.VmHeld) -> None:
    vm = state.vms[event.vm]
    vm.held_until = event.until
    vm.held_why = event.reason


def _start_postponed(state: State, event: ev.StartPostponed) -> None:
    vm = state.vms[event.vm]
    since = vm.postponed.since if vm.postponed is not None else event.at
    vm.postponed = Postponed(since, event.until, event.reason)


def _vm_removed(state: State, event: ev.VmRemoved) -> None:
    vm = state.vms.pop(event.vm, None)
    if vm is not None:
        state.names.pop(vm.uuid, None)
        state.epochs_past[vm.uuid] = vm.epoch_top
        fold_leftovers.leave(state, vm)
        incident = state.incidents.get(vm.incident)
        if incident is not None:
            incident.closed, incident.way_out = event.at, ""
        for uuid in list(state.epochs_past)[: len(state.epochs_past) - EPOCHS_PAST_MAX]:
            del state.epochs_past[uuid]


def _second_run_seen(state: State, event: ev.SecondRunSeen) -> None:
    vm = state.vms[event.vm]
    begun = [_began_at(state, binding) for binding in vm.bindings if binding.node in event.nodes]
    vm.second_run = SecondRun(event.nodes, event.at, max(begun, default=event.at))


def _began_at(state: State, binding: Binding) -> float:
    """Return when a QEMU began at the earliest: one that a session's first report shows may be of any age."""
    node = state.nodes.get(binding.node)
    old = node is not None and binding.why == "foreign" and binding.since <= node.session_since
    return 0.0 if old else binding.since


def _second_run_ended(state: State, event: ev.SecondRunEnded) -> None:
    vm = state.vms[event.vm]
    if vm.second_run is not None:
        vm.second_run = structs.replace(vm.second_run, over_at=event.at)


HANDLERS: dict[type[Event], Callable[..., None]] = {
    ev.OrderIssued: _order_issued,
    ev.OrderReported: _order_reported,
    ev.OrderDropped: _order_dropped,
    ev.OrderClosed: _order_closed,
    ev.StartDecided: _start_decided,
    ev.BindingFreed: _binding_freed,
    ev.OwnerChanged: _owner_changed,
    ev.RunEnded: _run_ended,
    ev.RunRestarted: _run_restarted,
    ev.StopDecided: _stop_decided,
    ev.VmPhaseChanged: _vm_phase_changed,
    ev.PlacementRefused: _placement_refused,
    ev.VmHeld: _vm_held,
    ev.StartPostponed: _start_postponed,
    ev.VmRemoved: _vm_removed,
    ev.SecondRunSeen: _second_run_seen,
    ev.SecondRunEnded: _second_run_ended,
}
