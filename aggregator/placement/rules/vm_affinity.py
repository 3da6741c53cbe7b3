"""VMAffinity: near some VMs, away from others, over any topology key; both ways round.

Semantics: kube-scheduler's InterPodAffinity plugin. Required anti-affinity is symmetric: a seated
VM's own terms keep others away too. The first VM of a group may go anywhere that carries the keys.
"""

from __future__ import annotations

import numpy as np

from aggregator.placement.columns import BoolArray, IntArray, LabelColumn
from aggregator.placement.compiled import CompiledVm
from aggregator.placement.rules.base import SCORE_MAX, whole
from aggregator.placement.selectors import Selector, selects
from aggregator.placement.table import Table


class VMAffinity:
    name = "VMAffinity"

    def mask(self, vm: CompiledVm, table: Table) -> BoolArray:
        columns, rules = table.columns, vm.rules
        passes = columns.everywhere
        for key, tally in table.anti_affinity.concerning(rules.labels_key):
            column = columns.label(key)
            passes = passes & column.spread_out(tally.by_value(column) == 0)
        for selector, key in rules.anti_affinity:
            column = columns.label(key)
            passes = passes & column.spread_out(table.matches.tally((selector,)).by_value(column) == 0)
        return passes & _near(vm, table) if rules.affinity else passes

    def why(self, vm: CompiledVm, table: Table, slot: int) -> str:
        for key, tally in table.anti_affinity.concerning(vm.rules.labels_key):
            if tally.per_node(table.columns.label(key))[slot]:
                return f"a VM in the same {key} has an anti-affinity against this one"
        for selector, key in vm.rules.anti_affinity:
            if table.matches.tally((selector,)).per_node(table.columns.label(key))[slot]:
                return f"its anti-affinity forbids the same {key} as a VM there ({_written(selector)})"
        for selector, key in vm.rules.affinity:
            if table.columns.label(key).ids[slot] == 0:
                return f"the node has no label {key}, which the VM's affinity needs"
            if not table.matches.tally(_selectors(vm)).per_node(table.columns.label(key))[slot]:
                return f"its affinity wants the same {key} as a VM with {_written(selector)}; there is none"
        return "no VM of its affinity is there"

    def score(self, vm: CompiledVm, table: Table, feasible: BoolArray) -> IntArray | int:
        wishes = _wishes(vm, table)
        if not wishes:
            return 0
        per_node = [column.spread_out(by_value) for column, by_value in wishes]
        raw = per_node[0] if len(per_node) == 1 else np.add.reduce(per_node)
        among = raw if feasible.all() else raw[feasible]
        low, high = (int(among.min()), int(among.max())) if among.size else (0, 0)
        if low == high:
            return 0
        if len(wishes) > 1:
            return _stretched(raw, low, high)
        column, by_value = wishes[0]  # values are fewer than nodes
        return column.spread_out(_stretched(by_value, low, high))


def _wishes(vm: CompiledVm, table: Table) -> list[tuple[LabelColumn, IntArray]]:
    """Return the raw score by value of each topology key on which the VM's or others' preferences speak."""
    wishes = [(table.matches.tally((selector,)), key, weight) for (selector, key), weight in vm.rules.preferences]
    wishes += [(tally, key, 1) for key, tally in table.preferences.concerning(vm.rules.labels_key)]
    sums: dict[LabelColumn, IntArray] = {}
    for tally, key, weight in wishes:
        column = table.columns.label(key)
        counts = tally.by_value(column) * weight
        sums[column] = sums[column] + counts if column in sums else counts
    return list(sums.items())


def _selectors(vm: CompiledVm) -> tuple[Selector, ...]:
    return tuple(selector for selector, _ in vm.rules.affinity)


def _near(vm: CompiledVm, table: Table) -> BoolArray:
    """Return where every affinity term finds VMs; only VMs that all its terms select count."""
    tally = table.matches.tally(_selectors(vm))
    keyed = found = table.columns.everywhere
    anywhere = False
    for _, key in vm.rules.affinity:
        column = table.columns.label(key)
        counts = tally.by_value(column)
        keyed = keyed & (column.ids > 0)
        found = found & column.spread_out(counts > 0)
        anywhere = anywhere or bool(counts.any())
    first_of_its_group = not anywhere and all(selects(s, vm.vm.labels) for s in _selectors(vm))
    return keyed if first_of_its_group else keyed & found


def _stretched(raw: IntArray, low: int, high: int) -> IntArray:
    """Scale so that the worst feasible node has 0 and the best 100."""
    return whole(SCORE_MAX * ((raw - low) / (high - low)))


def _written(selector: Selector) -> str:
    if not selector:
        return "any labels"
    return ", ".join(
        f"{key}={values[0]}"
        if operator == "In" and len(values) == 1
        else f"{key} {operator} {' '.join(values)}".strip()
        for key, operator, values in selector
    )
