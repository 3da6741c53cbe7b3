"""For any small fleet: the rules agree with the oracle, deltas with a table made anew, a batch with reason."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.placement.place import Told, build_table, judge, place_batch, reasons
from aggregator.placement.table import Table
from aggregator.placement.types import PlacementNode, PlacementVm, ScoreSettings, Verdict
from tests.unit.placement import oracle
from tests.unit.placement.fleets import a_placement_node, a_placement_vm, fleets

LOW = ScoreSettings()
Fleet = tuple[list[PlacementNode], list[tuple[PlacementVm, PlacementNode]], PlacementVm]


def table_of(fleet: Fleet) -> Table:
    nodes, seats, _ = fleet
    return build_table(nodes, [(vm, node.name) for vm, node in seats])


@settings(max_examples=300, deadline=None)
@given(fleets())
def test_every_rule_agrees_with_the_oracle(fleet: Fleet) -> None:
    nodes, seats, vm = fleet
    verdict = judge(vm, table_of(fleet), LOW, all_scores=True)
    expected = {node.name: oracle.rejecting(vm, node, nodes, seats) for node in nodes}
    assert {name: list(rules) for name, rules in verdict.rejected.items()} == {n: r for n, r in expected.items() if r}
    assert list(verdict.feasible) == sorted(name for name, rules in expected.items() if not rules)
    feasible = [node for node in nodes if not expected[node.name]]
    if not feasible:
        assert verdict.node is None
        assert verdict.scores == {}
        return
    for rule, recorded in oracle.scores(vm, feasible, nodes, seats).items():
        for name, score in recorded.items():
            assert abs(verdict.scores[rule][name] - score) <= 1, (rule, name)


@settings(max_examples=100, deadline=None)
@given(fleets())
def test_the_choice_follows_from_the_printed_scores(fleet: Fleet) -> None:
    _, seats, vm = fleet
    verdict = judge(vm, table_of(fleet), LOW)
    vms = Counter(node.name for _, node in seats)
    order = [
        (-sum(scores[name] * LOW.weight(rule) for rule, scores in verdict.scores.items()), vms[name], name)
        for name in verdict.feasible
    ]
    assert verdict.node == (min(order)[2] if order else None)


@settings(max_examples=100, deadline=None)
@given(fleets())
def test_every_rejection_has_a_reason_in_words(fleet: Fleet) -> None:
    _, _, vm = fleet
    table = table_of(fleet)
    for name, rules in judge(vm, table, LOW).rejected.items():
        told = reasons(vm, table, name)
        assert tuple(sorted(told)) == rules
        assert all(told.values())


@settings(max_examples=100, deadline=None)
@given(fleets(), st.data())
def test_a_table_kept_by_deltas_is_one_made_anew(fleet: Fleet, data: st.DataObject) -> None:
    """Ask in between, so that the indexes exist while nodes and VMs come, change and go."""
    _, _, vm = fleet
    table = table_of(fleet)
    nodes = {node.name: node for node in fleet[0]}
    seats = {(seated.name, node.name): (seated, node.name) for seated, node in fleet[1]}
    for _ in range(data.draw(st.integers(1, 8))):
        judge(vm, table, LOW)
        step = data.draw(st.sampled_from(("put", "drop", "seat", "unseat")))
        name = f"n{data.draw(st.integers(0, 11))}"
        guest = f"r{data.draw(st.integers(0, 6))}"
        if step == "put":
            nodes[name] = data.draw(a_placement_node(name))
            table.put_node(nodes[name])
        elif step == "drop" and name in nodes:
            table.drop_node(name)
            del nodes[name]
            seats = {key: seat for key, seat in seats.items() if key[1] != name}
        elif step == "seat" and name in nodes:
            seats[guest, name] = (data.draw(a_placement_vm(guest)), name)
            table.seat(seats[guest, name][0], name)
        elif step == "unseat":
            table.unseat(guest, name)
            seats.pop((guest, name), None)
    anew = build_table(nodes.values(), seats.values())
    assert judge(vm, table, LOW, all_scores=True) == judge(vm, anew, LOW, all_scores=True)


def unplaced(verdicts: list[Verdict]) -> set[str]:
    return {verdict.vm for verdict in verdicts if verdict.node is None}


@settings(max_examples=100, deadline=None)
@given(fleets(), st.data())
def test_a_batch_breaks_no_rule_and_gives_the_table_back(fleet: Fleet, data: st.DataObject) -> None:
    nodes, seats, vm = fleet
    by_name = {node.name: node for node in nodes}
    batch = [data.draw(a_placement_vm(f"b{place}")) for place in range(data.draw(st.integers(0, 5)))]
    table = table_of(fleet)
    before = judge(vm, table, LOW, all_scores=True)
    verdicts = place_batch(batch, table, LOW)
    assert judge(vm, table, LOW, all_scores=True) == before
    assert [verdict.vm for verdict in verdicts] == [each.name for each in batch]
    terse = place_batch(batch, table, LOW, told=Told.NODE)
    assert [verdict.node for verdict in terse] == [verdict.node for verdict in verdicts]
    chosen = {verdict.vm: verdict.node for verdict in verdicts}
    seated = list(seats)
    for each in sorted(batch, key=lambda one: _turn(one, nodes)):
        node = chosen[each.name]
        if node is None:
            assert all(oracle.rejecting(each, other, nodes, seated) for other in nodes)
        else:
            assert not oracle.rejecting(each, by_name[node], nodes, seated)
            seated.append((each, by_name[node]))


def _turn(vm: PlacementVm, nodes: list[PlacementNode]) -> tuple[int, float, str]:
    cpu = max(1, sum(node.cpu_m for node in nodes))
    memory = max(1, sum(node.memory_bytes for node in nodes))
    return -vm.spec.restart_priority, -(vm.cpu_m / cpu + vm.memory_bytes / memory), vm.name
