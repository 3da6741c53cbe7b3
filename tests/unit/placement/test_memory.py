"""What placement remembers is bounded, is forgotten in the right order, and never changes an answer."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.placement import changes, columns, compiled, masks, recent, selector_index, table, tallies
from aggregator.placement.place import Told, build_table, judge, place_batch
from aggregator.placement.ranking import WEIGHT_MAX
from aggregator.placement.selectors import Requirement, Selector, labels_key, selects
from aggregator.placement.types import PROFILES, PlacementNode, PlacementVm, ScoreSettings, Seat
from tests.unit.placement.builders import GIB, HOST, a_node, a_taint, a_vm
from tests.unit.placement.fleets import a_placement_vm

NODES = 40  # so many that a few changed slots are mended, not all made anew
LOW = ScoreSettings()


def a_rack_of_all_sorts() -> list[PlacementNode]:
    """Nodes of which every rule rejects, prefers and counts some."""
    nodes = []
    for number in range(NODES):
        name = f"n{number}"
        labels = {HOST: name, "zone": str(number % 3), "rack": str(number // 20), "gen": str(number % 2 + 1)}
        if number % 11 == 0:
            del labels["zone"]
        effect = "NoSchedule" if number % 8 == 0 else "PreferNoSchedule"
        taints = (a_taint("t", effect=effect),) if number % 4 == 0 else ()
        node = PlacementNode(name=name, labels=labels, taints=taints, cpu_m=3000, memory_bytes=(number % 5) * 3 * GIB)
        nodes.append(node)
    return nodes


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set every limit of a memory to what is barely possible."""
    monkeypatch.setattr(table, "STANDINGS_MAX", 1)
    monkeypatch.setattr(table, "COMPILED_MAX", 1)
    monkeypatch.setattr(compiled, "RULES_MAX", 1)
    monkeypatch.setattr(compiled, "REQUESTS_MAX", 1)
    monkeypatch.setattr(masks, "MASKS_MAX", 1)
    monkeypatch.setattr(tallies, "TALLIES_MAX", 1)
    monkeypatch.setattr(tallies, "CARRIERS_MAX", 1)
    monkeypatch.setattr(tallies, "TOTALS_MIN", 1)
    monkeypatch.setattr(tallies, "TOTALS_BYTES_MAX", 0)
    monkeypatch.setattr(selector_index, "ANSWERS_MAX", 1)
    monkeypatch.setattr(columns, "LABEL_COLUMNS_MAX", 1)
    monkeypatch.setattr(changes, "CHANGES_MAX", 4)


def remembered_is_anew(vms: list[PlacementVm], profile: str) -> None:
    """Place one after another on one table, and each again on a table made for it alone."""
    nodes = a_rack_of_all_sorts()
    scoring = ScoreSettings(profile=profile)
    kept = build_table(nodes)
    seated: list[Seat] = []
    rotation = 0
    for vm in vms:
        anew = judge(vm, build_table(nodes, seated), scoring, rotation, all_scores=True)
        assert judge(vm, kept, scoring, rotation, all_scores=True) == anew
        terse = place_batch([vm], kept, scoring, rotation, keep=True, told=Told.NODE)[0]
        assert (terse.node, terse.rotation) == (anew.node, anew.rotation)
        rotation = anew.rotation
        if anew.node is not None:
            seated.append((vm, anew.node))


_vms = st.lists(st.integers(0, 3), min_size=1, max_size=10).flatmap(
    lambda kinds: st.tuples(*(a_placement_vm(f"v{kind}") for kind in range(4))).map(
        lambda drawn: [
            PlacementVm(
                name=f"p{place}",
                labels=drawn[kind].labels,
                spec=drawn[kind].spec,
                cpu_m=drawn[kind].cpu_m,
                memory_bytes=drawn[kind].memory_bytes,
            )
            for place, kind in enumerate(kinds)
        ]
    )
)


@settings(max_examples=60, deadline=None)
@given(_vms, st.sampled_from(PROFILES))
def test_what_is_remembered_and_mended_answers_like_a_table_made_anew(vms: list[PlacementVm], profile: str) -> None:
    """VMs of few kinds come back, so that their standings are there and only some slots have changed."""
    remembered_is_anew(vms, profile)


@pytest.mark.usefixtures("forgetful")
def test_forgetting_nearly_everything_changes_no_answer() -> None:
    @settings(max_examples=60, deadline=None)
    @given(_vms, st.sampled_from(PROFILES))
    def answers_stay(vms: list[PlacementVm], profile: str) -> None:
        remembered_is_anew(vms, profile)

    answers_stay()


def test_a_vm_that_left_is_noticed_by_a_remembered_standing() -> None:
    nodes = a_rack_of_all_sorts()
    small = a_vm("small", cpu_m=100, memory_bytes=GIB)
    one = build_table(nodes)
    before = judge(small, one, LOW)
    assert before.node is not None
    one.seat(a_vm("big", cpu_m=3000, memory_bytes=GIB), before.node)
    assert before.node in judge(small, one, LOW).rejected
    one.unseat("big", before.node)
    assert judge(small, one, LOW) == before


def test_a_node_that_changes_is_noticed_by_a_remembered_standing() -> None:
    one = build_table([a_node("n1"), a_node("n2")])
    assert judge(a_vm(), one, LOW).node == "n1"
    one.put_node(a_node("n1", ready=False))
    assert judge(a_vm(), one, LOW).node == "n2"
    one.put_node(a_node("n1", cpu_m=64_000, memory_bytes=256 * GIB))
    assert judge(a_vm(), one, LOW).node == "n1"


def test_standings_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "STANDINGS_MAX", 5)
    one = build_table(a_rack_of_all_sorts())
    for size in range(1, 30):
        judge(a_vm(cpu_m=size), one, LOW)
    assert len(one.standings) == 5


def test_arrays_of_counts_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tallies, "TOTALS_MIN", 3)
    monkeypatch.setattr(tallies, "TOTALS_BYTES_MAX", 0)
    one = build_table(a_rack_of_all_sorts())
    counted = [one.matches.tally((None,)), one.matches.tally(((),))]
    for key in ("zone", "rack", "gen", HOST):
        for tally in counted:
            tally.by_value(one.columns.label(key))
    assert sum(tally.arrays for tally in counted) == 3


def test_absurd_weights_neither_overflow_nor_turn_round() -> None:
    one = build_table([a_node("n1"), a_node("n2")], [(a_vm("r"), "n1")])
    for weight in (WEIGHT_MAX, 2**62):
        assert judge(a_vm(), one, ScoreSettings(weights={"LeastAllocated": weight})).node == "n2"
        assert judge(a_vm(), one, ScoreSettings(weights={"LeastAllocated": -weight})).node == "n1"


def test_taints_and_label_values_that_are_gone_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "TAINT_SETS_MAX", 4)
    one = build_table([a_node("n1"), a_node("n2", taints=(a_taint("keep"),), labels={"day": "0"})])
    wants = a_vm(spec={"nodeSelector": {"day": "0"}, "tolerations": [{"operator": "Exists"}]})
    for day in range(100):
        one.put_node(a_node("n1", taints=(a_taint(f"t{day}"),), labels={"day": str(day)}))
        assert judge(wants, one, LOW).feasible == (("n1", "n2") if day == 0 else ("n2",))
        assert judge(a_vm(), one, LOW).rejected == {"n1": ("TaintToleration",), "n2": ("TaintToleration",)}
    assert len(one.columns.taint_sets) <= one.columns.capacity + 2
    assert one.columns.label("day").size <= columns.VALUES_A_SLOT_MAX * one.columns.capacity + 1


def test_what_was_used_for_the_longest_time_ago_is_forgotten_first() -> None:
    gone: list[str] = []
    memory: recent.Recent[str, str] = recent.Recent(2, gone.append)
    memory.put("a", "A")
    memory.put("b", "B")
    assert memory.get("a") == "A"
    memory.put("c", "C")
    assert (gone, memory.get("b"), memory.get("a"), memory.get("c")) == (["B"], None, "A", "C")
    memory.put("a", "A2")
    assert (len(memory), gone) == (2, ["B"])


def test_who_has_not_looked_for_long_looks_at_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "CHANGES_MAX", 4)
    log = changes.Changes()
    assert log.since(changes.Changes.NEVER) is None
    early = log.mark
    for slot in (7, 8, 9):
        log.note(slot)
    assert log.since(early) == [7, 8, 9]
    late = log.mark
    log.note(1)
    log.note(2)
    assert log.since(early) is None
    assert log.since(late) == [1, 2]
    assert log.since(log.mark) == []


_words = st.sampled_from(("x", "y", "z"))
_requirement: st.SearchStrategy[Requirement] = st.tuples(
    st.sampled_from(("app", "tier")),
    st.sampled_from(("In", "NotIn", "Exists", "DoesNotExist")),
    st.lists(_words, max_size=2, unique=True).map(lambda words: tuple(sorted(words))),
)
_selector: st.SearchStrategy[Selector] = st.none() | st.lists(_requirement, max_size=2).map(tuple)
_selectors = st.lists(_selector, max_size=2).map(tuple)
_some_labels = st.fixed_dictionaries({}, optional={"app": _words, "tier": _words})


@given(st.lists(_selectors, max_size=8), st.lists(_some_labels, min_size=1, max_size=4), st.data())
def test_the_index_finds_exactly_the_selectors_that_select(
    filed: list[tuple[Selector, ...]], asked: list[dict[str, str]], data: st.DataObject
) -> None:
    """Ask before and after some are taken out again: remembered answers must not outlive them."""
    index: selector_index.SelectorIndex[list[int]] = selector_index.SelectorIndex()
    items = [[number] for number in range(len(filed))]
    for selectors, item in zip(filed, items, strict=True):
        index.add(selectors, item)
    there = set(range(len(filed)))
    for _ in range(2):
        for labels in asked:
            expected = {number for number in there if all(selects(s, labels) for s in filed[number])}
            assert {item[0] for item in index.selecting(labels_key(labels))} == expected
        out = data.draw(st.sets(st.sampled_from(sorted(there)))) if there else set()
        for number in out:
            index.remove(items[number])
        there -= out
