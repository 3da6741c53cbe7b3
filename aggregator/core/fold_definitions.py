"""Whose definition of a VM counts: its owner's, or, where the store has lost the owner, the newest one's (S16).

Assigns to the state; called by fold only.
"""

from __future__ import annotations

from collections.abc import Iterable

from aggregator.core.state import NodeRecord, State, VmRecord
from fleet.model import Definition


def take(state: State, node: NodeRecord, definitions: Iterable[Definition]) -> None:
    """Note the definitions that a node reports, of VMs whose definition is its to tell."""
    for definition in definitions:
        vm = state.vms.get(state.names.get(definition.uuid, ""))
        if vm is None or not (_owns(node, vm) or _is_newest_of_a_lost_one(state, node, vm)):
            continue
        if vm.run_xml_version == vm.xml_version:
            vm.definition = definition
            vm.home = node.name
            vm.disks = definition.disks or vm.disks


def _owns(node: NodeRecord, vm: VmRecord) -> bool:
    return vm.owner == node.name and vm.run_open


def _is_newest_of_a_lost_one(state: State, node: NodeRecord, vm: VmRecord) -> bool:
    """Return whether the store has lost who owns the VM, and nobody reports a higher epoch of it than this node."""
    seen = vm.reports.get(node.name)
    return bool(state.behind) and not vm.owner and seen is not None and seen.report.epoch == vm.epoch_top
