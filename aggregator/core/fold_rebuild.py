"""How a store that is rebuilt from what agents know fills. Assigns to the state; called by fold only."""

from __future__ import annotations

from collections.abc import Callable

from aggregator.core import events as ev
from aggregator.core import fold_store
from aggregator.core.arming import scope_key
from aggregator.core.events import Event
from aggregator.core.rebuild import WHY
from aggregator.core.state import Credentials, Disarming, KeptRecord, NodeRecord, State, VmRecord
from fleet.model import RunStrategy

WHO = "the rebuild"
_STARTED_BY_A_PERSON = (RunStrategy.MANUAL, RunStrategy.HALTED)


def _rebuild_begun(state: State, event: ev.RebuildBegun) -> None:
    state.rebuilding = True
    fold_store.fall_behind(state, 0, WHY)
    for name in event.members:
        state.nodes[name] = NodeRecord(name, created=event.at, approved=True, expected=True)


def _node_readmitted(state: State, event: ev.NodeReadmitted) -> None:
    node = state.nodes[event.name]
    node.token_sha256 = event.relay_sha256
    node.credentials = Credentials(enrolment=event.enrolment)
    node.version = node.fact = state.position


def _vms_kept_told(state: State, event: ev.VmsKeptTold) -> None:
    node = state.nodes.get(event.node)
    if not state.rebuilding or node is None or node.session != event.session:
        return
    for vm in event.vms:
        known = state.kept.get(vm.uuid)
        if known is None or known.node == node.name or (vm.epoch, vm.run) > (known.vm.epoch, known.vm.run):
            state.kept[vm.uuid] = KeptRecord(node.name, vm)
    for name in event.members:
        if name not in state.nodes:  # the person who began this did not name it
            state.nodes[name] = NodeRecord(name, created=event.at, approved=True, expected=True)
    node.kept_told = node.kept_told or not event.more
    node.fact = state.position


def _vm_rebuilt(state: State, event: ev.VmRebuilt) -> None:
    vm = state.vms[event.vm] = VmRecord(event.vm, event.uuid, event.spec, created=event.at, phase_since=event.at)
    state.names[event.uuid] = event.vm
    for reports in state.foreign.values():
        reports.pop(event.uuid, None)
    vm.labels, vm.annotations, vm.disks = event.labels, event.annotations, event.disks
    vm.cpu_m, vm.memory_bytes = event.cpu_m, event.memory_bytes
    vm.epoch_top, vm.run = event.epoch, event.run
    vm.xml_version = vm.run_xml_version = 1
    vm.ever_ran = vm.ran_under_strategy = True
    vm.version = vm.kept_told = vm.fact = state.position
    if not event.runs and event.spec.run_strategy not in _STARTED_BY_A_PERSON:
        held = Disarming(node="", vm=event.vm, since=event.at, until=0.0, who=WHO)
        state.disarmed = {**state.disarmed, scope_key(vm=event.vm): held}


def _fleet_rebuilt(state: State, _event: ev.FleetRebuilt) -> None:
    state.rebuilding = False
    state.kept = {}
    for node in state.nodes.values():
        node.seen = node.complete = False


HANDLERS: dict[type[Event], Callable[..., None]] = {
    ev.RebuildBegun: _rebuild_begun,
    ev.NodeReadmitted: _node_readmitted,
    ev.VmsKeptTold: _vms_kept_told,
    ev.VmRebuilt: _vm_rebuilt,
    ev.FleetRebuilt: _fleet_rebuilt,
}
