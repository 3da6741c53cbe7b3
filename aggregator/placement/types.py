"""What placement speaks: nodes and VMs as the rules see them, settings, and the verdict.

Knows the shapes only and imports no numpy, so that everybody may import it. Must not know
where the numbers come from: the core fills them from its state, `virtward place` from text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct

from aggregator.core.choice import Contender
from aggregator.core.objects import Node, Taint, VirtualMachine, VmSpec
from aggregator.core.policy import ClusterConfig, PlacementSettings
from aggregator.placement.needs import NO_NEEDS
from fleet.model import HostOffers, Needs
from fleet.units import parse_bytes, parse_cpu_m

LOW_NODE_UTILIZATION = "LowNodeUtilization"
HIGH_NODE_UTILIZATION = "HighNodeUtilization"
NO_SCORING = "NoScoring"
PROFILES = (LOW_NODE_UTILIZATION, HIGH_NODE_UTILIZATION, NO_SCORING)


class PlacementNode(Struct, frozen=True, kw_only=True):
    """A node as the rules see it.

    taints: the operator's and the system's together. cpu_m (millicores) and memory_bytes are
    allocatable, overcommit included. ready: False while the node must take no VM at all. offers: what
    its agent says it has for domains; None: nothing is known.
    """

    name: str
    labels: dict[str, str] = {}
    taints: tuple[Taint, ...] = ()
    unschedulable: bool = False
    ready: bool = True
    cpu_m: int = 0
    memory_bytes: int = 0
    offers: HostOffers | None = None

    @classmethod
    def of(cls, node: Node, *, ready: bool = True) -> PlacementNode:
        """Read a Node; ValueError if its allocatable is no quantity."""
        status = node.status
        allocatable = status.allocatable if status else {}
        return cls(
            name=node.metadata.name,
            labels=node.metadata.labels,
            taints=node.spec.taints + (status.taints if status else ()),
            unschedulable=node.spec.unschedulable,
            ready=ready,
            cpu_m=parse_cpu_m(allocatable.get("cpu", "0")),
            memory_bytes=parse_bytes(allocatable.get("memory", "0")),
        )


class PlacementVm(Struct, frozen=True, kw_only=True):
    """A VM as the rules see it; cpu_m (millicores) and memory_bytes are what it requests.

    needs: of the host it would start on.
    """

    name: str
    labels: dict[str, str] = {}
    spec: VmSpec = VmSpec()
    cpu_m: int = 0
    memory_bytes: int = 0
    needs: Needs = NO_NEEDS

    @classmethod
    def of(cls, vm: VirtualMachine, *, cpu_m: int = 0, memory_bytes: int = 0) -> PlacementVm:
        """Read a VirtualMachine; its written requests win over the numbers of its domain.

        ValueError if a request is no quantity.
        """
        written = vm.spec.resources.requests if vm.spec.resources else {}
        return cls(
            name=vm.metadata.name,
            labels=vm.metadata.labels,
            spec=vm.spec,
            cpu_m=parse_cpu_m(written["cpu"]) if "cpu" in written else cpu_m,
            memory_bytes=parse_bytes(written["memory"]) if "memory" in written else memory_bytes,
        )


class ScoreSettings(Struct, frozen=True, kw_only=True):
    """Which score rules speak and how loud; a weight not named is the default's.

    solver_budget_s: how long a batch may be re-seated for those whom greedy placement leaves; 0: not at all.
    """

    profile: str = LOW_NODE_UTILIZATION
    weights: Mapping[str, int] = {}
    solver_budget_s: float = 0.0

    @classmethod
    def of(cls, config: ClusterConfig) -> ScoreSettings:
        """Read the settings of a fleet.

        The loop must not think for longer than selfLagMax, or it would doubt its own eyes: so that bounds the budget.
        """
        budget_s = min(float(config.placement.solver_budget), float(config.self_lag_max))
        return cls(profile=config.profile, weights=config.placement.weights, solver_budget_s=budget_s)

    def weight(self, rule: str) -> int:
        """Return the weight of a score rule."""
        return self.weights.get(rule, DEFAULT_WEIGHTS.get(rule, 1))


DEFAULT_WEIGHTS: Mapping[str, int] = PlacementSettings().weights


class Verdict(Struct, frozen=True, kw_only=True):
    """What placement says about one VM.

    feasible: nodes by name. rejected: node -> every rule that rejects it, sorted. scores: rule ->
    feasible node -> 0..100 before weights. node: the choice, None if no node is feasible.
    rotation: the counter to hand in for the next VM (product.md, placement). contenders: the choice and the next
    best, where they were asked for; fits: how many nodes would have done, likewise.
    """

    vm: str
    feasible: tuple[str, ...] = ()
    rejected: dict[str, tuple[str, ...]] = {}
    scores: dict[str, dict[str, int]] = {}
    node: str | None = None
    rotation: int = 0
    contenders: tuple[Contender, ...] = ()
    fits: int = 0


Seat = tuple[PlacementVm, str]
SeatedVms = Iterable[Seat]
Excluded = Mapping[str, str]  # node -> the name of the reason that stands in `rejected`
