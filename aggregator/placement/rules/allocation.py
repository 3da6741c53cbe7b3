"""LeastAllocated, MostAllocated, BalancedAllocation: how full a node would be with the VM on it.

Formulas: kube-scheduler's NodeResourcesFit strategies and NodeResourcesBalancedAllocation, for cpu
and memory with equal weights. A resource of which a node has none does not count.
"""

from __future__ import annotations

import numpy as np

from aggregator.placement.columns import CPU, MEMORY, BoolArray, FloatArray, IntArray
from aggregator.placement.compiled import CompiledVm
from aggregator.placement.rules.base import ALL, SCORE_MAX, Slots, pick, whole
from aggregator.placement.table import Table

KINDS = 2


class LeastAllocated:
    name = "LeastAllocated"

    def score(self, vm: CompiledVm, table: Table, feasible: BoolArray, at: Slots = ALL) -> IntArray:
        left = np.maximum(pick(table.columns.has, at) - _wanted(vm, table, at), 0.0)
        return _mean(left, table, at)


class MostAllocated:
    name = "MostAllocated"

    def score(self, vm: CompiledVm, table: Table, feasible: BoolArray, at: Slots = ALL) -> IntArray:
        taken = np.minimum(_wanted(vm, table, at), pick(table.columns.has, at))
        return _mean(taken, table, at)


class BalancedAllocation:
    name = "BalancedAllocation"

    def score(self, vm: CompiledVm, table: Table, feasible: BoolArray, at: Slots = ALL) -> IntArray:
        taken = np.minimum(_wanted(vm, table, at) / pick(table.columns.whole, at), 1.0)
        apart = np.abs(taken[CPU] - taken[MEMORY]) / 2
        apart *= pick(table.columns.kinds, at) == KINDS  # a single resource is balanced with itself
        return whole((1 - apart) * SCORE_MAX)


def _wanted(vm: CompiledVm, table: Table, at: Slots) -> FloatArray:
    """Return what is requested with the VM."""
    return pick(table.requested, at) + vm.request.sizes


def _mean(part: FloatArray, table: Table, at: Slots) -> IntArray:
    """Return the whole mean of the percentages of those resources that a node has."""
    shares = np.floor(part * SCORE_MAX / pick(table.columns.whole, at))
    return whole((shares[CPU] + shares[MEMORY]) / np.maximum(pick(table.columns.kinds, at), 1.0))
