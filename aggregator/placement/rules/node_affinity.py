"""NodeAffinity: nodeSelector and required node terms must hold, preferred terms add their weight.

Semantics: kube-scheduler's NodeAffinity plugin.
"""

from __future__ import annotations

import numpy as np

from aggregator.placement.columns import BoolArray, IntArray
from aggregator.placement.compiled import CompiledVm
from aggregator.placement.rules.base import share_of_highest
from aggregator.placement.table import Table


class NodeAffinity:
    name = "NodeAffinity"

    def mask(self, vm: CompiledVm, table: Table) -> BoolArray:
        return table.masks.matching(vm.rules.demands.nodes)

    def why(self, vm: CompiledVm, table: Table, slot: int) -> str:
        labels = table.columns.node(slot).labels
        for key, value in vm.rules.demands.nodes.selector:
            if key not in labels:
                return f"nodeSelector wants {key}={value}; the node has no label {key}"
            if labels[key] != value:
                return f"nodeSelector wants {key}={value}; the node has {key}={labels[key]}"
        return "none of the required nodeAffinity terms matches the node"

    def score(self, vm: CompiledVm, table: Table, feasible: BoolArray) -> IntArray | int:
        if not vm.rules.node_preferences:
            return 0
        raw = np.zeros(table.columns.capacity, dtype=np.int64)
        for term, weight in vm.rules.node_preferences:
            raw += table.masks.term(term) * weight
        return share_of_highest(raw, feasible)
