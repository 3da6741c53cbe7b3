"""Which of the two ends of a migration is the VM, as far as their nodes have said. Pure."""

from __future__ import annotations

from aggregator.core.lookups import ALIVE, binding_to, current_report
from aggregator.core.state import MigrationRecord, State, VmRecord
from fleet.model import EndReason, QemuState


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
