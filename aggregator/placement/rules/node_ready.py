"""NodeReady: a node that must take no VM at all is rejected, tolerations or not."""

from __future__ import annotations

from aggregator.placement.columns import BoolArray
from aggregator.placement.compiled import CompiledVm
from aggregator.placement.table import Table


class NodeReady:
    name = "NodeReady"

    def mask(self, vm: CompiledVm, table: Table) -> BoolArray:
        return table.columns.ready

    def why(self, vm: CompiledVm, table: Table, slot: int) -> str:
        return "the node is not ready to take VMs"
