"""A VM's rules in the form the table asks for: selectors as keys, terms with signed weights.

Pure and small: one function from PlacementVm to CompiledVm. Knows no node.
"""

from __future__ import annotations

from msgspec import Struct

from aggregator.core.objects import Affinity, NodeAffinity, Toleration, VmAffinity, VmAffinityTerm
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

DO_NOT_SCHEDULE = "DoNotSchedule"
REQUIRED_AFFINITY_WEIGHT = 1  # kube-scheduler's hardPodAffinityWeight

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


class CompiledVm(Struct, frozen=True):
    """A VM and all its rules, ready to be asked."""

    vm: PlacementVm
    labels_key: LabelsKey
    nodes: NodeRules
    node_preferences: tuple[tuple[NodeTerm, int], ...]
    tolerations: tuple[Toleration, ...]
    affinity: tuple[Group, ...]
    anti_affinity: tuple[Group, ...]
    preferences: tuple[tuple[Group, int], ...]  # anti-affinity has a negative weight
    carried: tuple[tuple[Group, int], ...]  # what the VM, once seated, adds to others' scores
    spread_hard: tuple[Spread, ...]
    spread_soft: tuple[Spread, ...]


def compile_vm(vm: PlacementVm) -> CompiledVm:
    """Return the compiled rules of a VM."""
    affinity = vm.spec.affinity or Affinity()
    towards = affinity.vm_affinity or VmAffinity()
    away = affinity.vm_anti_affinity or VmAffinity()
    required = _groups(towards.required)
    preferences = _weighted(towards, 1) + _weighted(away, -1)
    hard, soft = _spread(vm)
    node_affinity = affinity.node_affinity or NodeAffinity()
    return CompiledVm(
        vm=vm,
        labels_key=labels_key(vm.labels),
        nodes=_node_rules(vm, node_affinity),
        node_preferences=tuple((compile_term(p.preference), p.weight) for p in node_affinity.preferred),
        tolerations=vm.spec.tolerations,
        affinity=required,
        anti_affinity=_groups(away.required),
        preferences=preferences,
        carried=preferences + tuple((group, REQUIRED_AFFINITY_WEIGHT) for group in required),
        spread_hard=hard,
        spread_soft=soft,
    )


def _node_rules(vm: PlacementVm, affinity: NodeAffinity) -> NodeRules:
    required = affinity.required
    terms = None if required is None else tuple(compile_term(t) for t in required.node_selector_terms)
    return NodeRules(selector=labels_key(vm.spec.node_selector), terms=terms)


def _groups(terms: tuple[VmAffinityTerm, ...]) -> tuple[Group, ...]:
    return tuple((compile_selector(t.label_selector), t.topology_key) for t in terms)


def _weighted(affinity: VmAffinity, sign: int) -> tuple[tuple[Group, int], ...]:
    return tuple((_groups((p.vm_affinity_term,))[0], sign * p.weight) for p in affinity.preferred)


def _spread(vm: PlacementVm) -> tuple[tuple[Spread, ...], tuple[Spread, ...]]:
    hard: list[Spread] = []
    soft: list[Spread] = []
    for constraint in vm.spec.topology_spread_constraints:
        selector = compile_selector(constraint.label_selector)
        spread = Spread(selector, constraint.topology_key, constraint.max_skew, int(selects(selector, vm.labels)))
        (hard if constraint.when_unsatisfiable == DO_NOT_SCHEDULE else soft).append(spread)
    return tuple(hard), tuple(soft)
