"""NodeResourcesFit: what a VM requests must be free of what the node can allocate.

Semantics: kube-scheduler's NodeResourcesFit plugin for cpu and memory; a request of 0 always fits.
"""

from __future__ import annotations

from aggregator.placement.columns import BoolArray
from aggregator.placement.compiled import CompiledVm
from aggregator.placement.rules.base import all_pass
from aggregator.placement.table import Table
from fleet.units import format_bytes, format_cpu


class NodeResourcesFit:
    name = "NodeResourcesFit"

    def mask(self, vm: CompiledVm, table: Table) -> BoolArray:
        fits = all_pass(table)
        if vm.vm.cpu_m > 0:
            fits &= table.columns.cpu_m - table.requested_cpu_m >= vm.vm.cpu_m
        if vm.vm.memory_bytes > 0:
            fits &= table.columns.memory_bytes - table.requested_memory >= vm.vm.memory_bytes
        return fits

    def why(self, vm: CompiledVm, table: Table, slot: int) -> str:
        free_cpu = int(table.columns.cpu_m[slot] - table.requested_cpu_m[slot])
        free_memory = int(table.columns.memory_bytes[slot] - table.requested_memory[slot])
        short = []
        if 0 < vm.vm.cpu_m > free_cpu:
            short.append(f"{format_cpu(max(0, free_cpu))} CPU free, {format_cpu(vm.vm.cpu_m)} requested")
        if 0 < vm.vm.memory_bytes > free_memory:
            have, want = format_bytes(max(0, free_memory)), format_bytes(vm.vm.memory_bytes)
            short.append(f"{have} memory free, {want} requested")
        return "; ".join(short)
