"""VMAffinity: near some VMs, away from others, over any topology key; both ways round.

Semantics: kube-scheduler's InterPodAffinity plugin. Required anti-affinity is symmetric: a seated
VM's own terms keep others away too. The first VM of a group may go anywhere that carries the keys.
"""

from __future__ import annotations

import numpy as np

from aggregator.placement.columns import BoolArray, IntArray
from aggregator.placement.compiled import CompiledVm
from aggregator.placement.rules.base import SCORE_MAX, all_pass
from aggregator.placement.selectors import Selector, selects
from aggregator.placement.table import Table


class VMAffinity:
    name = "VMAffinity"

    def mask(self, vm: CompiledVm, table: Table) -> BoolArray:
        passes = all_pass(table)
        for key, tally in table.anti_affinity.concerning(vm.labels_key):
            passes &= tally.per_node(key, table.columns) == 0
        for selector, key in vm.anti_affinity:
            passes &= table.matches.tally((selector,)).per_node(key, table.columns) == 0
        if vm.affinity:
            passes &= _near(vm, table)
        return passes

    def why(self, vm: CompiledVm, table: Table, slot: int) -> str:
        for key, tally in table.anti_affinity.concerning(vm.labels_key):
            if tally.per_node(key, table.columns)[slot]:
                return f"a VM in the same {key} has an anti-affinity against this one"
        for selector, key in vm.anti_affinity:
            if table.matches.tally((selector,)).per_node(key, table.columns)[slot]:
                return f"its anti-affinity forbids the same {key} as a VM there ({_written(selector)})"
        for selector, key in vm.affinity:
            if table.columns.label(key).ids[slot] < 0:
                return f"the node has no label {key}, which the VM's affinity needs"
            if not table.matches.tally(_selectors(vm)).per_node(key, table.columns)[slot]:
                return f"its affinity wants the same {key} as a VM with {_written(selector)}; there is none"
        return "no VM of its affinity is there"

    def score(self, vm: CompiledVm, table: Table, feasible: BoolArray) -> IntArray:
        raw = np.zeros(table.columns.capacity, dtype=np.int64)
        for (selector, key), weight in vm.preferences:
            raw += table.matches.tally((selector,)).per_node(key, table.columns) * weight
        for key, tally in table.preferences.concerning(vm.labels_key):
            raw += tally.per_node(key, table.columns)
        return _stretched(raw, feasible)


def _selectors(vm: CompiledVm) -> tuple[Selector, ...]:
    return tuple(selector for selector, _ in vm.affinity)


def _near(vm: CompiledVm, table: Table) -> BoolArray:
    """Return where every affinity term finds VMs; only VMs that all its terms select count."""
    tally = table.matches.tally(_selectors(vm))
    keyed = all_pass(table)
    found = all_pass(table)
    anywhere = False
    for _, key in vm.affinity:
        keyed &= table.columns.label(key).ids >= 0
        found &= tally.per_node(key, table.columns) > 0
        anywhere = anywhere or bool(tally.by_value(key, table.columns).any())
    first_of_its_group = not anywhere and all(selects(s, vm.vm.labels) for s in _selectors(vm))
    return keyed if first_of_its_group else keyed & found


def _stretched(raw: IntArray, feasible: BoolArray) -> IntArray:
    """Scale so that the worst feasible node has 0 and the best 100; all the same: 0."""
    among = raw[feasible]
    if not among.size or among.max() == among.min():
        return np.zeros_like(raw)
    low, high = int(among.min()), int(among.max())
    return np.floor(SCORE_MAX * ((raw - low) / (high - low))).astype(np.int64)


def _written(selector: Selector) -> str:
    if not selector:
        return "any labels"
    return ", ".join(
        f"{key}={values[0]}"
        if operator == "In" and len(values) == 1
        else f"{key} {operator} {' '.join(values)}".strip()
        for key, operator, values in selector
    )
