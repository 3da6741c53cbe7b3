"""Why a VM is where it is, where else it could be, and the smallest change that would place it."""

from __future__ import annotations

from typing import Any

import msgspec

from aggregator.core import events as ev
from aggregator.core.explain import explain_vm
from aggregator.core.explain_placement import chosen_text, elsewhere_text, smallest_change
from aggregator.core.journal_form import decode_event, encode_event
from aggregator.core.objects import VmSpec
from tests.unit.core.fleet import Fleet
from tests.unit.placement.builders import away_from


def a_spec(**spec: Any) -> VmSpec:
    return msgspec.convert({"runStrategy": "Always", **spec}, VmSpec)


def test_the_scores_of_the_decision_are_shown_and_outlive_what_came_after() -> None:
    fleet = Fleet()
    fleet.apply("first", a_spec())
    fleet.run(3)
    fleet.apply("web", a_spec())
    fleet.run(3)
    web = fleet.vm("web")
    assert web.choice is not None
    assert next(each.node for each in web.choice.contenders) == web.owner
    before = chosen_text(web)
    assert "3 of 3 nodes would do; profile LowNodeUtilization" in before[0]
    assert before[1].split()[:2] == ["NODE", "VMS"]
    assert "LeastAllocated ×1" in before[1]
    rows = {row.split()[0]: row.split() for row in before[2:]}
    assert next(iter(rows)) == web.owner
    assert int(rows[web.owner][-1]) > int(rows[fleet.vm("first").owner][-1])  # where the first one is, less is free
    fleet.apply("later", a_spec())
    fleet.run(3)
    assert chosen_text(fleet.vm("web")) == before
    assert "\n".join(before) in explain_vm(fleet.state, fleet.vm("web"), ()).text


def test_the_choice_is_journalled_with_the_decision() -> None:
    fleet = Fleet()
    fleet.apply("web", a_spec())
    fleet.run(3)
    started = next(each for each in fleet.happened if isinstance(each, ev.StartDecided))
    assert started.choice == fleet.vm("web").choice
    assert decode_event(encode_event(started)) == started


def test_a_node_that_was_the_only_one_needs_no_table() -> None:
    fleet = Fleet()
    fleet.cordon("n1")
    fleet.cordon("n3")
    fleet.apply("web", a_spec())
    fleet.run(3)
    assert "it was the only one of 3 nodes that would do" in chosen_text(fleet.vm("web"))[0]


def test_where_else_it_could_move_to_and_what_keeps_it_off_the_others() -> None:
    fleet = Fleet()
    for name in ("web-1", "web-2"):
        fleet.apply(name, a_spec(**away_from("web")), app="web")
    fleet.run(3)
    one, other = fleet.vm("web-1"), fleet.vm("web-2")
    free = ({"n1", "n2", "n3"} - {one.owner, other.owner}).pop()
    told = elsewhere_text(fleet.state, one)
    assert told[0] == f"It could move to: {free}."
    assert len(told) == 2
    assert told[1].startswith(f"  not to {other.owner}: VMAffinity (")


def test_what_stands_alone_in_the_way_is_named_with_the_nodes() -> None:
    fleet = Fleet()
    fleet.cordon("n1")
    fleet.apply("big", a_spec(nodeSelector={"disk": "ssd"}))
    fleet.run(3)
    assert smallest_change(fleet.state, fleet.vm("big")) == [
        "The smallest change that would place it:",
        "  NodeAffinity (nodeSelector wants disk=ssd; the node has no label disk) alone keeps it off n2, n3",
    ]
    for name in ("n2", "n3"):
        fleet.cordon(name)
    fleet.run(3)
    told = smallest_change(fleet.state, fleet.vm("big"))
    assert told[0].startswith("No single change would place it; the least is in the way on n1: NodeAffinity (")
    assert "NodeUnschedulable (the node is cordoned)" in told[0]
    assert told[0] in explain_vm(fleet.state, fleet.vm("big"), ()).text
