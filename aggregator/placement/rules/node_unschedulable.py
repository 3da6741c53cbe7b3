"""NodeUnschedulable: a person's cordon, unless virtward/unschedulable:NoSchedule is tolerated."""

from __future__ import annotations

from aggregator.placement.columns import BoolArray
from aggregator.placement.compiled import CompiledVm
from aggregator.placement.selectors import UNSCHEDULABLE, tolerates
from aggregator.placement.table import Table


class NodeUnschedulable:
    name = "NodeUnschedulable"

    def mask(self, vm: CompiledVm, table: Table) -> BoolArray:
        if tolerates(vm.rules.demands.tolerations, UNSCHEDULABLE):
            return table.columns.everywhere
        return ~table.columns.unschedulable

    def why(self, vm: CompiledVm, table: Table, slot: int) -> str:
        return "the node is cordoned"
