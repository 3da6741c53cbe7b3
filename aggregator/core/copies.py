"""Which of the two ends of a migration is the VM, as far as their nodes have said. Pure."""

from __future__ import annotations

from aggregator.core.draft import Draft
from aggregator.core.lookups import ALIVE, binding_to, can_order, current_report, open_orders
from aggregator.core.state import MigrationRecord, NodeRecord, State, VmRecord
from fleet.messages import DestroyVm
from fleet.model import EndReason, QemuState

FINISHED_S_MAX = 40.0  # libvirt's keepalive, after which it resumes or ends a source, takes 25 to 31 s


def copy_is_the_vm(state: State, vm: VmRecord, migration: MigrationRecord) -> bool:
    """Return whether the copy may be, or already is, the VM: the source is freed, and handed over.

    It handed over if it ended as "Migrated", or if the copy runs or has run: an agent resumes a copy only on
    its source's Released, which may have reached the target and not us before the source was lost.
    """
    if binding_to(vm, migration.target) is None:
        return False
    runs = copy_runs(state, vm, migration) or migration.copy_ran
    if binding_to(vm, migration.source) is None:
        return runs or vm.last_end is EndReason.MIGRATED or _source_remembers(state, vm, migration)
    # What binds it to its source may be a later permit, of a migration back that the store has lost.
    source = current_report(state, vm, migration.source)
    return runs and source is not None and source.state is QemuState.GONE and source.epoch > migration.epoch


def copy_runs(state: State, vm: VmRecord, migration: MigrationRecord) -> bool:
    """Return whether the target says now that the copy's CPUs run."""
    report = current_report(state, vm, migration.target)
    return report is not None and report.state is QemuState.RUNNING and report.epoch >= migration.epoch


def _source_remembers(state: State, vm: VmRecord, migration: MigrationRecord) -> bool:
    """Return whether the source's agent holds that it handed over, and the copy is there.

    A reboot frees it before it says so, where the store has lost that it was told already.
    """
    source = current_report(state, vm, migration.source)
    copy = current_report(state, vm, migration.target)
    if source is None or copy is None or copy.state not in (*ALIVE, QemuState.ARRIVED) or copy.epoch != migration.epoch:
        return False
    ended = source.state is QemuState.GONE and source.released and source.end is EndReason.MIGRATED
    return ended and source.epoch == migration.source_epoch


def is_stuck_finished(draft: Draft, vm: VmRecord, source: str) -> bool:
    """Return whether the source has stood finished for so long that libvirt will neither end nor resume it."""
    seen = vm.reports.get(source)
    report = current_report(draft.state, vm, source)
    if seen is None or report is None or report.state is not QemuState.FINISHED:
        return False
    return draft.due(seen.at + FINISHED_S_MAX)


def end_source(draft: Draft, vm: VmRecord, source: NodeRecord) -> None:
    """End a source that is stuck: whether it ran on after the copy was made cannot be told, so the copy is not used."""
    ending = [record for record in open_orders(draft.state, vm) if isinstance(record.order.body, DestroyVm)]
    if can_order(source) and not ending and draft.due(vm.retry_at):
        reason = "its migration stands still at the hand-over"
        draft.order(source, vm, DestroyVm(run=vm.run), epoch=vm.epoch, reason=reason)
