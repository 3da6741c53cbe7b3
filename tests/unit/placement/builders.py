"""Builders that name only what matters to a test."""

from __future__ import annotations

from typing import Any

import msgspec

from aggregator.core.objects import Taint, VmSpec
from aggregator.placement.types import PlacementNode, PlacementVm

HOST = "virtward/hostname"
GIB = 2**30


def a_node(name: str = "n1", *, taints: tuple[Taint, ...] = (), **changed: Any) -> PlacementNode:
    """A node of 8 CPUs and 32 GiB, labelled with its own name."""
    labels = {HOST: name, **changed.pop("labels", {})}
    values = {"cpu_m": 8000, "memory_bytes": 32 * GIB, **changed}
    return PlacementNode(name=name, labels=labels, taints=taints, **values)


def a_vm(name: str = "v1", *, spec: dict[str, Any] | None = None, **changed: Any) -> PlacementVm:
    """A VM of 1 CPU and 1 GiB; spec as people write it."""
    values = {"cpu_m": 1000, "memory_bytes": GIB, **changed}
    return PlacementVm(name=name, spec=msgspec.convert(spec or {}, VmSpec), **values)


def a_taint(key: str = "dedicated", value: str = "", effect: str = "NoSchedule") -> Taint:
    return msgspec.convert({"key": key, "value": value, "effect": effect}, Taint)


def away_from(app: str, key: str = HOST) -> dict[str, Any]:
    """A required anti-affinity."""
    term = {"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}}
    return {"affinity": {"vmAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}


def near(app: str, key: str = HOST) -> dict[str, Any]:
    """A required affinity."""
    term = {"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}}
    return {"affinity": {"vmAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}


def spread(app: str, key: str = "zone", skew: int = 1, when: str = "DoNotSchedule") -> dict[str, Any]:
    constraint = {"maxSkew": skew, "topologyKey": key, "whenUnsatisfiable": when}
    return {"topologySpreadConstraints": [{**constraint, "labelSelector": {"matchLabels": {"app": app}}}]}
