"""What a rule is: a filter that says which nodes may hold a VM and why not, or a score.

Rules are stateless and ask the table; they never change it.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from aggregator.placement.columns import BoolArray, FloatArray, IntArray
from aggregator.placement.compiled import CompiledVm
from aggregator.placement.table import Table

SCORE_MAX = 100


class Filter(Protocol):
    """Which nodes may hold a VM. mask: per slot True where it may; slots without a node do not count."""

    name: str

    def mask(self, vm: CompiledVm, table: Table) -> BoolArray: ...

    def why(self, vm: CompiledVm, table: Table, slot: int) -> str:
        """Return in words why the rule rejects the VM on a slot whose mask is False."""
        ...


class Score(Protocol):
    """How well feasible nodes suit a VM: per slot 0..100, meaningless where not feasible."""

    name: str

    def score(self, vm: CompiledVm, table: Table, feasible: BoolArray) -> IntArray: ...


def share_of_highest(raw: IntArray, feasible: BoolArray) -> IntArray:
    """Scale so that the highest feasible is 100 (kube-scheduler's DefaultNormalizeScore); all 0 stays 0."""
    highest = int(raw[feasible].max(initial=0))
    return raw * SCORE_MAX // highest if highest else np.zeros_like(raw)


def all_pass(table: Table) -> BoolArray:
    return np.ones(table.columns.capacity, dtype=np.bool_)


def percent(part: FloatArray, whole: FloatArray) -> IntArray:
    """Return floor(100 · part / whole) per slot, 0 where the whole is 0."""
    shares = np.divide(part * SCORE_MAX, whole, out=np.zeros_like(whole), where=whole > 0)
    return np.floor(shares).astype(np.int64)
