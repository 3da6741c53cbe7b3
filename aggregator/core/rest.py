"""Who is at rest: nodes and VMs of which no stage of decide would decide anything, whatever the time is.

Most of a fleet rests most of the time, so decide looks at the others only. A VM at rest runs where it should
and is reported so, or is off and should be; a node at rest is Up and has nothing in hand: only its beats
and the age of its fence devices' answers are still watched, by two comparisons (nodes.py, evidence.py).
Whoever adds to a stage something that concerns what rests says so here. A kind of event that is not named
here makes everything be looked at again. Pure.
"""

from __future__ import annotations

from math import inf

from aggregator.core import events as ev
from aggregator.core.derived import Derived, Ground
from aggregator.core.events import Event, NodeState, VmPhase
from aggregator.core.fencing_device import POWER_OFF, places
from aggregator.core.health import probes_of
from aggregator.core.isolation import isolation_of
from aggregator.core.lookups import ALIVE, wants_run
from aggregator.core.phases import phase_of
from aggregator.core.state import NodeRecord, State, VmRecord
from fleet.model import QemuState, RunStrategy

_CHANGES_NO_REST = frozenset(
    (
        ev.ArrivalChecked,
        ev.BeatHeard,
        ev.BrakeChanged,
        ev.EvidenceSought,
        ev.GuestPictured,
        ev.IncidentNoted,
        ev.MigrationPolicyApplied,
        ev.MigrationPolicyDeleted,
        ev.MigrationProgressed,
        ev.OrderDropped,
        ev.ProbeAnswered,
        ev.ReferenceAnswered,
        ev.ReferenceAsked,
        ev.RelaySought,
        ev.SelfDoubted,
        ev.StorageAsked,
        ev.StorageOutageChanged,
        ev.TurnJudged,
    )
)
_CHANGES_ITS_SUBJECT = frozenset(
    (
        ev.BindingFreed,
        ev.DeviceDistrusted,
        ev.DrainCancelled,
        ev.DrainChanged,
        ev.HostStopBegan,
        ev.HostStopEnded,
        ev.DrainPaused,
        ev.DrainRequested,
        ev.FenceAnswered,
        ev.FenceAsked,
        ev.FenceFailed,
        ev.FenceRequested,
        ev.IdentityRefused,
        ev.IncidentOpened,
        ev.MigrationChanged,
        ev.MigrationQueued,
        ev.MigrationRequested,
        ev.NodeFlapping,
        ev.NodeForgiven,
        ev.NodeProven,
        ev.NodeStateChanged,
        ev.OffConfirmed,
        ev.OrderClosed,
        ev.OrderIssued,
        ev.OrderReported,
        ev.OwnerChanged,
        ev.PlacementRefused,
        ev.RescueDue,
        ev.RunEnded,
        ev.RunRestarted,
        ev.SecondRunEnded,
        ev.SecondRunSeen,
        ev.SessionDoubted,
        ev.SessionEnded,
        ev.StartDecided,
        ev.StartPostponed,
        ev.StopDecided,
        ev.StorageBack,
        ev.StorageLost,
        ev.VmCommanded,
        ev.VmDeleteRequested,
        ev.VmEvictionChanged,
        ev.VmGoneConfirmed,
        ev.VmHeld,
        ev.VmPhaseChanged,
        ev.VmsReported,
    )
)
"""Kinds that change nothing but the node and the VM they speak of, as far as rest is concerned."""


def note(state: State, event: Event, subject: tuple[str, str]) -> None:
    """Note what an event that was folded may have changed. subject: (node, vm), as history names them."""
    kind = type(event)
    if kind in _CHANGES_NO_REST:
        return
    derived = state.derived
    node, vm = subject
    if kind not in _CHANGES_ITS_SUBJECT or not (node or vm):
        derived.note_all()
        return
    if node:
        derived.note_node(node)
    if vm:
        derived.note_vm(vm)
    if isinstance(event, ev.VmsReported):
        _note_report(state, derived, event)


def _note_report(state: State, derived: Derived, event: ev.VmsReported) -> None:
    if event.full:
        derived.note_all()  # what it no longer names is forgotten, too
        return
    for uuid in (*[said.uuid for said in event.vms], *[known.uuid for known in event.definitions]):
        derived.note_vm(state.names.get(uuid, ""))


def is_node_at_rest(node: NodeRecord) -> bool:
    """Return whether only its beats and the age of its devices' answers need watching."""
    return (
        node.state is NodeState.UP
        and node.connected
        and not node.via
        and node.session is not None
        and node.suspicion is None
        and node.attempt is None
        and node.inert is None
        and not node.questions
        and not node.off_confirmed_at
        and not node.storage_lost
        and not node.storage_marked
        and not node.incident
        and node.impostor is None
        and not any(ready.off_at for ready in node.readiness)
        and node.host_stopping is (node.facts is not None and node.facts.stopping_s > 0)
    )


def is_vm_at_rest(state: State, vm: VmRecord) -> bool:
    """Return whether nothing is to be decided about a VM, whatever the time is and whatever happens to others."""
    if vm.deleting or vm.migration or vm.incident or vm.eviction or vm.second_run is not None:
        return False
    if not vm.run_open:
        return _is_off(state, vm)
    node, seen = state.nodes.get(vm.owner), vm.reports.get(vm.owner)
    if node is None or seen is None or len(vm.bindings) != 1:
        return False
    binding = vm.bindings[0]
    return (
        vm.phase is VmPhase.RUNNING
        and vm.run_reached_running
        and vm.stopping is None
        and vm.pause_asked is None
        and vm.isolation_told == isolation_of(state, vm)
        and vm.kept_told == vm.version
        and vm.probes_told == probes_of(vm)
        and (vm.spec.run_strategy is not RunStrategy.HALTED or vm.start_wanted)
        and binding.node == vm.owner
        and binding.boot_id == node.boot_id
        and binding.since >= vm.gone_confirmed_at
        and node.state is NodeState.UP
        and node.connected
        and node.session is not None
        and node.inert is None
        and seen.session == node.session
        and _reports_alive(vm) == 1
        and seen.report.state is QemuState.RUNNING
        and seen.report.run <= vm.run
        and not seen.report.guest.failed
    )


def _is_off(state: State, vm: VmRecord) -> bool:
    return (
        not vm.owner
        and not vm.bindings
        and not wants_run(vm)
        and not _reports_alive(vm)
        and vm.phase is phase_of(state, state.now, vm)[0]  # of such a VM it hangs on nothing else
    )


def _reports_alive(vm: VmRecord) -> int:
    """Return how many nodes said last that there is a QEMU of it, in whatever session."""
    return sum([1 for seen in vm.reports.values() if seen.report.state in ALIVE])


def refresh(state: State) -> Derived:
    """Return what follows from the state as it is now."""
    derived = state.derived
    if not derived.stale and derived.stale_nodes and not _mend_nodes(state, derived):
        derived.stale = True
    if not derived.stale and derived.stale_vms and not _mend_vms(state, derived):
        derived.stale = True
    if derived.stale:
        _make_anew(state, derived)
    return derived


def _make_anew(state: State, derived: Derived) -> None:
    derived.note_all()
    derived.nodes, derived.vms = dict(state.nodes), dict(state.vms)
    derived.grounds = {name: _ground(node) for name, node in state.nodes.items()}
    derived.checked_at = {name: _checked_at(node) for name, node in state.nodes.items() if is_node_at_rest(node)}
    _list_nodes(state, derived)
    derived.active = {name: None for name, vm in state.vms.items() if not is_vm_at_rest(state, vm)}
    derived.active_vms = [state.vms[name] for name in derived.active]
    derived.stale = False


def _mend_nodes(state: State, derived: Derived) -> bool:
    """Work out anew what hangs on the nodes that were noted; False if the fleet itself is another."""
    for name in derived.stale_nodes:
        node = state.nodes.get(name)
        if node is None or derived.nodes.get(name) is not node:
            return False
        ground = _ground(node)
        if ground != derived.grounds[name]:
            derived.grounds[name] = ground
            derived.stale_vms.update((vm.name, None) for vm in state.vms.values() if vm.owner == name)
        if is_node_at_rest(node):
            derived.checked_at[name] = _checked_at(node)
        else:
            derived.checked_at.pop(name, None)
    derived.stale_nodes.clear()
    _list_nodes(state, derived)
    return True


def _list_nodes(state: State, derived: Derived) -> None:
    nodes, resting = state.nodes.values(), derived.checked_at
    derived.active_nodes = [node for node in nodes if node.name not in resting]
    derived.resting_nodes = [node for node in nodes if node.name in resting]
    derived.failed = [node for node in nodes if node.failures or node.flaps]
    derived.fallen = [node for node in nodes if node.state is not NodeState.UP or node.silent_at or node.convicted_at]
    derived.checked_first_at = min(resting.values(), default=inf)


def _mend_vms(state: State, derived: Derived) -> bool:
    changed = False
    for name in derived.stale_vms:
        vm = state.vms.get(name)
        if derived.vms.get(name) is not vm:
            return False
        if vm is None:
            continue  # a report of a VM that nobody has applied
        active = not is_vm_at_rest(state, vm)
        if active is not (name in derived.active):
            changed = True
            if active:
                derived.active[name] = None
            else:
                del derived.active[name]
    derived.stale_vms.clear()
    if changed:
        derived.active_vms = [vm for name, vm in state.vms.items() if name in derived.active]
    return True


def _ground(node: NodeRecord) -> Ground:
    return node.state, node.connected, node.session, node.boot_id, node.inert is not None


def _checked_at(node: NodeRecord) -> float:
    """Return when the fence device was asked that was not asked for longest; inf without any, 0 if one never was."""
    ages = [
        node.readiness[place].checked_at if place < len(node.readiness) else 0.0
        for place, (rung, _device) in enumerate(places(node.spec))
        if node.spec.fencing[rung].proof == POWER_OFF
    ]
    return min(ages, default=inf)
