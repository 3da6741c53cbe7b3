"""What judge and place_batch promise their callers."""

from __future__ import annotations

from typing import Any

import pytest

from aggregator.core.policy import ClusterConfig, read_config
from aggregator.placement.place import build_table, judge, place_batch, reasons
from aggregator.placement.types import PlacementNode, PlacementVm, ScoreSettings
from tests.unit.placement.builders import GIB, HOST, a_node, a_taint, a_vm, away_from, near, spread

LOW = ScoreSettings()
HIGH = ScoreSettings(profile="HighNodeUtilization")
PLAIN = ScoreSettings(profile="NoScoring")


def test_no_node_at_all_is_an_answer() -> None:
    verdict = judge(a_vm(), build_table([]), LOW, 7)
    assert (verdict.node, verdict.feasible, verdict.rejected, verdict.rotation) == (None, (), {}, 7)
    assert place_batch([], build_table([]), LOW) == []


def test_the_emptier_node_is_chosen_and_the_fuller_one_by_high_utilization() -> None:
    table = build_table([a_node("n1"), a_node("n2")], [(a_vm("r"), "n1")])
    assert judge(a_vm(), table, LOW).node == "n2"
    assert judge(a_vm(), table, HIGH).node == "n1"


def test_equal_scores_go_to_the_fewest_vms_then_round_by_name() -> None:
    """The VMs without requests leave all scores equal."""
    table = build_table([a_node("n1"), a_node("n2"), a_node("n3")], [(a_vm("r", cpu_m=0, memory_bytes=0), "n1")])
    first = judge(a_vm(), table, LOW)
    assert (first.node, first.rotation) == ("n2", 2)
    second = judge(a_vm(), table, LOW, first.rotation)
    assert (second.node, second.rotation) == ("n3", 0)


def test_without_scoring_the_next_feasible_node_after_the_last_is_taken() -> None:
    table = build_table([a_node("n1"), a_node("n2", unschedulable=True), a_node("n3")])
    taken, rotation = [], 0
    for _ in range(4):
        verdict = judge(a_vm(), table, PLAIN, rotation)
        taken.append(verdict.node)
        rotation = verdict.rotation
    assert taken == ["n1", "n3", "n1", "n3"]


def test_a_vm_is_not_in_its_own_way_but_an_excluded_node_is_none() -> None:
    """A migration: the VM's own seat must neither fill the zone nor be chosen again."""
    vm = a_vm("web", labels={"app": "web"}, spec=away_from("web", "zone"), cpu_m=8000)
    table = build_table([a_node("n1", labels={"zone": "a"}), a_node("n2", labels={"zone": "a"})], [(vm, "n1")])
    assert judge(vm, table, LOW).feasible == ("n1", "n2")
    moved = judge(vm, table, LOW, excluded={"n1": "MigrationSource", "gone": "MigrationSource"})
    assert (moved.node, moved.rejected) == ("n2", {"n1": ("MigrationSource",)})
    assert table.seats_of("web") == ("n1",)


def test_both_ends_of_a_migration_hold_their_room() -> None:
    vm = a_vm("web", cpu_m=8000)
    table = build_table([a_node("n1"), a_node("n2")], [(vm, "n1"), (vm, "n2")])
    assert set(judge(a_vm("other"), table, LOW).rejected) == {"n1", "n2"}
    table.unseat("web", "n1")
    assert judge(a_vm("other"), table, LOW).node == "n1"


def test_a_seat_on_an_unknown_node_counts_nowhere_and_seating_there_is_an_error() -> None:
    table = build_table([a_node("n1")], [(a_vm("r"), "gone")])
    assert table.seats_of("r") == ()
    with pytest.raises(KeyError):
        table.seat(a_vm(), "gone")


def test_a_vm_seated_again_counts_once_with_its_new_requests() -> None:
    table = build_table([a_node("n1")])
    table.seat(a_vm("r", cpu_m=8000), "n1")
    table.seat(a_vm("r", cpu_m=1000), "n1")
    assert judge(a_vm(cpu_m=7000), table, LOW).node == "n1"
    assert judge(a_vm(cpu_m=7001), table, LOW).node is None
    table.unseat("r", "n1")
    table.unseat("r", "n1")
    assert judge(a_vm(cpu_m=8000), table, LOW).node == "n1"


def test_a_table_grows_with_its_vms_in_place() -> None:
    table = build_table([a_node("n00")], [(a_vm("r", cpu_m=8000), "n00")])
    for number in range(1, 40):
        table.put_node(a_node(f"n{number:02}"))
    verdict = judge(a_vm(), table, LOW)
    assert len(verdict.feasible) == 39
    assert set(verdict.rejected) == {"n00"}


def test_a_node_that_is_replaced_keeps_its_vms() -> None:
    table = build_table([a_node("n1")], [(a_vm("r", labels={"app": "web"}), "n1")])
    vm = a_vm(spec=away_from("web", "zone"))
    assert judge(vm, table, LOW).node == "n1"
    table.put_node(a_node("n1", labels={"zone": "a"}))
    assert judge(vm, table, LOW).rejected == {"n1": ("VMAffinity",)}


def test_a_batch_goes_by_priority_then_size_and_answers_in_the_given_order() -> None:
    small = a_vm("small", cpu_m=1000)
    big = a_vm("big", cpu_m=7500)
    urgent = a_vm("urgent", cpu_m=1000, spec={"restartPriority": 900})
    table = build_table([a_node("n1")])
    placed = {v.vm: v.node for v in place_batch([small, big], table, LOW)}
    assert placed == {"small": None, "big": "n1"}
    verdicts = place_batch([small, big, urgent], table, LOW)
    assert [(v.vm, v.node) for v in verdicts] == [("small", "n1"), ("big", None), ("urgent", "n1")]


def test_a_batch_reserves_as_it_goes_and_keeps_the_seats_if_asked() -> None:
    apart = [a_vm(f"w{n}", labels={"app": "web"}, spec=away_from("web")) for n in range(3)]
    table = build_table([a_node("n1"), a_node("n2")])
    verdicts = place_batch(apart, table, LOW, keep=True)
    assert sorted(v.node for v in verdicts if v.node) == ["n1", "n2"]
    refused = next(v for v in verdicts if v.node is None)
    assert refused.rejected == {"n1": ("VMAffinity",), "n2": ("VMAffinity",)}
    assert set(judge(a_vm(labels={"app": "web"}), table, LOW).rejected) == {"n1", "n2"}


def test_the_first_of_a_group_may_go_where_its_topology_is_known() -> None:
    vm = a_vm(labels={"app": "web"}, spec=near("web", "zone"))
    table = build_table([a_node("n1"), a_node("n2", labels={"zone": "a"})])
    assert judge(vm, table, LOW).feasible == ("n2",)


CONFIGURED: list[tuple[dict[str, Any], str]] = [
    ({}, "n2"),
    ({"placement": {"weights": {"NodeAffinity": 0}}}, "n1"),
    ({"profile": "HighNodeUtilization"}, "n2"),
]


@pytest.mark.parametrize(("config", "node"), CONFIGURED)
def test_weights_and_profile_come_from_the_clusters_settings(config: dict[str, Any], node: str) -> None:
    preference = {"weight": 1, "preference": {"matchExpressions": [{"key": HOST, "operator": "In", "values": ["n2"]}]}}
    spec = {"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [preference]}}}
    table = build_table([a_node("n1"), a_node("n2")])
    settings = ScoreSettings.of(read_config(config))
    assert judge(a_vm(spec=spec), table, settings).node == node
    assert ScoreSettings.of(ClusterConfig()).weight("MostAllocated") == 5


WHY: list[tuple[PlacementNode, PlacementVm, dict[str, str]]] = [
    (a_node("n1", ready=False), a_vm(), {"NodeReady": "the node is not ready to take VMs"}),
    (a_node("n1", unschedulable=True), a_vm(), {"NodeUnschedulable": "the node is cordoned"}),
    (
        a_node("n1", taints=(a_taint(value="db"),)),
        a_vm(),
        {"TaintToleration": "the VM does not tolerate the taint dedicated=db:NoSchedule"},
    ),
    (
        a_node("n1", labels={"gen": "1"}),
        a_vm(spec={"nodeSelector": {"gen": "2"}}),
        {"NodeAffinity": "nodeSelector wants gen=2; the node has gen=1"},
    ),
    (
        a_node("n1"),
        a_vm(spec={"nodeSelector": {"gen": "2"}}),
        {"NodeAffinity": "nodeSelector wants gen=2; the node has no label gen"},
    ),
    (
        a_node("n1"),
        a_vm(cpu_m=9000, memory_bytes=64 * GIB),
        {"NodeResourcesFit": "8 CPU free, 9 requested; 32Gi memory free, 64Gi requested"},
    ),
    (
        a_node("n1"),
        a_vm(spec=spread("web")),
        {"TopologySpread": "the node has no label zone, over which the VM is to be spread"},
    ),
    (
        a_node("n1", labels={"zone": "a"}),
        a_vm(spec=near("db", "zone")),
        {"VMAffinity": "its affinity wants the same zone as a VM with app=db; there is none"},
    ),
]


@pytest.mark.parametrize(("node", "vm", "told"), WHY, ids=[", ".join(told) for _, _, told in WHY])
def test_each_rule_says_why_in_words(node: PlacementNode, vm: PlacementVm, told: dict[str, str]) -> None:
    assert reasons(vm, build_table([node]), "n1") == told


def test_spread_says_the_skew_it_would_make() -> None:
    nodes = [a_node("n1", labels={"zone": "a"}), a_node("n2", labels={"zone": "b"})]
    web = {"app": "web"}
    table = build_table(nodes, [(a_vm("r", labels=web), "n1")])
    vm = a_vm(labels=web, spec=spread("web"))
    assert judge(vm, table, LOW).node == "n2"
    assert reasons(vm, table, "n1") == {"TopologySpread": "over zone the skew would be 2; at most 1 is allowed"}


def test_absurd_numbers_neither_overflow_nor_fit_by_accident() -> None:
    table = build_table([a_node("n1", cpu_m=2**62, memory_bytes=2**62)])
    for number in range(20):
        table.seat(a_vm(f"r{number}", cpu_m=2**62, memory_bytes=2**62), "n1")
    verdict = judge(a_vm(), table, LOW, all_scores=True)
    assert verdict.rejected == {"n1": ("NodeResourcesFit",)}
    free = judge(a_vm(cpu_m=0, memory_bytes=0), table, LOW, all_scores=True)
    assert {rule: free.scores[rule]["n1"] for rule in ("LeastAllocated", "MostAllocated", "BalancedAllocation")} == {
        "LeastAllocated": 0,
        "MostAllocated": 100,
        "BalancedAllocation": 100,
    }


def test_many_labels_cost_nothing_until_a_rule_names_them() -> None:
    labels = {f"key{number}": str(number) for number in range(100_000)}
    table = build_table([a_node("n1", labels=labels), a_node("n2")])
    assert judge(a_vm(spec={"nodeSelector": {"key99999": "99999"}}), table, LOW).feasible == ("n1",)


def test_vms_that_come_after_a_question_are_counted_in_the_next() -> None:
    """The index of a selector is made at the first question; labels seen before it must not stay outside."""
    web = {"app": "web"}
    table = build_table([a_node("n1"), a_node("n2")], [(a_vm("r1", labels=web), "n1")])
    vm = a_vm(spec=away_from("web"))
    assert judge(vm, table, LOW).feasible == ("n2",)
    table.seat(a_vm("r2", labels=web), "n2")
    assert judge(vm, table, LOW).feasible == ()
    table.unseat("r1", "n1")
    assert judge(vm, table, LOW).feasible == ("n1",)


def test_terms_of_seated_vms_follow_a_node_to_another_zone() -> None:
    nodes = [a_node("n1", labels={"zone": "a"}), a_node("n2", labels={"zone": "b"})]
    table = build_table(nodes, [(a_vm("r", spec=away_from("web", "zone")), "n1")])
    vm = a_vm(labels={"app": "web"})
    assert judge(vm, table, LOW).feasible == ("n2",)
    table.put_node(a_node("n1", labels={"zone": "b"}))
    assert judge(vm, table, LOW).feasible == ()
    table.put_node(a_node("n2", labels={"zone": "c"}))
    assert judge(vm, table, LOW).feasible == ("n2",)
