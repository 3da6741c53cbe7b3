"""The table of seats, kept current: what events may have changed is looked at again, not the whole fleet.

A VM counts on every node it is bound to: both ends of a migration and every start in flight hold room until
they are freed (S10). Pure.
"""

from __future__ import annotations

from msgspec import Struct

from aggregator.core.lookups import takes_vms
from aggregator.core.state import NodeRecord, State, VmRecord
from aggregator.placement.needs import NO_NEEDS, needs_of_text
from aggregator.placement.place import build_table
from aggregator.placement.table import Table
from aggregator.placement.types import PlacementNode, PlacementVm
from fleet.model import Needs


class Seated(Struct, frozen=True):
    """A VM as it was seated, and where."""

    vm: PlacementVm
    nodes: tuple[str, ...]


class Seating(Struct, eq=False):
    """The table and who sits in it."""

    table: Table
    seated: dict[str, Seated]


def node_seat(state: State, node: NodeRecord) -> PlacementNode:
    """Return a node as the rules see it, overcommit included."""
    facts = node.facts
    ratio = state.config.overcommit
    return PlacementNode(
        name=node.name,
        labels=node.labels,
        taints=node.spec.taints + node.taints,
        unschedulable=node.spec.unschedulable,
        ready=takes_vms(node),
        cpu_m=int(facts.cpu_m * ratio.cpu) if facts is not None else 0,
        memory_bytes=int(facts.memory_bytes * ratio.memory) if facts is not None else 0,
        offers=facts.offers if facts is not None else None,
    )


def vm_seat(vm: VmRecord) -> PlacementVm:
    """Return a VM as others' rules see it where it sits."""
    return PlacementVm(
        name=vm.name,
        labels=vm.labels,
        spec=vm.spec,
        cpu_m=vm.cpu_m,
        memory_bytes=vm.memory_bytes,
        needs=written_needs(vm),
    )


def written_needs(vm: VmRecord) -> Needs:
    """Return what the VM's domain needs, as its owner's agent read it, else as it was written."""
    if vm.definition is not None:
        return vm.definition.needs
    return needs_of_text(vm.spec.domain_xml) if vm.spec.domain_xml else NO_NEEDS


def bound_nodes(vm: VmRecord) -> tuple[str, ...]:
    return tuple(dict.fromkeys(binding.node for binding in vm.bindings))


def seat_table(state: State) -> Table:
    """Return the table of the whole fleet, for all who ask. Whoever changes it gives it back as it was."""
    derived = state.derived
    seating = derived.seating
    if seating is None or not _mend(state, seating):
        derived.seating = seating = _make(state)
    derived.unseated_all = False
    derived.unseated_nodes.clear()
    derived.unseated_vms.clear()
    return seating.table


def _make(state: State) -> Seating:
    seated = {vm.name: Seated(vm_seat(vm), bound_nodes(vm)) for vm in state.vms.values() if vm.bindings}
    nodes = [node_seat(state, node) for node in state.nodes.values()]
    return Seating(build_table(nodes, [(each.vm, name) for each in seated.values() for name in each.nodes]), seated)


def _mend(state: State, seating: Seating) -> bool:
    """Bring it up to date; False if the fleet has other nodes than the table."""
    derived, table = state.derived, seating.table
    if derived.unseated_all and state.nodes.keys() != table.columns.slot_of.keys():
        return False
    for name in state.nodes if derived.unseated_all else derived.unseated_nodes:
        node = state.nodes.get(name)
        if node is None or name not in table.columns.slot_of:
            return False
        table.put_node(node_seat(state, node))
    for name in {**state.vms, **seating.seated} if derived.unseated_all else derived.unseated_vms:
        _reseat(seating, name, state.vms.get(name))
    return True


def _reseat(seating: Seating, name: str, vm: VmRecord | None) -> None:
    before = seating.seated.get(name)
    nodes = bound_nodes(vm) if vm is not None else ()
    if before is not None and vm is not None and nodes == before.nodes and _is_as_seated(vm, before.vm):
        return
    for node in before.nodes if before is not None else ():
        seating.table.unseat(name, node)
    if vm is None or not nodes:
        seating.seated.pop(name, None)
        return
    seating.seated[name] = now = Seated(vm_seat(vm), nodes)
    for node in nodes:
        if node in seating.table.columns.slot_of:
            seating.table.seat(now.vm, node)


def _is_as_seated(vm: VmRecord, seat: PlacementVm) -> bool:
    same_things = vm.spec is seat.spec and vm.labels is seat.labels
    return same_things and (vm.cpu_m, vm.memory_bytes, written_needs(vm)) == (seat.cpu_m, seat.memory_bytes, seat.needs)
