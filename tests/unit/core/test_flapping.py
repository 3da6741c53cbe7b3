"""A VM that loses its node too often is held, a node that fails too often gets no VM; a person goes past both."""

from __future__ import annotations

from aggregator.core import events as ev
from aggregator.core.events import NodeState, VmPhase, VmVerb
from aggregator.core.explain import explain_node, explain_vm
from aggregator.core.objects import VmSpec
from aggregator.core.views_node import conditions_of
from tests.unit.core.fleet import Fleet

OFTEN = {"unseenAtLeast": "5s", "readinessEvery": "600s", "brake": {"window": "0s", "offOrdersPerHourMax": 99}}


def fleet_of(**flap: int) -> Fleet:
    """v1 alone in a fleet of four."""
    fleet = Fleet(4, {**OFTEN, "flap": flap})
    fleet.apply("v1")
    fleet.run(10)
    return fleet


def loses_node(fleet: Fleet) -> str:
    """v1's node loses its power, is proven off, and boots again."""
    node = fleet.vm("v1").owner
    fails(fleet, node)
    return node


def fails(fleet: Fleet, node: str) -> None:
    """A node loses its power and comes back."""
    fleet.kill_power(node)
    fleet.run_until(fleet.is_in(node, NodeState.FENCED))
    fleet.reboot(node)
    fleet.run_until(fleet.is_in(node, NodeState.UP))
    fleet.run(2)


def tainted(fleet: Fleet, node: str) -> bool:
    """Return whether the node is marked as degraded."""
    return "virtward/degraded" in [taint.key for taint in fleet.node(node).taints]


def test_a_vm_that_lost_its_node_too_often_is_held_until_the_hour_is_over() -> None:
    fleet = fleet_of(vmPerHourMax=2, nodePerDayMax=99)
    began = fleet.now
    for _ in range(2):
        loses_node(fleet)
        assert fleet.vm("v1").phase is VmPhase.RUNNING
    loses_node(fleet)
    vm = fleet.vm("v1")
    assert vm.phase is VmPhase.RECOVERING
    assert vm.phase_reason == "lost its node 3 times within an hour, and flap.vmPerHourMax is 2"
    text = explain_vm(fleet.state, vm, ()).text
    assert "not started before" in text
    assert "virtward start v1" in text
    fleet.run_until(lambda: fleet.vm("v1").phase is VmPhase.RUNNING, 3700)
    assert 3595 < fleet.now - began < 3620


def test_a_persons_start_goes_past_the_hold_and_begins_the_count_anew() -> None:
    fleet = fleet_of(vmPerHourMax=1, nodePerDayMax=99)
    loses_node(fleet)
    loses_node(fleet)
    assert not fleet.vm("v1").run_open
    fleet.settle(ev.VmCommanded(at=fleet.now, name="v1", verb=VmVerb.START))
    fleet.run(2)
    assert fleet.vm("v1").phase is VmPhase.RUNNING
    loses_node(fleet)
    assert fleet.vm("v1").phase is VmPhase.RUNNING


def test_losses_more_than_an_hour_apart_do_not_add_up() -> None:
    fleet = fleet_of(vmPerHourMax=1, nodePerDayMax=99)
    for _ in range(3):
        loses_node(fleet)
        assert fleet.vm("v1").phase is VmPhase.RUNNING
        fleet.run(3700, 1)


def test_a_node_that_fails_too_often_gets_no_vm_until_somebody_opens_it() -> None:
    fleet = fleet_of(vmPerHourMax=99, nodePerDayMax=2)
    fails(fleet, "n4")
    assert not tainted(fleet, "n4")
    fails(fleet, "n4")
    assert tainted(fleet, "n4")
    text = explain_node(fleet.state, fleet.node("n4"), ()).text
    assert "it failed 2 times within a day, and flap.nodePerDayMax is 2" in text
    assert "virtward uncordon n4" in text
    degraded = next(c for c in conditions_of(fleet.state, fleet.node("n4")) if c.type == "Degraded")
    assert (degraded.status, degraded.reason) == ("True", "Flapping")
    fleet.apply("v2", VmSpec(node_selector={"virtward/hostname": "n4"}))
    fleet.run(2)
    assert fleet.vm("v2").rejected["n4"] == ("TaintToleration",)
    fleet.settle(ev.NodeForgiven(at=fleet.now, name="n4"))
    fleet.run(2)
    assert not tainted(fleet, "n4")
    assert fleet.vm("v2").owner == "n4"
    fails(fleet, "n4")
    assert not tainted(fleet, "n4")


def test_the_mark_goes_by_itself_when_the_day_is_over() -> None:
    fleet = fleet_of(vmPerHourMax=99, nodePerDayMax=1)
    began = fleet.now
    fails(fleet, "n4")
    assert tainted(fleet, "n4")
    fleet.now = began + 86_380
    fleet.run(1)
    assert tainted(fleet, "n4")
    fleet.run_until(lambda: not tainted(fleet, "n4"))
    assert 86_395 < fleet.now - began < 86_420


def test_a_node_in_maintenance_does_not_fail() -> None:
    """It was emptied for this: whoever works on it switches it off and on as they please."""
    fleet = fleet_of(vmPerHourMax=99, nodePerDayMax=1)
    fleet.settle(ev.DrainRequested(at=fleet.now, node="n4"))
    fleet.run(2)
    fails(fleet, "n4")
    assert fleet.node("n4").failures == []
    assert not tainted(fleet, "n4")
