"""LeastAllocated, MostAllocated, BalancedAllocation: how full a node would be with the VM on it.

Formulas: kube-scheduler's NodeResourcesFit strategies and NodeResourcesBalancedAllocation, for cpu
and memory with equal weights. A resource of which a node has none does not count.
"""

from __future__ import annotations

import numpy as np

from aggregator.placement.columns import CPU, MEMORY, BoolArray, FloatArray, IntArray
from aggregator.placement.compiled import CompiledVm
from aggregator.placement.rules.base import ALL, SCORE_MAX, Slots, whole
from aggregator.placement.table import Room, Table

KINDS = 2


class LeastAllocated:
    name = "LeastAllocated"

    def score(self, vm: CompiledVm, table: Table, feasible: BoolArray, at: Slots = ALL) -> IntArray:
        room = table.room(at)
        left = np.maximum(room.has - (room.requested + vm.request.sizes), 0.0)
        return _mean(left, room)


class MostAllocated:
    name = "MostAllocated"

    def score(self, vm: CompiledVm, table: Table, feasible: BoolArray, at: Slots = ALL) -> IntArray:
        room = table.room(at)
        taken = np.minimum(room.requested + vm.request.sizes, room.has)
        return _mean(taken, room)


class BalancedAllocation:
    name = "BalancedAllocation"

    def score(self, vm: CompiledVm, table: Table, feasible: BoolArray, at: Slots = ALL) -> IntArray:
        room = table.room(at)
        taken = np.minimum((room.requested + vm.request.sizes) / room.whole, 1.0)
        apart = np.abs(taken[CPU] - taken[MEMORY]) / 2
        apart *= room.kinds == KINDS  # a single resource is balanced with itself
        return whole((1 - apart) * SCORE_MAX)


def _mean(part: FloatArray, room: Room) -> IntArray:
    """Return the whole mean of the percentages of those resources that a node has."""
    shares = np.floor(part * SCORE_MAX / room.whole)
    return whole((shares[CPU] + shares[MEMORY]) / np.maximum(room.kinds, 1.0))
