"""The table that placement asks: node columns, what is requested on each, who sits where.

Pure. Updated by deltas: a VM seated or unseated, a node put or dropped. Knows counting, and keeps
what rules and ranking remember, but no rule: those are in rules/. One thread at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from msgspec import Struct

from aggregator.placement.changes import Changes
from aggregator.placement.columns import CPU, MEMORY, FloatArray, IntArray, NodeColumns
from aggregator.placement.compiled import CompiledVm, Compiler
from aggregator.placement.held import Held
from aggregator.placement.masks import NodeMasks
from aggregator.placement.recent import Recent
from aggregator.placement.standing import STANDINGS_MAX, Standing, StandingKey
from aggregator.placement.tallies import Carriers, Matches, TotalsMemory
from aggregator.placement.types import PlacementNode, PlacementVm

COMPILED_MAX = 1_000  # VMs whose compiled form is remembered though they may not be seated


class Room(Struct, frozen=True, eq=False):
    """What the slots `at` have and what is requested there; has, whole, requested by CPU and MEMORY."""

    at: IntArray | None
    has: FloatArray
    whole: FloatArray
    kinds: FloatArray
    requested: FloatArray


class Table:
    """Nodes as columns and the VMs seated on them.

    The same VM may sit on two nodes at once: both ends of a migration count. requested: CPU and MEMORY
    by slot. vms: how many VMs by slot. changes: the slots of which one of these is other than before.
    """

    def __init__(self, capacity: int = 0) -> None:
        self.columns = NodeColumns(capacity)
        self._clear()

    def _clear(self) -> None:
        capacity = self.columns.capacity
        self.requested: FloatArray = np.zeros((2, capacity))
        self.vms: IntArray = np.zeros(capacity, dtype=np.int64)
        self._totals = TotalsMemory(capacity)
        self.matches = Matches(self._totals)
        self.anti_affinity = Carriers(self._totals)
        self.preferences = Carriers(self._totals)
        self.held = Held()
        self.masks = NodeMasks(self.columns)
        self.changes = Changes()
        self._room: Room | None = None
        self.standings: Recent[StandingKey, Standing] = Recent(STANDINGS_MAX)
        self._seats: dict[str, dict[int, CompiledVm]] = {}
        self._compiler = Compiler()
        self._compiled: Recent[int, CompiledVm] = Recent(COMPILED_MAX)

    # What changes.

    def put_node(self, node: PlacementNode) -> None:
        """Add a node or replace the one of that name; its VMs stay seated."""
        if self.columns.full and node.name not in self.columns.slot_of:
            self._grow()
        slot = self.columns.slot_of.get(node.name)
        if slot is not None and self.columns.node(slot) == node:
            return
        self.standings.clear()
        self._room = None
        if self.columns.put(node):
            self._relabelled()

    def drop_node(self, name: str) -> None:
        """Forget a node and the VMs seated on it; KeyError if it is not there."""
        slot = self.columns.slot_of[name]
        for vm in [seat.vm for seats in self._seats.values() for at, seat in seats.items() if at == slot]:
            self.unseat(vm.name, name)
        self.columns.drop(name)
        self.standings.clear()
        self._relabelled()

    def seat(self, vm: PlacementVm, node: str) -> None:
        """Count a VM on a node. KeyError: no such node. Seated there already: the new spec counts."""
        slot = self.columns.slot_of[node]
        seats = self._seats.setdefault(vm.name, {})
        if slot in seats:
            self._count(seats[slot], slot, -1)
        seats[slot] = compiled = self.compiled(vm)
        self._count(compiled, slot, 1)

    def unseat(self, vm: str, node: str) -> None:
        """Count a VM on a node no longer; not seated there: nothing happens."""
        slot = self.columns.slot_of.get(node)
        seats = self._seats.get(vm, {})
        if slot is None or slot not in seats:
            return
        self._count(seats.pop(slot), slot, -1)
        if not seats:
            del self._seats[vm]

    @contextmanager
    def without(self, vm: str) -> Iterator[None]:
        """For the time of a question the VM sits nowhere: it is not in its own way."""
        seats = list(self._seats.get(vm, {}).items())
        for slot, compiled in seats:
            self._count(compiled, slot, -1)
        try:
            yield
        finally:
            for slot, compiled in seats:
                self._count(compiled, slot, 1)

    def _count(self, compiled: CompiledVm, slot: int, sign: int) -> None:
        self.requested[CPU, slot] += sign * compiled.vm.cpu_m
        self.requested[MEMORY, slot] += sign * compiled.vm.memory_bytes
        self.vms[slot] += sign
        self.changes.note(slot)
        self._room = None
        rules = compiled.rules
        if rules.demands.holds:
            self.held.add(rules.demands.needs, slot, sign)
        self.matches.add(rules.labels_key, slot, sign)
        for group in rules.anti_affinity:
            self.anti_affinity.add(group, slot, sign, sign)
        for group, weight in rules.carried:
            self.preferences.add(group, slot, sign * weight, sign)

    def room(self, at: IntArray | None) -> Room:
        """Return the numbers of some slots, None: of all. Asked again for the same array before anything changes,
        it is the same answer: the rules of one ranking share it.
        """
        columns = self.columns
        if at is None:
            return Room(None, columns.has, columns.whole, columns.kinds, self.requested)
        if self._room is None or self._room.at is not at:
            numbers = (columns.has, columns.whole, columns.kinds, self.requested)
            self._room = Room(at, *(each.take(at, axis=-1, mode="clip") for each in numbers))
        return self._room

    def _relabelled(self) -> None:
        self._totals.clear()
        self.masks.clear()

    def _grow(self) -> None:
        seats = [
            (compiled.vm, self.columns.node(slot).name)
            for by_slot in self._seats.values()
            for slot, compiled in by_slot.items()
        ]
        nodes = [node for node in self.columns.nodes if node is not None]
        self.columns = NodeColumns(2 * self.columns.capacity)
        self._clear()
        for node in nodes:
            self.columns.put(node)
        for vm, name in seats:
            self.seat(vm, name)

    # What is asked.

    def seats_of(self, vm: str) -> tuple[str, ...]:
        """Return the nodes a VM is counted on."""
        return tuple(self.columns.node(slot).name for slot in self._seats.get(vm, {}))

    def name(self, slot: int) -> str:
        return self.columns.node(slot).name

    def compiled(self, vm: PlacementVm) -> CompiledVm:
        """Return the compiled rules of a VM; remembered by the object, not by its value."""
        found = self._compiled.get(id(vm))
        if found is not None and found.vm is vm:
            return found
        return self._compiled.put(id(vm), self._compiler.compile(vm))
