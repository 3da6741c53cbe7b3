"""dependsOn: which VMs of a batch wait for others (safety.md, stuck things).

Orders the starts after a loss and of new VMs, never the restart of a single VM that crashed, nor a start that a person
asked for. What is absent, deleted, held or not to run counts as met. After its timeout the VM starts all the
same. GuestAgent is met when libvirt sees the guest agent's channel opened, Ready when the readiness probe says so; a
VM without one is ready when it runs. Pure.
"""

from __future__ import annotations

from aggregator.core.arming import why_vm_held
from aggregator.core.draft import Draft
from aggregator.core.events import NodeState, RunOutcome, StartPostponed
from aggregator.core.lookups import CONVICTED, last_report, wants_run
from aggregator.core.moments import rfc3339
from aggregator.core.objects import Dependency
from aggregator.core.state import State, VmRecord
from fleet.model import EndReason, QemuState
from fleet.units import parse_duration_s


def is_postponed(draft: Draft, vm: VmRecord) -> bool:
    """Return whether the VM waits for others now; says so when it begins, or what it waits for changes."""
    if not vm.spec.depends_on or vm.start_wanted or not _is_of_a_batch(vm):
        return False
    since = vm.postponed.since if vm.postponed is not None else draft.now
    waits, until = [], draft.now
    for need in vm.spec.depends_on:
        ends = since + parse_duration_s(need.timeout)
        if _is_unmet(draft.state, draft.now, need) and not draft.due(ends):
            waits.append(f"waits for {need.vm} to be {_in_words(need)}, until {rfc3339(ends)}")
            until = max(until, ends)
    words = "; ".join(waits)
    if words and (vm.postponed is None or vm.postponed.words != words):
        draft.add(StartPostponed(at=draft.now, vm=vm.name, until=until, reason=words, cause=vm.fact))
    return bool(words)


def dependency_notes(state: State, now: float, vm: VmRecord) -> list[str]:
    """Return what a start of the VM goes past: dependencies that do not run, and why they are not waited for."""
    if vm.start_wanted or not _is_of_a_batch(vm):
        return []
    notes = []
    for need in vm.spec.depends_on:
        if why := _why_not_awaited(state, now, need):
            notes.append(why)
        elif not _is_met(state, need):
            notes.append(f"{need.vm} was not {_in_words(need)} within {need.timeout}")
    return notes


def _in_words(need: Dependency) -> str:
    return "with its guest agent connected" if need.condition == "GuestAgent" else need.condition


def _is_of_a_batch(vm: VmRecord) -> bool:
    """Return whether its start is one of many: it is new, or it went down with its node or was moved off it."""
    if vm.outcome is RunOutcome.FAILED:
        return vm.last_end is EndReason.NOT_ENDED
    return vm.outcome is None or vm.outcome is RunOutcome.EVICTED


def _is_unmet(state: State, now: float, need: Dependency) -> bool:
    return not _why_not_awaited(state, now, need) and not _is_met(state, need)


def _why_not_awaited(state: State, now: float, need: Dependency) -> str:
    """Return why a dependency counts as met although it does not run; empty if it is waited for, or runs."""
    other = state.vms.get(need.vm)
    if other is None:
        return f"{need.vm} is not known, which counts as met"
    if other.deleting:
        return f"{need.vm} is being deleted, which counts as met"
    if other.run_open:
        return f"{need.vm} is being stopped, which counts as met" if other.stopping is RunOutcome.STOPPED else ""
    if not wants_run(other):
        return f"{need.vm} is not to run, which counts as met"
    if other.start_wanted:
        return ""
    held = other.held_why if other.held_until > now else why_vm_held(state, other)
    return f"{need.vm} is held ({held}), which counts as met" if held else ""


def _is_met(state: State, need: Dependency) -> bool:
    other = state.vms[need.vm]
    node, seen = state.nodes.get(other.owner), last_report(other, other.owner)
    if not other.run_open or not other.run_reached_running or node is None or seen is None:
        return False
    if node.state in (*CONVICTED, NodeState.UNSEEN) or seen.report.state is not QemuState.RUNNING:
        return False
    if need.condition == "GuestAgent":
        return seen.report.guest.agent == "Connected"
    return need.condition != "Ready" or other.spec.readiness_probe is None or seen.report.guest.ready == "True"
