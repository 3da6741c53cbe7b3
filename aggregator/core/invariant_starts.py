"""What must be so when a VM is given a new QEMU: a start, or the copy of a migration. Pure. See invariants.py."""

from __future__ import annotations

from collections.abc import Sequence

from aggregator.core import events as ev
from aggregator.core.disk_users import users_of
from aggregator.core.events import MigrationPhase, Transition
from aggregator.core.lookups import pinned_to
from aggregator.core.seating import seat_table, vm_seat
from aggregator.core.seats import candidate
from aggregator.core.state import State
from aggregator.placement.place import reasons

Decided = Sequence[Transition]


def binds_nobody_else(state: State, event: ev.StartDecided, _decided: Decided) -> str:
    """S2: whoever starts a VM knows of nobody else who may run it."""
    vm = state.vms.get(event.vm)
    if vm is None:
        return f"{event.vm} is started, which is no VM"
    if vm.bindings or vm.run_open:
        bound = ", ".join(f"{b.node} ({b.why})" for b in vm.bindings) or "an open run"
        return f"{event.vm} is started on {event.node} while it is bound to {bound}"
    return ""


def copied_by_its_owner(state: State, event: ev.MigrationChanged, _decided: Decided) -> str:
    """S2: a copy is asked for only of the run that its source owns."""
    vm, migration = state.vms.get(event.vm), state.migrations.get(event.migration)
    if event.phase is not MigrationPhase.PREPARING or vm is None or migration is None:
        return ""
    owned = vm.run_open and vm.owner == migration.source and any(b.node == vm.owner for b in vm.bindings)
    return "" if owned else f"{event.vm} is copied from {migration.source}, which does not own its run"


def epoch_rises(state: State, event: ev.StartDecided, _decided: Decided) -> str:
    """S3: a new owner, a new epoch; a new run, a new number."""
    vm = state.vms.get(event.vm)
    if vm is None or (event.epoch > vm.epoch_top and event.run > vm.run):
        return ""
    return f"{event.vm} is started at epoch {event.epoch}, run {event.run}; known are {vm.epoch_top} and {vm.run}"


def copy_epoch_rises(state: State, event: ev.MigrationChanged, _decided: Decided) -> str:
    """S3, for the copy of a migration."""
    vm = state.vms.get(event.vm)
    if event.phase is not MigrationPhase.PREPARING or vm is None or event.epoch > vm.epoch_top:
        return ""
    return f"{event.vm} is copied to {event.target} at epoch {event.epoch}; known is {vm.epoch_top}"


def fits(state: State, event: ev.StartDecided, decided: Decided) -> str:
    """S10: the hard rules, with every VM counted where it is bound, and those of the same look started before it."""
    table = seat_table(state)
    vm = state.vms.get(event.vm)
    if vm is None or event.node not in table.columns.slot_of:
        return f"{event.vm} is started on {event.node}, which is not known"
    seated: list[tuple[str, str]] = []
    for other in decided:
        if other is event:
            break
        before = state.vms.get(other.vm) if isinstance(other, ev.StartDecided) else None
        if before is None or not isinstance(other, ev.StartDecided) or other.node not in table.columns.slot_of:
            continue
        if other.node not in table.seats_of(before.name):
            table.seat(vm_seat(before), other.node)
            seated.append((before.name, other.node))
    why = reasons(candidate(vm, ()), table, event.node)
    for name, node in seated:
        table.unseat(name, node)
    return f"{event.vm} is started on {event.node} against its rules: {_words(why)}" if why else ""


def copy_fits(state: State, event: ev.MigrationChanged, _decided: Decided) -> str:
    """S10, for the target of a migration; the source goes on counting for everybody else."""
    vm = state.vms.get(event.vm)
    if event.phase is not MigrationPhase.PREPARING or vm is None:
        return ""
    table = seat_table(state)
    if event.target not in table.columns.slot_of:
        return f"{event.vm} is copied to {event.target}, which is not known"
    why = reasons(candidate(vm, (), live=True), table, event.target)
    return f"{event.vm} is copied to {event.target} against its rules: {_words(why)}" if why else ""


def disks_are_free(state: State, event: ev.StartDecided, decided: Decided) -> str:
    """S15: nobody else that may run, or is started in the same look, uses a disk of it where one of them writes it."""
    vm = state.vms.get(event.vm)
    if vm is None or not (vm.disks or vm.definition):
        return ""
    beginning = {other.vm for other in decided if isinstance(other, ev.StartDecided)}
    others = (o for o in state.vms.values() if o.name != event.vm and (o.bindings or o.name in beginning))
    clash = next(users_of(others).clashes(vm), None)
    return f"{event.vm} is started though of {clash[0].identity} {clash[1]}" if clash else ""


def disks_are_there(state: State, event: ev.StartDecided, _decided: Decided) -> str:
    """S16: a VM with a disk that is one node's own is started there only."""
    vm = state.vms.get(event.vm)
    home = pinned_to(vm) if vm is not None else ""
    return (
        f"{event.vm} is started on {event.node}, but a disk of it lies on {home}"
        if home not in ("", event.node)
        else ""
    )


def copy_disks_are_there(state: State, event: ev.MigrationChanged, _decided: Decided) -> str:
    """S16, for the copy of a migration.

    What else keeps a cold VM at home does not: TPM state travels in the stream, and of what is only read (an ISO in
    its drive) libvirt says before anything moves whether the other host has it.
    """
    vm = state.vms.get(event.vm)
    if vm is None or vm.definition is None or event.phase is not MigrationPhase.PREPARING:
        return ""
    local = [disk.target for disk in vm.definition.disks if disk.writable and not disk.shared]
    return f"{event.vm} is copied to {event.target}, but disk {local[0]} of it lies on {vm.home}" if local else ""


def _words(why: dict[str, str]) -> str:
    return "; ".join(f"{rule}: {text}" for rule, text in sorted(why.items()))
