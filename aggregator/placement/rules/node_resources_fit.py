"""NodeResourcesFit: what a VM requests must be free of what the node can allocate.

Semantics: kube-scheduler's NodeResourcesFit plugin for cpu and memory; a request of 0 always fits.
"""

from __future__ import annotations

from aggregator.placement.columns import CPU, MEMORY, BoolArray
from aggregator.placement.compiled import CompiledVm
from aggregator.placement.rules.base import ALL, Slots
from aggregator.placement.table import Table
from fleet.units import format_bytes, format_cpu


class NodeResourcesFit:
    name = "NodeResourcesFit"

    def mask(self, vm: CompiledVm, table: Table, at: Slots = ALL) -> BoolArray:
        room = table.room(at)
        enough: BoolArray = room.has - room.requested >= vm.request.room
        fits: BoolArray = enough[CPU] & enough[MEMORY]
        return fits

    def why(self, vm: CompiledVm, table: Table, slot: int) -> str:
        free_cpu, free_memory = (int(free) for free in table.columns.has[:, slot] - table.requested[:, slot])
        short = []
        if 0 < vm.vm.cpu_m > free_cpu:
            short.append(f"{format_cpu(max(0, free_cpu))} CPU free, {format_cpu(vm.vm.cpu_m)} requested")
        if 0 < vm.vm.memory_bytes > free_memory:
            have, want = format_bytes(max(0, free_memory)), format_bytes(vm.vm.memory_bytes)
            short.append(f"{have} memory free, {want} requested")
        return "; ".join(short)
