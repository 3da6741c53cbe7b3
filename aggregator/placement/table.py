"""The table that placement asks: node columns, what is requested on each, who sits where.

Pure. Updated by deltas: a VM seated or unseated, a node put or dropped. Knows counting and
masks, but no rule: those are in rules/. One thread at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np

from aggregator.placement.columns import BoolArray, FloatArray, IntArray, NodeColumns
from aggregator.placement.compiled import CompiledVm, NodeRules, compile_vm
from aggregator.placement.selectors import NODE_NAME_FIELD, NodeTerm, Requirement, compares, holds
from aggregator.placement.tallies import Carriers, Matches
from aggregator.placement.types import PlacementNode, PlacementVm

_Key = TypeVar("_Key", NodeRules, NodeTerm)

COMPILED_MAX = 20_000  # VMs whose compiled rules are remembered
MASKS_MAX = 2_000  # remembered answers to "which nodes match these rules"


class Table:
    """Nodes as columns and the VMs seated on them.

    The same VM may sit on two nodes at once: both ends of a migration count.
    """

    def __init__(self, capacity: int = 0) -> None:
        self.columns = NodeColumns(capacity)
        self._clear()

    def _clear(self) -> None:
        capacity = self.columns.capacity
        self.requested_cpu_m: FloatArray = np.zeros(capacity)
        self.requested_memory: FloatArray = np.zeros(capacity)
        self.vms: IntArray = np.zeros(capacity, dtype=np.int64)
        self.matches = Matches(self.columns)
        self.anti_affinity = Carriers(self.columns)
        self.preferences = Carriers(self.columns)
        self._seats: dict[str, dict[int, CompiledVm]] = {}
        self._compiled: dict[int, CompiledVm] = {}
        self._masks: dict[NodeRules, BoolArray] = {}
        self._term_masks: dict[NodeTerm, BoolArray] = {}

    # What changes.

    def put_node(self, node: PlacementNode) -> None:
        """Add a node or replace the one of that name; its VMs stay seated."""
        if self.columns.full and node.name not in self.columns.slot_of:
            self._grow()
        if self.columns.put(node):
            self._relabelled()

    def drop_node(self, name: str) -> None:
        """Forget a node and the VMs seated on it; KeyError if it is not there."""
        slot = self.columns.slot_of[name]
        for vm in [seat.vm for seats in self._seats.values() for at, seat in seats.items() if at == slot]:
            self.unseat(vm.name, name)
        self.columns.drop(name)
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
        self.requested_cpu_m[slot] += sign * compiled.vm.cpu_m
        self.requested_memory[slot] += sign * compiled.vm.memory_bytes
        self.vms[slot] += sign
        self.matches.add(compiled.labels_key, slot, sign)
        for group in compiled.anti_affinity:
            self.anti_affinity.add(group, slot, sign, sign)
        for group, weight in compiled.carried:
            self.preferences.add(group, slot, sign * weight, sign)

    def _relabelled(self) -> None:
        self.matches.relabelled()
        self.anti_affinity.relabelled()
        self.preferences.relabelled()
        self._masks.clear()
        self._term_masks.clear()

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
        if len(self._compiled) >= COMPILED_MAX:
            self._compiled.clear()
        compiled = self._compiled[id(vm)] = compile_vm(vm)
        return compiled

    def matching(self, rules: NodeRules) -> BoolArray:
        """Return which slots match a nodeSelector and required node terms. Not to be written to."""
        mask = self._masks.get(rules)
        if mask is None:
            mask = self.columns.present.copy()
            for key, value in rules.selector:
                mask &= self._holds((key, "In", (value,)))
            if rules.terms is not None:
                mask &= np.logical_or.reduce([self.term(t) for t in rules.terms] or [np.zeros_like(mask)])
            mask = self._remember(self._masks, rules, mask)
        return mask

    def term(self, term: NodeTerm) -> BoolArray:
        """Return which slots match one node term; a term that demands nothing matches none. Not to be written to."""
        mask = self._term_masks.get(term)
        if mask is None:
            expressions, fields = term
            mask = self.columns.present.copy() if expressions or fields else np.zeros_like(self.columns.present)
            for requirement in expressions:
                mask &= self._holds(requirement)
            for requirement in fields:
                mask &= self._field_holds(requirement)
            mask = self._remember(self._term_masks, term, mask)
        return mask

    def _remember(self, masks: dict[_Key, BoolArray], key: _Key, mask: BoolArray) -> BoolArray:
        if len(masks) >= MASKS_MAX:
            masks.clear()
        mask.setflags(write=False)
        masks[key] = mask
        return mask

    def _holds(self, requirement: Requirement) -> BoolArray:
        key, operator, values = requirement
        column = self.columns.label(key)
        if operator == "DoesNotExist":
            return column.ids < 0
        if operator == "Exists":
            return column.ids >= 0
        by_value = np.zeros(len(column.values) + 1, dtype=np.bool_)
        if operator in ("In", "NotIn"):
            by_value[[column.id_of[value] for value in values if value in column.id_of]] = True
        else:
            by_value[:-1] = [compares(operator, value, values) for value in column.values]
        answers = by_value[column.ids]
        return ~answers if operator == "NotIn" else answers

    def _field_holds(self, requirement: Requirement) -> BoolArray:
        names = {NODE_NAME_FIELD: ""}
        mask = np.zeros_like(self.columns.present)
        for name, slot in self.columns.slot_of.items():
            names[NODE_NAME_FIELD] = name
            mask[slot] = holds(requirement, names)
        return mask
