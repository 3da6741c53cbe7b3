"""The nodes as columns: numbers, flags, label values and taints, one slot a node.

Knows nodes only, no VM. All arrays are `capacity` long; slots without a node have present False.
Label columns are made when a rule first asks for the key, and kept current afterwards.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from aggregator.core.objects import Taint
from aggregator.placement.types import PlacementNode

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

LABEL_COLUMNS_MAX = 1024  # keys that rules name; past it the columns are made anew
CAPACITY_MIN = 8

TaintSet = tuple[Taint, ...]  # without timeAdded, so that nodes share them


class LabelColumn:
    """The values of one label key. ids: per slot an index into values, -1 where it is not set.

    A value keeps its id for the life of the column.
    """

    def __init__(self, capacity: int) -> None:
        self.ids: IntArray = np.full(capacity, -1, dtype=np.int64)
        self.values: list[str] = []
        self.id_of: dict[str, int] = {}

    def write(self, slot: int, value: str | None) -> None:
        if value is None:
            self.ids[slot] = -1
            return
        found = self.id_of.get(value)
        if found is None:
            found = self.id_of[value] = len(self.values)
            self.values.append(value)
        self.ids[slot] = found


class NodeColumns:
    """Everything the rules ask about nodes, by slot. cpu in millicores, memory in bytes, as floats.

    Exact below 2^53, and no sum of absurd requests overflows.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = max(CAPACITY_MIN, capacity)
        self.slot_of: dict[str, int] = {}
        self.nodes: list[PlacementNode | None] = [None] * self.capacity
        self.present: BoolArray = np.zeros(self.capacity, dtype=np.bool_)
        self.ready: BoolArray = np.zeros(self.capacity, dtype=np.bool_)
        self.unschedulable: BoolArray = np.zeros(self.capacity, dtype=np.bool_)
        self.cpu_m: FloatArray = np.zeros(self.capacity)
        self.memory_bytes: FloatArray = np.zeros(self.capacity)
        self.taint_ids: IntArray = np.zeros(self.capacity, dtype=np.int64)
        self.taint_sets: list[TaintSet] = [()]
        self._taint_id_of: dict[TaintSet, int] = {(): 0}
        self._free = list(range(self.capacity - 1, -1, -1))
        self._labels: dict[str, LabelColumn] = {}
        self._rank: IntArray | None = None

    def put(self, node: PlacementNode) -> bool:
        """Add the node or replace it by name; True if its labels are other than before."""
        slot = self.slot_of.get(node.name)
        before = self.nodes[slot] if slot is not None else None
        if slot is None:
            slot = self._take_slot(node.name)
        self.nodes[slot] = node
        self.present[slot] = True
        self.ready[slot] = node.ready
        self.unschedulable[slot] = node.unschedulable
        self.cpu_m[slot] = node.cpu_m
        self.memory_bytes[slot] = node.memory_bytes
        self.taint_ids[slot] = self._taint_id(node.taints)
        if before is not None and before.labels == node.labels:
            return False
        for key, column in self._labels.items():
            column.write(slot, node.labels.get(key))
        return True

    def drop(self, name: str) -> int:
        """Forget the node and return the slot it had."""
        slot = self.slot_of.pop(name)
        self.nodes[slot] = None
        self.present[slot] = False
        self.cpu_m[slot] = self.memory_bytes[slot] = 0
        self.taint_ids[slot] = 0
        for column in self._labels.values():
            column.write(slot, None)
        self._free.append(slot)
        self._rank = None
        return slot

    def label(self, key: str) -> LabelColumn:
        """Return the column of a label key."""
        column = self._labels.get(key)
        if column is None:
            if len(self._labels) >= LABEL_COLUMNS_MAX:
                self._labels.clear()
            column = self._labels[key] = LabelColumn(self.capacity)
            for slot in self.slot_of.values():
                column.write(slot, self.node(slot).labels.get(key))
        return column

    def node(self, slot: int) -> PlacementNode:
        """Return the node of a slot; KeyError if the slot is empty."""
        node = self.nodes[slot]
        if node is None:
            raise KeyError(slot)
        return node

    @property
    def rank(self) -> IntArray:
        """Per slot the node's place in the order of names; empty slots come last."""
        if self._rank is None:
            self._rank = np.full(self.capacity, self.capacity, dtype=np.int64)
            order = [self.slot_of[name] for name in sorted(self.slot_of)]
            self._rank[order] = np.arange(len(order))
        return self._rank

    def _take_slot(self, name: str) -> int:
        if not self._free:
            raise OverflowError("the columns are full; the table makes larger ones")
        slot = self._free.pop()
        self.slot_of[name] = slot
        self._rank = None
        return slot

    @property
    def full(self) -> bool:
        return not self._free

    def _taint_id(self, taints: tuple[Taint, ...]) -> int:
        shared = tuple(Taint(key=t.key, value=t.value, effect=t.effect) for t in taints)
        found = self._taint_id_of.get(shared)
        if found is None:
            found = self._taint_id_of[shared] = len(self.taint_sets)
            self.taint_sets.append(shared)
        return found
