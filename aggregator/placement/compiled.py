"""A VM's rules in the form the table asks for: selectors as keys, terms with signed weights.

Pure and small: from PlacementVm to CompiledVm. Knows no node. VMs with equal rules share one Rules,
with equal demands of a node one Demands, with equal requests one Request: those compare by identity
and are the keys under which answers are remembered.
"""

from __future__ import annotations

import numpy as np
from msgspec import Struct

from aggregator.core.objects import Affinity, NodeAffinity, Toleration, VmAffinity, VmAffinityTerm
from aggregator.placement.columns import FloatArray
from aggregator.placement.needs import NO_NEEDS
from aggregator.placement.recent import Recent
from aggregator.placement.selectors import (
    LabelsKey,
    NodeTerm,
    Selector,
    compile_selector,
    compile_term,
    labels_key,
    selects,
)
from aggregator.placement.types import PlacementVm
from fleet.model import Needs

DO_NOT_SCHEDULE = "DoNotSchedule"
REQUIRED_AFFINITY_WEIGHT = 1  # kube-scheduler's hardPodAffinityWeight
RULES_MAX = 4096  # different Rules that are shared; those of seated VMs live on with them
REQUESTS_MAX = 4096  # different Requests that are shared, likewise

Group = tuple[Selector, str]  # VMs that a selector selects, topology key


class Spread(Struct, frozen=True):
    """One spread constraint. self_match: 1 if the VM counts itself, else 0."""

    selector: Selector
    key: str
    max_skew: int
    self_match: int


class NodeRules(Struct, frozen=True):
    """Which nodes a VM demands. terms: None means no demand, an empty tuple means no node."""

    selector: LabelsKey = ()
    terms: tuple[NodeTerm, ...] | None = None


class Demands(Struct, frozen=True, eq=False):
    """All that lets or keeps a VM onto nodes whatever else runs there."""

    nodes: NodeRules
    tolerations: tuple[Toleration, ...]
    needs: Needs = NO_NEEDS

    @property
    def holds(self) -> bool:
        """Whether it takes something away from others on its node, beside CPU and memory."""
        return self.needs.huge_bytes > 0 or bool(self.needs.devices)


class Rules(Struct, frozen=True, eq=False):
    """All rules of a VM, and the labels by which others' rules mean it.

    preferences: anti-affinity has a negative weight. carried: what the VM, once seated, adds to others' scores.
    """

    labels_key: LabelsKey
    demands: Demands
    node_preferences: tuple[tuple[NodeTerm, int], ...]
    affinity: tuple[Group, ...]
    anti_affinity: tuple[Group, ...]
    preferences: tuple[tuple[Group, int], ...]
    carried: tuple[tuple[Group, int], ...]
    spread_hard: tuple[Spread, ...]
    spread_soft: tuple[Spread, ...]


class Request(Struct, frozen=True, eq=False):
    """What a VM requests, as a column of two (cpu, memory).

    room: what must be free for it; what is not requested needs no room, not even where too much is given away.
    """

    sizes: FloatArray
    room: FloatArray


class CompiledVm(Struct, frozen=True, eq=False):
    """A VM and all its rules, ready to be asked."""

    vm: PlacementVm
    rules: Rules
    request: Request


_RuleParts = tuple[
    LabelsKey,
    NodeRules,
    tuple[Toleration, ...],
    tuple[tuple[NodeTerm, int], ...],
    tuple[Group, ...],
    tuple[Group, ...],
    tuple[tuple[Group, int], ...],
    tuple[Spread, ...],
    tuple[Spread, ...],
    Needs,
]


class Compiler:
    """Compiles VMs and lets equal ones share."""

    def __init__(self) -> None:
        self._rules: Recent[_RuleParts, Rules] = Recent(RULES_MAX)
        self._demands: Recent[tuple[NodeRules, tuple[Toleration, ...], Needs], Demands] = Recent(RULES_MAX)
        self._requests: Recent[tuple[int, int], Request] = Recent(REQUESTS_MAX)

    def compile(self, vm: PlacementVm) -> CompiledVm:
        """Return the compiled form of a VM."""
        parts = _parts(vm)
        rules = self._rules.get(parts)
        if rules is None:
            rules = self._rules.put(parts, self._share(parts))
        size = (vm.cpu_m, vm.memory_bytes)
        request = self._requests.get(size)
        if request is None:
            request = self._requests.put(size, _request(size))
        return CompiledVm(vm, rules, request)

    def _share(self, parts: _RuleParts) -> Rules:
        labels, nodes, tolerations, node_preferences, near, away, preferences, hard, soft, needs = parts
        demands = self._demands.get((nodes, tolerations, needs))
        if demands is None:
            demands = self._demands.put((nodes, tolerations, needs), Demands(nodes, tolerations, needs))
        carried = preferences + tuple((group, REQUIRED_AFFINITY_WEIGHT) for group in near)
        return Rules(labels, demands, node_preferences, near, away, preferences, carried, hard, soft)


def _request(size: tuple[int, int]) -> Request:
    sizes = np.array([size], dtype=np.float64).T
    return Request(sizes, np.where(sizes > 0, sizes, -np.inf))


NO_DEMAND = NodeRules()
_NO_AFFINITY = Affinity()
_NO_NODE_AFFINITY = NodeAffinity()
_NO_VM_AFFINITY = VmAffinity()


def _parts(vm: PlacementVm) -> _RuleParts:
    spec = vm.spec
    affinity = spec.affinity or _NO_AFFINITY
    towards = affinity.vm_affinity or _NO_VM_AFFINITY
    away = affinity.vm_anti_affinity or _NO_VM_AFFINITY
    node_affinity = affinity.node_affinity or _NO_NODE_AFFINITY
    hard, soft = _spread(vm) if spec.topology_spread_constraints else ((), ())
    return (
        labels_key(vm.labels),
        _node_rules(vm, node_affinity),
        spec.tolerations,
        tuple((compile_term(p.preference), p.weight) for p in node_affinity.preferred),
        _groups(towards.required),
        _groups(away.required),
        _weighted(towards, 1) + _weighted(away, -1),
        hard,
        soft,
        vm.needs,
    )


def _node_rules(vm: PlacementVm, affinity: NodeAffinity) -> NodeRules:
    required = affinity.required
    if required is None and not vm.spec.node_selector:
        return NO_DEMAND
    terms = None if required is None else tuple(compile_term(t) for t in required.node_selector_terms)
    return NodeRules(selector=labels_key(vm.spec.node_selector), terms=terms)


def _groups(terms: tuple[VmAffinityTerm, ...]) -> tuple[Group, ...]:
    return tuple((compile_selector(t.label_selector), t.topology_key) for t in terms) if terms else ()


def _weighted(affinity: VmAffinity, sign: int) -> tuple[tuple[Group, int], ...]:
    if not affinity.preferred:
        return ()
    return tuple((_groups((p.vm_affinity_term,))[0], sign * p.weight) for p in affinity.preferred)


def _spread(vm: PlacementVm) -> tuple[tuple[Spread, ...], tuple[Spread, ...]]:
    hard: list[Spread] = []
    soft: list[Spread] = []
    for constraint in vm.spec.topology_spread_constraints:
        selector = compile_selector(constraint.label_selector)
        spread = Spread(selector, constraint.topology_key, constraint.max_skew, int(selects(selector, vm.labels)))
        (hard if constraint.when_unsatisfiable == DO_NOT_SCHEDULE else soft).append(spread)
    return tuple(hard), tuple(soft)
