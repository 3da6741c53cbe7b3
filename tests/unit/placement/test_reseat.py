"""What greedy placement leaves is seated by moving others of the same batch, and nothing is lost by it."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.placement.losses import place_after_loss
from aggregator.placement.place import Told, build_table, judge, place_batch
from aggregator.placement.types import PlacementNode, PlacementVm, ScoreSettings, Verdict
from benchmarks.tight import Inputs, a_tight_fleet
from tests.unit.placement import oracle
from tests.unit.placement.builders import HOST, a_node, a_vm, away_from, spread
from tests.unit.placement.fleets import a_placement_vm, fleets

GREEDY = ScoreSettings()
EXACT = ScoreSettings(solver_budget_s=10.0)


def nodes_of(verdicts: list[Verdict]) -> dict[str, str | None]:
    return {verdict.vm: verdict.node for verdict in verdicts}


def two_that_greedy_fills_wrongly() -> tuple[list[PlacementNode], list[PlacementVm]]:
    """3 + 3 and 2 + 2 + 2 are six and six; biggest first spreads them so that the last finds 1 and 1."""
    nodes = [a_node("n1", cpu_m=6000), a_node("n2", cpu_m=6000)]
    sizes = {"a": 3, "b": 3, "c": 2, "d": 2, "e": 2}
    return nodes, [a_vm(name, cpu_m=1000 * size, memory_bytes=0) for name, size in sizes.items()]


def test_what_greedy_leaves_gets_a_seat_and_the_verdict_says_so() -> None:
    nodes, vms = two_that_greedy_fills_wrongly()
    table = build_table(nodes)
    left = [verdict.vm for verdict in place_batch(vms, table, GREEDY) if verdict.node is None]
    verdicts = place_batch(vms, table, EXACT)
    assert left
    assert None not in nodes_of(verdicts).values()
    for verdict in verdicts:
        assert verdict.node in verdict.feasible
        assert verdict.node not in verdict.rejected
    assert all(table.seats_of(vm.name) == () for vm in vms)


def test_a_vm_that_runs_is_never_moved() -> None:
    nodes, vms = two_that_greedy_fills_wrongly()
    running, batch = vms[:2], vms[2:]
    table = build_table(nodes, zip(running, ("n1", "n2"), strict=True))
    verdicts = nodes_of(place_batch(batch, table, EXACT))
    assert list(verdicts.values()).count(None) == 1
    assert [table.seats_of(vm.name) for vm in running] == [("n1",), ("n2",)]


def test_no_vm_of_another_priority_loses_its_seat() -> None:
    urgent = a_vm("urgent", cpu_m=6000, memory_bytes=0, spec={"restartPriority": 900})
    small = [a_vm(f"s{number}", cpu_m=3000, memory_bytes=0) for number in range(3)]
    verdicts = nodes_of(place_batch([urgent, *small], build_table([a_node("n1", cpu_m=9000)]), EXACT))
    assert verdicts["urgent"] == "n1"
    assert list(verdicts.values()).count(None) == 2


def test_anti_affinity_holds_among_those_that_are_moved() -> None:
    nodes, vms = two_that_greedy_fills_wrongly()
    web = {"labels": {"app": "web"}, "spec": away_from("web")}
    vms = [a_vm(vm.name, cpu_m=vm.cpu_m, memory_bytes=0, **(web if vm.name in "ac" else {})) for vm in vms]
    verdicts = nodes_of(place_batch(vms, build_table(nodes), EXACT))
    assert None not in verdicts.values()
    assert verdicts["a"] != verdicts["c"]


def test_what_a_spread_of_the_batch_counts_stays_where_it_is() -> None:
    nodes, vms = two_that_greedy_fills_wrongly()
    even = {"labels": {"app": "web"}, "spec": spread("web", HOST)}
    vms = [a_vm(vm.name, cpu_m=vm.cpu_m, memory_bytes=0, **even) for vm in vms]
    table = build_table(nodes)
    assert nodes_of(place_batch(vms, table, EXACT)) == nodes_of(place_batch(vms, table, GREEDY))


def test_tight_clusters_are_filled_and_always_in_the_same_way() -> None:
    """Every VM of these fleets has a place; greedy leaves some of them down."""
    left = 0
    for seed in range(5):
        nodes, vms = a_tight_fleet(Inputs(nodes=10, vms=50, free=0.05, budget_s=10.0), seed)
        left += list(nodes_of(place_batch(vms, build_table(nodes), GREEDY, told=Told.NODE)).values()).count(None)
        verdicts = nodes_of(place_batch(vms, build_table(nodes), EXACT, told=Told.NODE))
        assert None not in verdicts.values()
        assert verdicts == nodes_of(place_batch(vms, build_table(nodes), EXACT, told=Told.NODE))
    assert left


def test_a_budget_that_is_spent_costs_nobody_a_seat() -> None:
    nodes, vms = a_tight_fleet(Inputs(nodes=10, vms=50, free=0.05, budget_s=0.0), 12)
    greedy = nodes_of(place_batch(vms, build_table(nodes), GREEDY, told=Told.NODE))
    short = nodes_of(place_batch(vms, build_table(nodes), ScoreSettings(solver_budget_s=0.01), told=Told.NODE))
    assert list(short.values()).count(None) <= list(greedy.values()).count(None)


@settings(max_examples=60, deadline=None)
@given(fleets(), st.data())
def test_re_seating_breaks_no_rule_and_seats_no_fewer(
    fleet: tuple[list[PlacementNode], list[tuple[PlacementVm, PlacementNode]], PlacementVm], data: st.DataObject
) -> None:
    nodes, seats, vm = fleet
    by_name = {node.name: node for node in nodes}
    batch = [data.draw(a_placement_vm(f"b{place}")) for place in range(data.draw(st.integers(1, 8)))]
    table = build_table(nodes, [(seated, node.name) for seated, node in seats])
    before = judge(vm, table, GREEDY, all_scores=True)
    greedy = nodes_of(place_batch(batch, table, GREEDY))
    found = nodes_of(place_batch(batch, table, EXACT))
    assert judge(vm, table, GREEDY, all_scores=True) == before
    priority = {each.name: each.spec.restart_priority for each in batch}
    seated_by = [Counter(priority[name] for name, node in each.items() if node is not None) for each in (greedy, found)]
    assert all(seated_by[1][level] >= count for level, count in seated_by[0].items())
    for each in batch:
        node = found[each.name]
        if node is None or each.spec.topology_spread_constraints or oracle.towards(each).required:
            continue
        others = [(other, by_name[at]) for other in batch if other is not each and (at := found[other.name])]
        assert not oracle.rejecting(each, by_name[node], nodes, [*seats, *others])


def test_after_a_loss_the_same_re_seating_is_done_and_the_table_given_back() -> None:
    """What-if asks place_after_loss: three VMs of the lost node fit only if the first two share a node."""
    nodes, vms = two_that_greedy_fills_wrongly()
    lost = a_node("n3", cpu_m=12_000)
    table = build_table([*nodes, lost], [(vm, "n3") for vm in vms])
    verdicts = place_after_loss(table, {"n3": vms}, ["n3"], vms, EXACT)
    assert {verdict.node for verdict in verdicts} == {"n1", "n2"}
    assert [table.seats_of(vm.name) for vm in vms] == [("n3",)] * len(vms)
