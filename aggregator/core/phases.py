"""What people see of a VM, derived from what is known. Pure."""

from __future__ import annotations

from aggregator.core.draft import Draft
from aggregator.core.events import MigrationPhase, NodeState, RunOutcome, VmPhase, VmPhaseChanged
from aggregator.core.lookups import current_report, wants_run
from aggregator.core.recovery import start_reason
from aggregator.core.state import State, VmRecord
from fleet.model import QemuState

_OUTCOMES = {
    RunOutcome.SUCCEEDED: VmPhase.SUCCEEDED,
    RunOutcome.FAILED: VmPhase.FAILED,
    RunOutcome.STOPPED: VmPhase.STOPPED,
    RunOutcome.EVICTED: VmPhase.STOPPED,
}
_TRUSTED = (NodeState.UP, NodeState.SUSPECT, NodeState.AGENT_LOST)


def decide_phases(draft: Draft) -> None:
    """Say so when what people see of a VM has changed."""
    for vm in draft.state.vms.values():
        phase, reason = phase_of(draft.state, draft.now, vm)
        if phase is not vm.phase:
            draft.add(VmPhaseChanged(at=draft.now, vm=vm.name, phase=phase, reason=reason, cause=vm.fact))


def phase_of(state: State, now: float, vm: VmRecord) -> tuple[VmPhase, str]:
    """Return (phase, why) of a VM."""
    if vm.run_open:
        return _phase_of_run(state, vm)
    if vm.deleting:
        return VmPhase.STOPPING, "it is being deleted"
    if wants_run(vm):
        if vm.bindings:
            nodes = ", ".join(dict.fromkeys(b.node for b in vm.bindings))
            return VmPhase.UNKNOWN, f"it may run on {nodes}"
        if vm.held_until > now:
            return VmPhase.CRASH_LOOP_BACK_OFF, vm.held_why
        if vm.outcome in {RunOutcome.FAILED, RunOutcome.EVICTED}:
            return VmPhase.RECOVERING, start_reason(vm)
        return VmPhase.PENDING, start_reason(vm)
    if vm.outcome is None:
        return VmPhase.STOPPED, f"its run strategy is {vm.spec.run_strategy}"
    return _OUTCOMES[vm.outcome], f"its last run {vm.outcome.lower()}"


def _phase_of_run(state: State, vm: VmRecord) -> tuple[VmPhase, str]:
    node = state.nodes.get(vm.owner)
    if vm.stopping is not None:
        return VmPhase.STOPPING, "its run is being ended"
    if node is None or node.state not in _TRUSTED:
        where = f"{node.name} is {node.state}" if node is not None else "its node is gone"
        return VmPhase.UNKNOWN, where
    migration = state.migrations.get(vm.migration)
    if migration is not None and migration.phase is not MigrationPhase.QUEUED:
        return VmPhase.MIGRATING, f"{migration.name} to {migration.target}"
    seen = vm.reports.get(vm.owner)
    if not vm.run_reached_running:
        return VmPhase.STARTING, f"on {vm.owner}"
    if seen is None:
        return VmPhase.UNKNOWN, f"{vm.owner} does not report it"
    report = current_report(state, vm, vm.owner) or seen.report
    if report.state is QemuState.PAUSED:
        why = "an I/O error stopped it" if report.paused_on_io_error else report.reason
        return VmPhase.PAUSED, why
    if report.state is QemuState.UNKNOWN:
        return VmPhase.UNKNOWN, report.reason or "its node cannot tell"
    return VmPhase.RUNNING, f"on {vm.owner}"
