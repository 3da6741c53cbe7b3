"""What a rule is: a filter that says which nodes may hold a VM and why not, or a score.

Rules are stateless and ask the table; they never change it. They differ in what their answer hangs on:
a node filter on the nodes' own columns; a slot filter or slot score, node by node, on that node and
what is requested on it, so it can be asked anew for the nodes that changed; the others on the whole fleet.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from aggregator.placement.columns import BoolArray, FloatArray, IntArray
from aggregator.placement.compiled import CompiledVm
from aggregator.placement.table import Table

SCORE_MAX = 100

_Number = TypeVar("_Number", bound=np.generic)

Slots = NDArray[np.int64] | None
ALL: Slots = None


class Filter(Protocol):
    """Which nodes may hold a VM. mask: per slot True where it may; slots without a node do not count.

    A mask may be the table's own array and is not to be written to; columns.everywhere: nothing to say.
    """

    name: str

    def mask(self, vm: CompiledVm, table: Table) -> BoolArray: ...

    def why(self, vm: CompiledVm, table: Table, slot: int) -> str:
        """Return in words why the rule rejects the VM on a slot whose mask is False."""
        ...


class SlotFilter(Filter, Protocol):
    """A filter that can be asked about some slots only; the mask then has an element for each of them.

    columns.everywhere means nothing to say, whatever slots it was asked about.
    """

    def mask(self, vm: CompiledVm, table: Table, at: Slots = ALL) -> BoolArray: ...


class Score(Protocol):
    """How well feasible nodes suit a VM: per slot 0..100, meaningless where not feasible.

    A plain number stands for the same everywhere.
    """

    name: str

    def score(self, vm: CompiledVm, table: Table, feasible: BoolArray) -> IntArray | int: ...


class SlotScore(Protocol):
    """A score that hangs on the slot alone and can be asked about some slots only."""

    name: str

    def score(self, vm: CompiledVm, table: Table, feasible: BoolArray, at: Slots = ALL) -> IntArray: ...


def share_of_highest(raw: IntArray, feasible: BoolArray) -> IntArray | int:
    """Scale so that the highest feasible is 100 (kube-scheduler's DefaultNormalizeScore); all 0 stays 0."""
    highest = int((raw * feasible).max())
    return raw * SCORE_MAX // highest if highest else 0


def pick(per_slot: NDArray[_Number], at: Slots) -> NDArray[_Number]:
    """Return some slots of an array whose last axis is the slots; of all of them not a copy but the array itself."""
    return per_slot if at is None else per_slot.take(at, axis=-1)


def whole(numbers: FloatArray) -> IntArray:
    """Round down to whole numbers."""
    rounded: IntArray = np.floor(numbers).astype(np.int64)
    return rounded
