"""How what people ask of VMs changes the state: apply, delete, start and stop, a vow that nothing runs.

Assigns to the state; called by fold only. Checked at the edge; whether and when it is done is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable

from aggregator.core import events as ev
from aggregator.core import fold_leftovers
from aggregator.core.events import Event, RunOutcome, VmVerb
from aggregator.core.state import State, VmRecord


def _vm_applied(state: State, event: ev.VmApplied) -> None:
    vm = state.vms.get(event.name)
    if vm is None:
        vm = state.vms[event.name] = VmRecord(
            event.name, event.uuid, event.spec, created=event.at, phase_since=event.at
        )
        state.names[event.uuid] = event.name
        vm.epoch_top = state.epochs_past.pop(event.uuid, 0)
        fold_leftovers.forget(state, uuid=event.uuid)
        vm.xml_version = 1
        for reports in state.foreign.values():
            reports.pop(event.uuid, None)
    elif event.spec.domain_xml != vm.spec.domain_xml:
        vm.xml_version += 1
        vm.definition = None
    if event.spec.run_strategy is not vm.spec.run_strategy:
        vm.ran_under_strategy = vm.run_open
        vm.outcome = None
        vm.start_wanted = False
        vm.postponed = None
    vm.spec = event.spec
    vm.labels = event.labels
    vm.annotations = event.annotations
    vm.disks = event.disks or vm.disks
    vm.cpu_m = event.cpu_m
    vm.memory_bytes = event.memory_bytes
    vm.version = vm.fact = state.position


def _vm_delete_requested(state: State, event: ev.VmDeleteRequested) -> None:
    vm = state.vms[event.name]
    vm.deleting = True
    vm.start_wanted = False
    if vm.run_open:
        vm.stopping = RunOutcome.STOPPED
    vm.fact = state.position


def _vm_commanded(state: State, event: ev.VmCommanded) -> None:
    vm = state.vms[event.name]
    vm.fact = state.position
    if event.verb is VmVerb.START:
        vm.start_wanted = True
        vm.held_until = vm.retry_at = 0.0
        vm.held_why = ""
        vm.failed_starts = 0
        vm.restarts, vm.node_losses = [], []
        vm.postponed = None
    elif event.verb in {VmVerb.STOP, VmVerb.RESTART}:
        vm.stopping = RunOutcome.STOPPED if vm.run_open else None
        vm.stop_force = event.force
        vm.start_wanted = event.verb is VmVerb.RESTART
        vm.retry_at = 0.0
        vm.second_run = None  # whoever ends this run has heard of it
    else:
        vm.pause_asked = event.verb


def _vm_gone_confirmed(state: State, event: ev.VmGoneConfirmed) -> None:
    vm = state.vms[event.name]
    vm.gone_confirmed_at = event.at
    vm.fact = state.position


HANDLERS: dict[type[Event], Callable[..., None]] = {
    ev.VmApplied: _vm_applied,
    ev.VmDeleteRequested: _vm_delete_requested,
    ev.VmCommanded: _vm_commanded,
    ev.VmGoneConfirmed: _vm_gone_confirmed,
}
