"""Which moves make a fleet more balanced, or emptier; by what is requested of each node.

Every move that is called better makes the same order of the fleet's loads strictly fall (or rise), so that moves
come to an end whatever their order, and none is ever taken back. Pure; knows numbers, and no rule of placement.

Spreading: of the nodes' fullest resources, highest first, the first that changes falls: the source had it, and
both ends lie below it afterwards. Emptying: of the loads, highest first, the first that changes rises: the target
is fuller than the source was, and takes more.
"""

from __future__ import annotations

from msgspec import Struct

from aggregator.placement.columns import CPU, MEMORY
from aggregator.placement.table import Table
from aggregator.placement.types import PlacementVm

SLACK = 1e-9  # shares closer than this are the same


class Load(Struct, frozen=True):
    """What is requested of a node: shares of its CPU and memory (1 is all), and how many VMs sit there."""

    cpu: float
    memory: float
    vms: int

    @property
    def fullest(self) -> float:
        return max(self.cpu, self.memory)

    @property
    def both(self) -> tuple[float, int]:
        """How full it is in all; a VM that requests nothing counts a little, too."""
        return self.cpu + self.memory, self.vms


def load_of(table: Table, node: str, come: PlacementVm | None = None, gone: PlacementVm | None = None) -> Load:
    """Return a node's load, with one VM more or less. KeyError: no such node."""
    slot = table.columns.slot_of[node]
    cpu, memory = float(table.requested[CPU, slot]), float(table.requested[MEMORY, slot])
    vms = int(table.vms[slot])
    for vm, sign in ((come, 1), (gone, -1)):
        if vm is not None:
            cpu, memory, vms = cpu + sign * vm.cpu_m, memory + sign * vm.memory_bytes, vms + sign
    whole = table.columns.whole
    return Load(cpu / float(whole[CPU, slot]), memory / float(whole[MEMORY, slot]), vms)


def spreads(table: Table, vm: PlacementVm, source: str, target: str, margin: float) -> bool:
    """Return whether the move leaves both ends below what the source has now, the target by the margin (a share)."""
    before = load_of(table, source).fullest
    after_source = load_of(table, source, gone=vm).fullest
    after_target = load_of(table, target, come=vm).fullest
    return after_source < before - SLACK and after_target < before - SLACK and after_target + margin <= before + SLACK


def fills(table: Table, source: str, target: str) -> bool:
    """Return whether the target is in use and fuller than the source, so that the source is the one to be emptied."""
    here, there = load_of(table, source), load_of(table, target)
    return there.vms > 0 and (there.both, target) > (here.both, source)
