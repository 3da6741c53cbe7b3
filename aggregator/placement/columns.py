"""The nodes as columns: numbers, flags, label values and taints, one slot a node.

Knows nodes only, no VM. All arrays are `capacity` long; slots without a node have present False.
Label columns are made when a rule first asks for the key, and kept current afterwards.
Resources are two rows, CPU (millicores) and MEMORY (bytes), so that a formula is written once for both.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from aggregator.core.objects import Taint
from aggregator.placement.types import PlacementNode
from fleet.model import HostOffers

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

LABEL_COLUMNS_MAX = 1024  # keys that rules name; past it the columns are made anew
TAINT_SETS_MAX = 1024  # past it, or past one a slot, those that no node has any more are forgotten
VALUES_A_SLOT_MAX = 4  # values that a label column has seen, a slot; past it the column is made anew
CAPACITY_MIN = 8
CPU, MEMORY = 0, 1  # the rows of resource arrays

_Item = TypeVar("_Item", bound=np.generic)
TaintSet = tuple[Taint, ...]  # without timeAdded, so that nodes share them


class LabelColumn:
    """The values of one label key. ids: per slot the number of its value, from 1; 0 where it is not set.

    A value keeps its number for the life of the column. An array by value has `size` elements.
    """

    def __init__(self, capacity: int) -> None:
        self.ids: IntArray = np.zeros(capacity, dtype=np.int64)
        self.id_of: dict[str, int] = {}
        self._straight: bool | None = None  # whether every slot has a value of its own, in the order of slots

    @property
    def size(self) -> int:
        return len(self.id_of) + 1

    def write(self, slot: int, value: str | None) -> None:
        self.ids[slot] = 0 if value is None else self.id_of.setdefault(value, self.size)
        self._straight = None

    def spread_out(self, by_value: NDArray[_Item]) -> NDArray[_Item]:
        """Return per slot the element of its value; not to be written to. Clipping, which never happens, is fast."""
        if self._straight is None:
            self._straight = bool((self.ids == np.arange(1, len(self.ids) + 1)).all())
        return by_value[1 : len(self.ids) + 1] if self._straight else by_value.take(self.ids, mode="clip")


class NodeColumns:
    """Everything the rules ask about nodes, by slot.

    has: what is allocatable, as floats: exact below 2^53, and no sum of absurd requests overflows.
    whole: the same to divide by, infinite where there is none. kinds: of how many resources the node has any.
    everywhere: True in every slot, the answer of rules that have nothing to say. No array is for others to write.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = max(CAPACITY_MIN, capacity)
        self.slot_of: dict[str, int] = {}
        self.nodes: list[PlacementNode | None] = [None] * self.capacity
        self.present: BoolArray = np.zeros(self.capacity, dtype=np.bool_)
        self.ready: BoolArray = np.zeros(self.capacity, dtype=np.bool_)
        self.unschedulable: BoolArray = np.zeros(self.capacity, dtype=np.bool_)
        self.has: FloatArray = np.zeros((2, self.capacity))
        self.whole: FloatArray = np.full((2, self.capacity), np.inf)
        self.kinds: FloatArray = np.zeros(self.capacity)
        self.everywhere: BoolArray = np.ones(self.capacity, dtype=np.bool_)
        self.everywhere.setflags(write=False)
        self.own = LabelColumn(self.capacity)  # every slot has a value of its own
        self.own.ids += np.arange(1, self.capacity + 1)
        self.own.id_of = {str(slot): slot + 1 for slot in range(self.capacity)}
        self.taint_ids: IntArray = np.zeros(self.capacity, dtype=np.int64)
        self.taint_sets: list[TaintSet] = [()]
        self._taint_id_of: dict[TaintSet, int] = {(): 0}
        self.offer_ids: IntArray = np.zeros(self.capacity, dtype=np.int64)
        self.offer_sets: list[HostOffers | None] = [None]
        self._offer_id_of: dict[HostOffers | None, int] = {None: 0}
        self._free = list(range(self.capacity - 1, -1, -1))
        self._labels: dict[str, LabelColumn] = {}
        self._by_name: IntArray | None = None
        self.in_order = False  # whether by_name is 0, 1, 2, …: known when it was asked for

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
        self._write_resources(slot, node.cpu_m, node.memory_bytes)
        self.taint_ids[slot] = self._taint_id(node.taints)
        self.offer_ids[slot] = self._offer_id(node.offers)
        if before is not None and before.labels == node.labels:
            return False
        for key, column in list(self._labels.items()):
            column.write(slot, node.labels.get(key))
            if column.size > VALUES_A_SLOT_MAX * self.capacity:
                del self._labels[key]
        return True

    def drop(self, name: str) -> int:
        """Forget the node and return the slot it had."""
        slot = self.slot_of.pop(name)
        self.nodes[slot] = None
        self.present[slot] = False
        self._write_resources(slot, 0, 0)
        self.taint_ids[slot] = self.offer_ids[slot] = 0
        for column in self._labels.values():
            column.write(slot, None)
        self._free.append(slot)
        self._by_name = None
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
    def by_name(self) -> IntArray:
        """The slots of the nodes in the order of their names."""
        if self._by_name is None:
            self._by_name = np.array([self.slot_of[name] for name in sorted(self.slot_of)], dtype=np.int64)
            self.in_order = bool((self._by_name == np.arange(len(self._by_name))).all())
        return self._by_name

    def _write_resources(self, slot: int, cpu_m: int, memory_bytes: int) -> None:
        self.has[:, slot] = cpu_m, memory_bytes
        self.whole[:, slot] = cpu_m if cpu_m > 0 else np.inf, memory_bytes if memory_bytes > 0 else np.inf
        self.kinds[slot] = (cpu_m > 0) + (memory_bytes > 0)

    def _take_slot(self, name: str) -> int:
        if not self._free:
            raise OverflowError("the columns are full; the table makes larger ones")
        slot = self._free.pop()
        self.slot_of[name] = slot
        self._by_name = None
        return slot

    @property
    def full(self) -> bool:
        return not self._free

    def _taint_id(self, taints: tuple[Taint, ...]) -> int:
        shared = tuple(Taint(key=t.key, value=t.value, effect=t.effect) for t in taints)
        found = self._taint_id_of.get(shared)
        if found is None:
            if len(self.taint_sets) > max(TAINT_SETS_MAX, self.capacity):
                self._forget_taints()
            found = self._taint_id_of[shared] = len(self.taint_sets)
            self.taint_sets.append(shared)
        return found

    def _offer_id(self, offers: HostOffers | None) -> int:
        found = self._offer_id_of.get(offers)
        if found is None:
            if len(self.offer_sets) > max(TAINT_SETS_MAX, self.capacity):
                used, ids = np.unique(np.append(self.offer_ids, 0), return_inverse=True)
                self.offer_ids[:] = ids[:-1]
                self.offer_sets = [self.offer_sets[number] for number in used]
                self._offer_id_of = {each: number for number, each in enumerate(self.offer_sets)}
            found = self._offer_id_of[offers] = len(self.offer_sets)
            self.offer_sets.append(offers)
        return found

    def _forget_taints(self) -> None:
        used, ids = np.unique(np.append(self.taint_ids, 0), return_inverse=True)  # 0: no taints
        self.taint_ids[:] = ids[:-1]
        self.taint_sets = [self.taint_sets[number] for number in used]
        self._taint_id_of = {taints: number for number, taints in enumerate(self.taint_sets)}
