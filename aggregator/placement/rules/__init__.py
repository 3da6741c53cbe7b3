"""All rules, as data: filters in the order in which people read them, then scores.

A new rule is a new file and a line here.
"""

from __future__ import annotations

from aggregator.placement.rules.allocation import BalancedAllocation, LeastAllocated, MostAllocated
from aggregator.placement.rules.base import Filter as Filter
from aggregator.placement.rules.base import Score as Score
from aggregator.placement.rules.node_affinity import NodeAffinity
from aggregator.placement.rules.node_ready import NodeReady
from aggregator.placement.rules.node_resources_fit import NodeResourcesFit
from aggregator.placement.rules.node_unschedulable import NodeUnschedulable
from aggregator.placement.rules.taint_toleration import TaintToleration
from aggregator.placement.rules.topology_spread import TopologySpread
from aggregator.placement.rules.vm_affinity import VMAffinity
from aggregator.placement.types import HIGH_NODE_UTILIZATION, LOW_NODE_UTILIZATION, NO_SCORING

_taints, _nodes, _vms, _spread = TaintToleration(), NodeAffinity(), VMAffinity(), TopologySpread()
_least, _most, _balanced = LeastAllocated(), MostAllocated(), BalancedAllocation()

FILTERS: tuple[Filter, ...] = (
    NodeReady(),
    NodeUnschedulable(),
    _taints,
    _nodes,
    NodeResourcesFit(),
    _spread,
    _vms,
)
SCORES: tuple[Score, ...] = (_taints, _nodes, _vms, _spread, _least, _most, _balanced)

PROFILE_SCORES: dict[str, tuple[Score, ...]] = {
    LOW_NODE_UTILIZATION: (_taints, _nodes, _vms, _spread, _least, _balanced),
    HIGH_NODE_UTILIZATION: (_taints, _nodes, _vms, _spread, _most),
    NO_SCORING: (),
}
