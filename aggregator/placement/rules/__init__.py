"""All rules, as data, by what their answer hangs on (base.py).

A new rule is a new file and a line here.
"""

from __future__ import annotations

from aggregator.placement.rules.allocation import BalancedAllocation, LeastAllocated, MostAllocated
from aggregator.placement.rules.base import Filter as Filter
from aggregator.placement.rules.base import Score as Score
from aggregator.placement.rules.base import SlotFilter as SlotFilter
from aggregator.placement.rules.base import SlotScore as SlotScore
from aggregator.placement.rules.host_offers import (
    CPUCompatible,
    HypervisorCapability,
    MachineType,
    NetworkReachable,
    StorageReachable,
)
from aggregator.placement.rules.host_stock import HostDevices, HugePagesFit
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

NODE_FILTERS: tuple[Filter, ...] = (
    NodeReady(),
    NodeUnschedulable(),
    _taints,
    _nodes,
    CPUCompatible(),
    MachineType(),
    HypervisorCapability(),
    NetworkReachable(),
    StorageReachable(),
)
SLOT_FILTERS: tuple[SlotFilter, ...] = (NodeResourcesFit(), HugePagesFit(), HostDevices())
FLEET_FILTERS: tuple[Filter, ...] = (_spread, _vms)
FILTERS: tuple[Filter, ...] = (*NODE_FILTERS, *SLOT_FILTERS, *FLEET_FILTERS)

FLEET_SCORES: tuple[Score, ...] = (_taints, _nodes, _vms, _spread)
SLOT_SCORES: tuple[SlotScore, ...] = (_least, _most, _balanced)
SCORES: tuple[Score, ...] = (*FLEET_SCORES, *SLOT_SCORES)

PROFILE_SCORES: dict[str, tuple[Score, ...]] = {
    LOW_NODE_UTILIZATION: (*FLEET_SCORES, _least, _balanced),
    HIGH_NODE_UTILIZATION: (*FLEET_SCORES, _most),
    NO_SCORING: (),
}
