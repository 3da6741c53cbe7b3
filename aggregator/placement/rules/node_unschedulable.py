"""NodeUnschedulable: a person's cordon, unless virtward/unschedulable:NoSchedule is tolerated."""

from __future__ import annotations

from aggregator.placement.columns import BoolArray
from aggregator.placement.compiled import CompiledVm
from aggregator.placement.rules.base import all_pass
from aggregator.placement.selectors import UNSCHEDULABLE, tolerates
from aggregator.placement.table import Table


class NodeUnschedulable:
    name = "NodeUnschedulable"

    def mask(self, vm: CompiledVm, table: Table) -> BoolArray:
        if vm.tolerations and tolerates(vm.tolerations, UNSCHEDULABLE):
            return all_pass(table)
        return ~table.columns.unschedulable

    def why(self, vm: CompiledVm, table: Table, slot: int) -> str:
        return "the node is cordoned"
