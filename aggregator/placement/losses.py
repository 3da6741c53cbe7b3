"""What would become of the VMs on nodes that are lost together: asked of a table, which is as before afterwards.

Pure. Knows nothing of proofs, strategies or time: whoever asks says which VMs would have to start elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import structs

from aggregator.placement.place import Told, place_batch
from aggregator.placement.table import Table
from aggregator.placement.types import PlacementVm, ScoreSettings, Verdict

SeatedOn = Mapping[str, Sequence[PlacementVm]]  # node -> the VMs that the table counts there


def place_after_loss(
    table: Table, seated: SeatedOn, failed: Sequence[str], vms: Sequence[PlacementVm], settings: ScoreSettings
) -> list[Verdict]:
    """Return where these VMs would start with the failed nodes gone: one verdict each, in the order given.

    Every VM seated on a failed node leaves its seat there first, whether it is to start elsewhere or not. Names of
    nodes that the table does not know are passed over.
    """
    nodes = [table.columns.node(table.columns.slot_of[name]) for name in failed if name in table.columns.slot_of]
    for node in nodes:
        for vm in seated.get(node.name, ()):
            table.unseat(vm.name, node.name)
        table.put_node(structs.replace(node, ready=False))
    try:
        return place_batch(vms, table, settings, told=Told.NODE)
    finally:
        for node in nodes:
            table.put_node(node)
            for vm in seated.get(node.name, ()):
                table.seat(vm, node.name)
