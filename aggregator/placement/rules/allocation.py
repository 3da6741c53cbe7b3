"""LeastAllocated, MostAllocated, BalancedAllocation: how full a node would be with the VM on it.

Formulas: kube-scheduler's NodeResourcesFit strategies and NodeResourcesBalancedAllocation, for cpu
and memory with equal weights. A resource of which a node has none does not count.
"""

from __future__ import annotations

import numpy as np

from aggregator.placement.columns import BoolArray, FloatArray, IntArray
from aggregator.placement.compiled import CompiledVm
from aggregator.placement.rules.base import SCORE_MAX, percent
from aggregator.placement.table import Table


class LeastAllocated:
    name = "LeastAllocated"

    def score(self, vm: CompiledVm, table: Table, feasible: BoolArray) -> IntArray:
        pairs = _wanted(vm, table)
        return _mean([(percent(np.maximum(has - wants, 0), has), has) for wants, has in pairs])


class MostAllocated:
    name = "MostAllocated"

    def score(self, vm: CompiledVm, table: Table, feasible: BoolArray) -> IntArray:
        pairs = _wanted(vm, table)
        return _mean([(percent(np.minimum(wants, has), has), has) for wants, has in pairs])


class BalancedAllocation:
    name = "BalancedAllocation"

    def score(self, vm: CompiledVm, table: Table, feasible: BoolArray) -> IntArray:
        (cpu, has_cpu), (memory, has_memory) = _wanted(vm, table)
        apart = np.abs(_fraction(cpu, has_cpu) - _fraction(memory, has_memory)) / 2
        apart[(has_cpu == 0) | (has_memory == 0)] = 0  # a single resource is balanced with itself
        return np.floor((1 - apart) * SCORE_MAX).astype(np.int64)


def _wanted(vm: CompiledVm, table: Table) -> tuple[tuple[FloatArray, FloatArray], tuple[FloatArray, FloatArray]]:
    """Return (requested with the VM, allocatable) for cpu and for memory."""
    return (
        (table.requested_cpu_m + vm.vm.cpu_m, table.columns.cpu_m),
        (table.requested_memory + vm.vm.memory_bytes, table.columns.memory_bytes),
    )


def _mean(scores: list[tuple[IntArray, FloatArray]]) -> IntArray:
    """Return the whole mean of the scores of those resources that a node has."""
    total = sum((score for score, _ in scores), start=np.zeros_like(scores[0][0]))
    counted = sum(((has > 0).astype(np.int64) for _, has in scores), start=np.zeros_like(scores[0][0]))
    return total // np.maximum(counted, 1)


def _fraction(wants: FloatArray, has: FloatArray) -> FloatArray:
    return np.minimum(np.divide(wants, has, out=np.zeros_like(has), where=has > 0), 1.0)
