"""A node whose own checks fail: tainted as configured, emptied where that is NoExecute, but not all at once."""

from __future__ import annotations

from msgspec import structs

from aggregator.core import events as ev
from aggregator.core.views_node import node_status, node_view
from fleet.model import CheckVerdict, NodeLoad
from tests.unit.core.fleet import Fleet
from tests.unit.core.test_moves import running_on


def says(fleet: Fleet, node: str, *checks: CheckVerdict) -> None:
    record = fleet.node(node)
    assert record.session is not None
    assert record.facts is not None
    facts = structs.replace(record.facts, checks=checks)
    reported = ev.VmsReported(at=fleet.now, node=node, session=record.session, generation=9, vms=(), facts=facts)
    fleet.settle(reported)


def disk(effect: str, level: str = "Failing") -> CheckVerdict:
    return CheckVerdict("disk", level, effect, "sda: 12 sectors pending")


def taints(fleet: Fleet, node: str) -> list[str]:
    return [f"{taint.key}:{taint.effect}" for taint in fleet.node(node).taints]


def test_a_failing_check_taints_its_node_with_the_effect_it_was_given_and_the_condition_says_why() -> None:
    fleet = Fleet()
    says(fleet, "n1", disk("NoSchedule"))
    assert taints(fleet, "n1") == ["virtward/degraded:NoSchedule"]
    status = node_view(fleet.state, fleet.node("n1")).status
    assert status is not None
    found = {condition.type: condition for condition in status.conditions}
    assert (found["Degraded"].status, found["Degraded"].message) == ("True", "disk: sda: 12 sectors pending")
    says(fleet, "n1")
    assert taints(fleet, "n1") == []


def test_the_time_of_the_taint_is_kept_while_it_stands() -> None:
    fleet = Fleet()
    says(fleet, "n1", disk("NoSchedule"))
    since = fleet.node("n1").taints[0].time_added
    fleet.run(5)
    says(fleet, "n1", disk("NoSchedule"), CheckVerdict("raid", "Failing", "NoSchedule"))
    assert [taint.time_added for taint in fleet.node("n1").taints] == [since]


def test_a_node_that_is_about_to_die_is_emptied_live_before_it_does() -> None:
    fleet = Fleet()
    running_on(fleet, "v", "n1")
    says(fleet, "n1", disk("NoExecute"))
    fleet.run(5)
    assert (fleet.vm("v").owner != "n1", fleet.vm("v").run) == (True, 1)


def test_an_effect_that_nobody_knows_taints_nothing() -> None:
    fleet = Fleet()
    says(fleet, "n1", disk("NoBreath"), disk(""))
    assert taints(fleet, "n1") == []


def test_checks_that_fail_on_more_nodes_than_the_brake_lets_through_move_nobody() -> None:
    """A wrong check program is rolled out to all of them at once."""
    fleet = Fleet()
    for number, name in enumerate(("a", "b", "c"), 1):
        running_on(fleet, name, f"n{number}")
    for node in ("n1", "n2", "n3"):
        says(fleet, node, disk("NoExecute"))
    fleet.run(30)
    moved_once = sum(vm.owner != f"n{number}" for number, vm in enumerate(map(fleet.vm, "abc"), 1))
    assert moved_once <= 1  # the first that said so, before the others did
    assert "3 nodes are degraded at once" in " ".join(vm.eviction.blocked for vm in map(fleet.vm, "abc") if vm.eviction)


def test_the_load_that_comes_with_a_beat_is_shown_while_the_node_is_connected() -> None:
    fleet = Fleet()
    node = fleet.node("n1")
    assert node.session is not None
    load = NodeLoad(40, 8 << 30, (1, 2, 3))
    fleet.settle(ev.BeatHeard(at=fleet.now, node="n1", session=node.session, sequence=9, load=load))
    shown = node_status(fleet.state, node).load
    assert shown is not None
    assert (shown.cpu_percent, shown.memory_available, shown.waits) == (40, "8Gi", {"cpu": 1, "memory": 2, "io": 3})
    fleet.settle(ev.SessionEnded(at=fleet.now, node="n1", session=node.session, how="closed", by_it=False))
    assert node_status(fleet.state, node).load is None
