"""What is said of placement rules before they are written: each sentence from a rule that deserves it, and no other."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from aggregator.core.linting import lint
from aggregator.core.objects import NodeSelectorTerm, VmSpec
from aggregator.placement.contradiction import contradiction_in
from aggregator.placement.types import PlacementVm
from tests.unit.core.fleet import GIB, Fleet
from tests.unit.placement.builders import HOST, away_from, near

ALL = {"runStrategy": "Always"}


def a_vm(name: str = "web", cpu_m: int = 1000, labels: dict[str, str] | None = None, **spec: Any) -> PlacementVm:
    written = msgspec.convert({**ALL, **spec}, VmSpec)
    return PlacementVm(name=name, labels=labels or {}, spec=written, cpu_m=cpu_m, memory_bytes=GIB)


def a_fleet() -> Fleet:
    """Three nodes of 8 CPUs, two of them in zone a."""
    fleet = Fleet(nodes=0)
    for name, zone in (("n1", "a"), ("n2", "a"), ("n3", "b")):
        fleet.join(name, labels={"zone": zone})
    return fleet


def node_terms(*terms: list[tuple[str, str, list[str]]]) -> dict[str, Any]:
    written = [{"matchExpressions": [{"key": k, "operator": o, "values": v} for k, o, v in term]} for term in terms]
    required = {"nodeSelectorTerms": written}
    return {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}}


@pytest.mark.parametrize(
    ("vm", "words"),
    [
        (a_vm(nodeSelector={"zone": "a"}), None),
        (
            a_vm(nodeSelector={"zone": "a"}, **node_terms([("zone", "In", ["b", "c"])])),
            "no node can match its nodeSelector and required nodeAffinity: zone In a and zone In b, c",
        ),
        (a_vm(nodeSelector={"zone": "a"}, **node_terms([("zone", "In", ["b"])], [("zone", "Exists", [])])), None),
        (
            a_vm(affinity={**near("db")["affinity"], **away_from("db")["affinity"]}),
            "its required vmAffinity and vmAntiAffinity name the same VMs and topologyKey; no node can satisfy both",
        ),
        (
            a_vm(cpu_m=9000),
            (
                "no node could ever hold it, even empty: n1: NodeResourcesFit (8 CPU free, 9 requested); "
                "n2: NodeResourcesFit (8 CPU free, 9 requested); n3: NodeResourcesFit (8 CPU free, 9 requested)"
            ),
        ),
        (
            a_vm(nodeSelector={"zone": "b"}),
            "only node n3 could hold it, so it would stay down when that one is lost",
        ),
        (
            a_vm(tolerations=[{"operator": "Exists"}]),
            (
                "it tolerates virtward/unreachable:NoExecute without tolerationSeconds, so after the loss of its node "
                "it is never started elsewhere; name the keys that it should tolerate, or give tolerationSeconds"
            ),
        ),
        (a_vm(tolerations=[{"operator": "Exists", "tolerationSeconds": 60}]), None),
        (a_vm(tolerations=[{"key": "maintenance", "operator": "Exists"}]), None),
        (a_vm(runStrategy="Manual", tolerations=[{"operator": "Exists"}]), None),
    ],
)
def test_one_vm_alone(vm: PlacementVm, words: str | None) -> None:
    fleet = a_fleet()
    assert lint(fleet.state, [vm]) == ([] if words is None else [f"VM web: {words}"])


def members(count: int, key: str = HOST) -> list[PlacementVm]:
    return [a_vm(f"web-{number}", labels={"app": "web"}, **away_from("web", key)) for number in range(count)]


def test_a_group_kept_apart_is_counted_with_those_that_are_there() -> None:
    fleet = a_fleet()
    assert lint(fleet.state, members(2)) == []
    told = lint(fleet.state, members(3))
    assert told[0] == (
        f"VM web-0: its required vmAntiAffinity keeps 3 VMs apart by {HOST} on as many nodes: "
        "when one is lost, its VM has nowhere to go"
    )
    for vm in members(3):
        fleet.apply(vm.name, vm.spec, **vm.labels)
    fourth = members(4)[3]
    assert lint(fleet.state, [fourth]) == [
        (
            f"VM web-3: its required vmAntiAffinity keeps 4 VMs apart by {HOST}, and they may use only 3 nodes: "
            "1 of them can never run"
        )
    ]
    assert lint(fleet.state, members(3)[:1]) == [told[0]]  # written again, it is not counted twice


def test_a_group_kept_apart_by_zone_has_as_many_places_as_there_are_zones() -> None:
    assert lint(a_fleet().state, members(3, "zone"))[0].endswith(
        "and they may use only 2 values of zone: 1 of them can never run"
    )


def test_a_fleet_that_is_down_or_cordoned_or_busy_is_no_reason() -> None:
    fleet = a_fleet()
    for name in fleet.state.nodes:
        fleet.silent.add(name)
    fleet.run(60)
    assert lint(fleet.state, [a_vm()]) == []


def test_nodes_that_have_not_told_their_size_or_are_still_to_come_might_hold_anything() -> None:
    fleet = a_fleet()
    assert lint(fleet.state, [a_vm(cpu_m=9000)], unheld={"web"}) == []
    fleet.state.nodes["n2"].facts = None
    assert lint(fleet.state, [a_vm(cpu_m=9000)]) == []


@pytest.mark.parametrize(
    ("selector", "terms", "words"),
    [
        ({}, [[("a", "Exists", []), ("a", "DoesNotExist", [])]], "a DoesNotExist and a Exists"),
        ({}, [[("a", "Gt", ["5"]), ("a", "Lt", ["6"])]], "a Gt 5 and a Lt 6"),
        ({}, [[("a", "Gt", ["5"]), ("a", "Lt", ["7"])]], ""),
        ({}, [[("a", "In", ["1", "2"]), ("a", "NotIn", ["1"])]], ""),
        ({}, [[("a", "In", ["1"]), ("a", "NotIn", ["1"])]], "a In 1 and a NotIn 1"),
        ({"a": "1"}, [[("a", "DoesNotExist", [])]], "a DoesNotExist and a In 1"),
        ({"a": "1"}, [[("b", "Exists", [])]], ""),
        ({}, [[("a", "NotIn", ["1"]), ("a", "NotIn", ["2"])]], ""),
        ({}, [[]], "a term without any expression matches no node"),
        ({}, [], "there is no term, which matches no node"),
    ],
)
def test_contradictions(selector: dict[str, str], terms: list[list[tuple[str, str, list[str]]]], words: str) -> None:
    written = [
        msgspec.convert(
            {"matchExpressions": [{"key": k, "operator": o, "values": v} for k, o, v in term]}, NodeSelectorTerm
        )
        for term in terms
    ]
    told = contradiction_in(selector, written)
    assert {*told.split(" and ")} == {*words.split(" and ")}
