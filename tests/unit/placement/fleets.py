"""Hypothesis strategies for small fleets in which every rule has something to say."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st

from aggregator.core.objects import Taint, VmSpec
from aggregator.placement.types import PlacementNode, PlacementVm
from fleet.model import HostOffers, Needs

HOST = "virtward/hostname"
TOPOLOGY = (HOST, "zone", "rack")
GIB = 2**30

_labels = st.fixed_dictionaries({}, optional={"app": st.sampled_from("ab"), "tier": st.sampled_from("xy")})


def _requirement(keys: tuple[str, ...], values: str, operators: tuple[str, ...]) -> st.SearchStrategy[dict[str, Any]]:
    def build(drawn: tuple[str, str, list[str]]) -> dict[str, Any]:
        key, operator, chosen = drawn
        if operator in ("Exists", "DoesNotExist"):
            chosen = []
        return {"key": key, "operator": operator, "values": chosen[:1] if operator in ("Gt", "Lt") else chosen}

    words = st.lists(st.sampled_from(values), min_size=1, max_size=2)
    return st.tuples(st.sampled_from(keys), st.sampled_from(operators), words).map(build)


_SETS = ("In", "NotIn", "Exists", "DoesNotExist")
_selector = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "matchLabels": _labels,
        "matchExpressions": st.lists(_requirement(("app", "tier"), "abxy", _SETS), max_size=2),
    },
)
_vm_term = st.fixed_dictionaries({"topologyKey": st.sampled_from(TOPOLOGY), "labelSelector": _selector})
_weight = st.integers(1, 100)
_vm_affinity = st.fixed_dictionaries(
    {},
    optional={
        "requiredDuringSchedulingIgnoredDuringExecution": st.lists(_vm_term, max_size=2),
        "preferredDuringSchedulingIgnoredDuringExecution": st.lists(
            st.fixed_dictionaries({"weight": _weight, "vmAffinityTerm": _vm_term}), max_size=2
        ),
    },
)
_field = st.lists(st.sampled_from(("n0", "n1")), min_size=1, max_size=1).flatmap(
    lambda names: st.sampled_from(("In", "NotIn")).map(
        lambda operator: {"key": "metadata.name", "operator": operator, "values": names}
    )
)
_node_term = st.fixed_dictionaries(
    {},
    optional={
        "matchExpressions": st.lists(_requirement(("zone", "gen"), "0123", (*_SETS, "Gt", "Lt")), max_size=2),
        "matchFields": st.lists(_field, max_size=1),
    },
)
_node_affinity = st.fixed_dictionaries(
    {},
    optional={
        "requiredDuringSchedulingIgnoredDuringExecution": st.lists(_node_term, min_size=1, max_size=2).map(
            lambda terms: {"nodeSelectorTerms": terms}
        ),
        "preferredDuringSchedulingIgnoredDuringExecution": st.lists(
            st.fixed_dictionaries({"weight": _weight, "preference": _node_term}), max_size=2
        ),
    },
)
_toleration = st.fixed_dictionaries(
    {"operator": st.sampled_from(("Equal", "Exists"))},
    optional={
        "key": st.sampled_from(("t", "u", "virtward/unschedulable")),
        "effect": st.sampled_from(("NoSchedule", "PreferNoSchedule", "NoExecute")),
        "value": st.sampled_from(("", "1")),
    },
)
_spread = st.fixed_dictionaries(
    {
        "maxSkew": st.integers(1, 2),
        "topologyKey": st.sampled_from(TOPOLOGY),
        "whenUnsatisfiable": st.sampled_from(("DoNotSchedule", "ScheduleAnyway")),
        "labelSelector": _selector,
    }
)
_spec = st.fixed_dictionaries(
    {},
    optional={
        "affinity": st.fixed_dictionaries(
            {}, optional={"nodeAffinity": _node_affinity, "vmAffinity": _vm_affinity, "vmAntiAffinity": _vm_affinity}
        ),
        "nodeSelector": st.fixed_dictionaries(
            {}, optional={"gen": st.sampled_from("12"), "zone": st.sampled_from("01")}
        ),
        "tolerations": st.lists(_toleration, max_size=2),
        "topologySpreadConstraints": st.lists(_spread, max_size=2),
        "restartPriority": st.sampled_from((100, 500)),
    },
)
_taint = st.fixed_dictionaries(
    {
        "key": st.sampled_from(("t", "u")),
        "value": st.sampled_from(("", "1")),
        "effect": st.sampled_from(("NoSchedule", "PreferNoSchedule", "NoExecute")),
    }
)


_few = st.lists(st.sampled_from("ab"), max_size=2, unique=True).map(tuple)
_told = st.one_of(st.none(), _few)
_offers = st.one_of(
    st.none(),
    st.builds(
        HostOffers,
        arch=st.sampled_from("xy"),
        domain_types=_told,
        machines=_told,
        firmwares=_told,
        cpu_models=_told,
        interfaces=_told,
        networks=_told,
        pools=_told,
        secrets=_told,
        mounts=_told,
        cpu_features=_told,
        huge_pages=st.sampled_from((None, (), ((2, 0),), ((2, 3), (4, 1)), ((4, 2),))),
        devices=st.one_of(
            st.none(), st.lists(st.sampled_from(("usb 1:1", "usb 1:2")), max_size=3).map(sorted).map(tuple)
        ),
    ),
)
_one = st.sampled_from(("", "", "a", "b"))
_some = st.one_of(st.just(()), _few)
_needs = st.one_of(
    st.just(Needs()),
    st.builds(
        Needs,
        domain_type=_one,
        arch=st.sampled_from(("", "x")),
        machine=_one,
        firmware=_one,
        cpu_model=_one,
        interfaces=_some,
        networks=_some,
        pools=_some,
        secrets=_some,
        mounts=_some,
        guest_cpu=_some,
        huge_page_kib=st.sampled_from((0, 2, 4)),
        huge_bytes=st.sampled_from((0, 0, 2048, 4096)),
        devices=st.sampled_from(((), (), ("usb 1:1",), ("usb 1:1", "usb 1:1"), ("usb 1:1", "usb 1:2"))),
    ),
)


@st.composite
def a_placement_node(draw: st.DrawFn, name: str) -> PlacementNode:
    optional = {"zone": st.sampled_from("012"), "rack": st.sampled_from("01"), "gen": st.sampled_from(("1", "2", "x"))}
    labels = draw(st.fixed_dictionaries({}, optional=optional))
    return PlacementNode(
        name=name,
        labels={**labels, **({HOST: name} if draw(st.integers(0, 9)) else {})},
        taints=msgspec.convert(draw(st.lists(_taint, max_size=1)), tuple[Taint, ...]),
        unschedulable=draw(st.integers(0, 9)) == 0,
        ready=draw(st.integers(0, 9)) > 0,
        cpu_m=draw(st.sampled_from((0, 4000, 7000))),
        memory_bytes=draw(st.sampled_from((0, 8 * GIB, 13 * GIB))),
        offers=draw(_offers),
    )


@st.composite
def a_placement_vm(draw: st.DrawFn, name: str) -> PlacementVm:
    return PlacementVm(
        name=name,
        labels=draw(_labels),
        spec=msgspec.convert(draw(_spec), VmSpec),
        cpu_m=draw(st.sampled_from((0, 500, 1500))),
        memory_bytes=draw(st.sampled_from((0, GIB, 3 * GIB + 1))),
        needs=draw(_needs),
    )


@st.composite
def fleets(draw: st.DrawFn) -> tuple[list[PlacementNode], list[tuple[PlacementVm, PlacementNode]], PlacementVm]:
    """Draw nodes, seated VMs and a VM to be judged."""
    nodes = [draw(a_placement_node(f"n{place}")) for place in range(draw(st.integers(1, 5)))]
    seats = [
        (draw(a_placement_vm(f"r{place}")), draw(st.sampled_from(nodes))) for place in range(draw(st.integers(0, 6)))
    ]
    return nodes, seats, draw(a_placement_vm("new"))
