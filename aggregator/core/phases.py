"""What people see of a VM, derived from what is known. Pure.

A phase is a rendering, not a memory: nothing is decided by it, and it is worked out anew from runs,
bindings and reports at each turn. So a step that the table below does not have does not stop the
aggregator, as a node's does; simulator and tests take it for a violation.
"""

from __future__ import annotations

from aggregator.core.arming import why_vm_held
from aggregator.core.draft import Draft
from aggregator.core.events import MigrationPhase, NodeState, RunOutcome, VmPhase, VmPhaseChanged
from aggregator.core.lookups import current_report, wants_run
from aggregator.core.recovery import start_reason
from aggregator.core.state import State, VmRecord
from aggregator.core.tolerating import tolerating_words
from fleet.model import EndReason, QemuState

_OUTCOMES = {
    RunOutcome.SUCCEEDED: VmPhase.SUCCEEDED,
    RunOutcome.FAILED: VmPhase.FAILED,
    RunOutcome.STOPPED: VmPhase.STOPPED,
    RunOutcome.EVICTED: VmPhase.STOPPED,
}
_TRUSTED = (NodeState.UP, NodeState.SUSPECT, NodeState.AGENT_LOST)

_WAITING = (VmPhase.PENDING, VmPhase.RECOVERING, VmPhase.CRASH_LOOP_BACK_OFF)
_ENDED = (VmPhase.STOPPED, VmPhase.SUCCEEDED, VmPhase.FAILED)
_FOUND = (VmPhase.RUNNING, VmPhase.PAUSED)  # a run that a store which was rolled back had forgotten
ANYTIME = (VmPhase.UNKNOWN, VmPhase.STOPPING)
"""Phases that every other one may turn into: nobody can tell any more; a person stops or deletes it."""
STEPS: dict[VmPhase, tuple[VmPhase, ...]] = {
    VmPhase.PENDING: (VmPhase.STARTING, *_WAITING, *_ENDED, *_FOUND),
    VmPhase.STARTING: (VmPhase.RUNNING, VmPhase.PAUSED, VmPhase.MIGRATING, *_WAITING, *_ENDED),
    VmPhase.RUNNING: (VmPhase.PAUSED, VmPhase.MIGRATING, VmPhase.STARTING, *_WAITING, *_ENDED),
    VmPhase.PAUSED: (VmPhase.RUNNING, VmPhase.MIGRATING, VmPhase.STARTING, *_WAITING, *_ENDED),
    VmPhase.MIGRATING: (VmPhase.RUNNING, VmPhase.PAUSED, VmPhase.STARTING, *_WAITING, *_ENDED),
    VmPhase.STOPPING: (VmPhase.STARTING, *_WAITING, *_ENDED),
    VmPhase.STOPPED: (VmPhase.STARTING, *_WAITING, *_FOUND),
    VmPhase.SUCCEEDED: (VmPhase.STARTING, *_WAITING, *_FOUND),
    VmPhase.FAILED: (VmPhase.STARTING, *_WAITING, *_FOUND),
    VmPhase.RECOVERING: (VmPhase.STARTING, *_WAITING, *_ENDED, *_FOUND),
    VmPhase.CRASH_LOOP_BACK_OFF: (VmPhase.STARTING, *_WAITING, *_ENDED, *_FOUND),
    VmPhase.UNKNOWN: (
        VmPhase.STARTING,
        VmPhase.RUNNING,
        VmPhase.PAUSED,
        VmPhase.MIGRATING,
        *_WAITING,
        *_ENDED,
    ),
}
"""The table. One turn may do two things, so Running may become Starting: it failed and is started again."""


def may_follow(before: VmPhase, after: VmPhase) -> bool:
    """Return whether people may see the one phase after the other."""
    return after in ANYTIME or after in STEPS[before]


def decide_phases(draft: Draft) -> None:
    """Say so when what people see of a VM has changed."""
    for vm in draft.state.derived.active_vms:
        phase, reason = phase_of(draft.state, draft.now, vm)
        if phase is not vm.phase or (phase in _WAITING and reason != vm.phase_reason):
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
        if vm.held_until > now and not _went_down_with_its_node(vm):
            return VmPhase.CRASH_LOOP_BACK_OFF, vm.held_why
        held = why_waiting(state, now, vm)
        if vm.outcome in {RunOutcome.FAILED, RunOutcome.EVICTED}:
            return VmPhase.RECOVERING, held or start_reason(vm)
        return VmPhase.PENDING, held or start_reason(vm)
    if vm.outcome is None:
        return VmPhase.STOPPED, f"its run strategy is {vm.spec.run_strategy}"
    return _OUTCOMES[vm.outcome], f"its last run {vm.outcome.lower()}"


def why_waiting(state: State, now: float, vm: VmRecord) -> str:
    """Return the hold in force that keeps a VM from being started; empty if there is none."""
    if vm.held_until > now:
        return vm.held_why
    if vm.start_wanted:
        return ""
    if held := why_vm_held(state, vm):
        return held
    if tolerating := tolerating_words(state, now, vm):
        return tolerating
    return vm.postponed.words if vm.postponed is not None and vm.postponed.until > now else ""


def _went_down_with_its_node(vm: VmRecord) -> bool:
    return vm.outcome is RunOutcome.FAILED and vm.last_end is EndReason.NOT_ENDED


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
    others = ", ".join(dict.fromkeys(b.node for b in vm.bindings if b.node != vm.owner))
    if others and not any(b.node == vm.owner for b in vm.bindings):
        return VmPhase.UNKNOWN, f"its run on {vm.owner} has ended, and it may run on {others}"
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
