"""Definitions of deleted VMs on nodes that were away when they were deleted (S8).

Each is undefined when its node comes back, for the recorded reason that this VM was deleted at this epoch and
that this node knew it; never because a definition is unknown. Pure: decides; kept by fold_leftovers.py.
"""

from __future__ import annotations

from aggregator.core.arming import why_held
from aggregator.core.draft import Draft
from aggregator.core.lookups import can_order
from aggregator.core.state import Leftover, NodeRecord
from fleet.messages import UndefineVm

AGAIN_S = 300.0  # a node that would not undefine it is asked again so much later


def decide_leftovers(draft: Draft) -> None:
    """Have what is left of deleted VMs undefined."""
    for left in draft.state.leftovers.values():
        node = draft.state.nodes.get(left.node)
        if node is not None and _may_undefine(draft, node, left):
            reason = f"{left.name} was deleted while {node.name} was away"
            draft.order_removed(node, left, UndefineVm(reason="deleted"), reason=reason)


def _may_undefine(draft: Draft, node: NodeRecord, left: Leftover) -> bool:
    if left.session is None or left.session != node.session or not can_order(node):
        return False
    if why_held(draft.state, node=node.name) or not draft.due(left.asked_at + AGAIN_S if left.asked_at else 0.0):
        return False
    return not any(r.order.uuid == left.uuid and r.node == left.node for r in draft.state.orders.values())
