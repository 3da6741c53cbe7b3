"""The fencing ladder and the brake, where people change things under it or several nodes fail at once."""

from __future__ import annotations

import pytest
from msgspec import structs

from aggregator.core import events as ev
from aggregator.core.events import NodeState, PowerAnswer
from aggregator.core.objects import FencingRung
from tests.unit.core.fleet import LABORATORY, Fleet
from tests.unit.core.test_node_failure import fleet_with_vms


def with_ladder(fleet: Fleet, name: str, rungs: tuple[FencingRung, ...]) -> None:
    """Write a node's ladder anew."""
    node = fleet.node(name)
    spec = structs.replace(node.spec, fencing=rungs)
    fleet.settle(ev.NodeApplied(at=fleet.now, name=name, labels=node.labels, spec=spec))


@pytest.mark.parametrize("state", [NodeState.LOST, NodeState.FENCING, NodeState.FENCED])
def test_a_ladder_that_is_taken_away_in_the_middle_of_an_outage_stops_nothing(state: NodeState) -> None:
    """People mend fence entries when they are needed: what was rung 2 may be gone, and nothing fails over it."""
    fleet = fleet_with_vms()
    one = fleet.node("n1").spec.fencing[0]
    two = structs.replace(one, params={**one.params, "cipher": "3"})
    with_ladder(fleet, "n1", (one, two))
    fleet.run(15)
    fleet.silent.add("n1")
    if state is NodeState.FENCING:
        fleet.hanging.add("n1")
    elif state is NodeState.LOST:
        fleet.off_answer["n1"] = PowerAnswer.ERROR
        fleet.run_until(lambda: "FenceFailed n1" in fleet.story(), 60)
    fleet.run_until(fleet.is_in("n1", state), 60)
    fleet.run(1)
    for rungs in ((two,), ()):
        with_ladder(fleet, "n1", rungs)
        fleet.run(300)
    fleet.reboot("n1")
    fleet.run(60)
    assert fleet.node("n1").state is NodeState.UP
    assert all(vm.run_open for vm in fleet.state.vms.values())


def test_no_more_nodes_are_fenced_at_once_than_may_be() -> None:
    """Four hung nodes that the brake lets through: two at a time, however many were Lost in one moment."""
    fleet = fleet_with_vms(10, 20, {**LABORATORY, "brake": {"offOrdersPerHourMax": 10}})
    lost = {"n1", "n2", "n3", "n4"}
    fleet.silent |= lost
    fleet.hanging |= lost
    most = 0
    for _ in range(20):
        fleet.run(1)
        most = max(most, sum(1 for n in fleet.state.nodes.values() if n.state is NodeState.FENCING))
    assert most == 2


def test_off_orders_of_one_moment_count_against_the_hour() -> None:
    """Two nodes an hour are shot at without a person; what follows down one's ladder is the same attempt."""
    fleet = fleet_with_vms(10, 20, {**LABORATORY, "fencesInFlightMax": 4})
    lost = {"n1", "n2", "n3", "n4"}
    fleet.silent |= lost
    for name in lost:
        fleet.off_answer[name] = PowerAnswer.ERROR
    fleet.run(600)
    assert len(set(fleet.asked("off"))) == 2
    assert len(fleet.asked("off")) == 4


def test_a_second_off_order_is_not_given_once_the_brake_has_closed() -> None:
    """Its first one hangs, two more nodes fall silent: over the limit nothing is fenced."""
    fleet = fleet_with_vms()
    fleet.silent.add("n1")
    fleet.hanging.add("n1")
    fleet.run_until(fleet.is_in("n1", NodeState.FENCING), 20)
    assert fleet.asked("off") == ["n1"]
    fleet.silent.add("n2")
    fleet.run(60)
    assert fleet.asked("off") == ["n1"]
    assert fleet.node("n1").state is NodeState.LOST


def test_in_a_fleet_of_two_silence_convicts_nobody() -> None:
    """Below three nodes the one that is cut off may be the aggregator; a device that says off still counts."""
    fleet = fleet_with_vms(2, 2)
    fleet.silent.add("n1")
    fleet.run(120)
    assert fleet.node("n1").state is NodeState.SUSPECT
    assert fleet.asked("off") == []
    incident = fleet.state.incidents[fleet.node("n1").incident]
    assert "fence n1 --confirm-off" in incident.way_out
    fleet.kill_power("n1")
    fleet.run_until(fleet.is_in("n1", NodeState.FENCED), 20)


def test_another_nodes_death_is_explained_by_its_own_device() -> None:
    """n2 loses its power between our off of n1 and the reading: both devices say off, so both are off."""
    fleet = fleet_with_vms(5, 10)
    fleet.silent.add("n1")
    fleet.hanging.add("n1")
    fleet.run_until(fleet.is_in("n1", NodeState.FENCING), 20)
    fleet.kill_power("n2")
    fleet.run_until(fleet.is_in("n2", NodeState.FENCED), 30)
    fleet.power["n1"] = PowerAnswer.OFF
    fleet.run_until(fleet.is_in("n1", NodeState.FENCED), 60)
    fleet.run(5)
    assert {vm.owner for vm in fleet.state.vms.values()} <= {"n3", "n4", "n5"}


def test_a_node_that_died_of_our_first_off_order_is_not_forgotten_at_the_second() -> None:
    """n1's entry is n2's device: the first off hangs and kills n2, the second finds it off. n1 is proven by neither."""
    fleet = fleet_with_vms(5, 10, {**LABORATORY, "brake": {"offOrdersPerHourMax": 10}})
    rungs = tuple(structs.replace(rung, identity="Operator") for rung in fleet.node("n1").spec.fencing)
    with_ladder(fleet, "n1", rungs)
    fleet.run(10)
    fleet.silent.add("n1")
    fleet.hanging |= {"n1", "n2"}
    fleet.run_until(fleet.is_in("n1", NodeState.FENCING), 20)
    fleet.silent.add("n2")
    fleet.run_until(lambda: fleet.asked("off").count("n1") == 2, 30)
    fleet.power["n1"] = PowerAnswer.OFF
    fleet.run(120)
    assert fleet.node("n1").inert is None
    assert all(vm.epoch == 1 for vm in fleet.state.vms.values() if vm.owner == "n1")


def test_a_node_not_heard_since_a_restart_may_have_died_of_our_off_order() -> None:
    """The aggregator was killed right after the off order; until n2 has spoken, n1's reading may be n2's."""
    fleet = fleet_with_vms(5, 10)
    rungs = tuple(structs.replace(rung, identity="Operator") for rung in fleet.node("n1").spec.fencing)
    with_ladder(fleet, "n1", rungs)
    fleet.run(10)
    fleet.silent.add("n1")
    fleet.hanging.add("n1")
    fleet.run_until(fleet.is_in("n1", NodeState.FENCING), 20)
    fleet.silent.add("n2")
    fleet.power["n1"] = PowerAnswer.OFF
    fleet.restart()
    for name in ("n3", "n4", "n5"):
        fleet.connect(name)
    fleet.run(4)
    assert fleet.node("n1").inert is None
    fleet.silent.discard("n2")
    fleet.connect("n2")
    fleet.run_until(fleet.is_in("n1", NodeState.FENCED), 60)
