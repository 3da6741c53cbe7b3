"""Small fleets ask a reference address before they convict; an aggregator never convicts the host it runs on."""

from __future__ import annotations

import pytest

from aggregator.core import events as ev
from aggregator.core.actions import AskReference
from aggregator.core.events import NodeState, PowerAnswer, ProofKind
from aggregator.core.policy import read_config
from fleet.model import Leadership
from tests.unit.core.fleet import LABORATORY, Fleet
from tests.unit.core.test_node_failure import fleet_with_vms

ADDRESS = "10.0.0.1"


def small_fleet(*, address: str | None = ADDRESS) -> Fleet:
    """Return a fleet of two with a VM on each."""
    return fleet_with_vms(2, 2, {**LABORATORY, "referenceAddress": address})


def run(fleet: Fleet, seconds: int, *, answered: bool) -> int:
    """Let time pass while the reference address answers, or does not; return how often it was asked."""
    questions = 0
    for _ in range(seconds * 4):
        before = len(fleet.actions)
        fleet.run(0.25)
        asked = sum(1 for action in fleet.actions[before:] if isinstance(action, AskReference))
        if asked:
            questions += asked
            fleet.settle(ev.ReferenceAnswered(at=fleet.now, asked_at=fleet.now, answered=answered))
    return questions


def test_nobody_is_asked_while_all_is_well() -> None:
    assert run(small_fleet(), 30, answered=True) == 0


@pytest.mark.parametrize(("answered", "state"), [(True, NodeState.FENCED), (False, NodeState.SUSPECT)])
def test_a_fleet_of_two_convicts_only_while_the_reference_answers(*, answered: bool, state: NodeState) -> None:
    fleet = small_fleet()
    fleet.silent.add("n1")
    assert run(fleet, 40, answered=answered) > 5
    assert fleet.node("n1").state is state


def test_without_a_reference_address_a_fleet_of_two_convicts_nobody_and_says_what_to_set() -> None:
    fleet = small_fleet(address=None)
    fleet.silent.add("n1")
    assert run(fleet, 40, answered=True) == 0
    assert fleet.node("n1").state is NodeState.SUSPECT
    incident = fleet.state.incidents[fleet.node("n1").incident]
    assert "set referenceAddress" in incident.stuck
    assert "--confirm-off" in incident.way_out


def test_an_answer_is_soon_too_old_to_convict_by() -> None:
    """It answered when the node fell silent, and not since: our network may have been cut in between."""
    fleet = small_fleet()
    fleet.silent.add("n1")
    run(fleet, 3, answered=True)
    run(fleet, 40, answered=False)
    assert fleet.node("n1").state is NodeState.SUSPECT


def test_three_nodes_need_no_reference() -> None:
    fleet = fleet_with_vms(3, 3, {**LABORATORY, "referenceAddress": ADDRESS})
    fleet.silent.add("n1")
    assert run(fleet, 15, answered=False) == 0
    assert fleet.node("n1").state is NodeState.FENCED


@pytest.mark.parametrize("power", [PowerAnswer.ON, PowerAnswer.OFF])
def test_an_aggregator_never_convicts_its_own_host(power: PowerAnswer) -> None:
    """Its device may say what it likes: what runs on it asks the question."""
    fleet = fleet_with_vms()
    leader = Leadership(2, "i2", fleet.state.position)
    fleet.settle(ev.AggregatorStarted(at=fleet.now, leader=leader, machine_id="machine-n1"))
    for name in ("n1", "n2", "n3"):
        fleet.connect(name)
    fleet.run(10)
    fleet.silent.add("n1")
    fleet.power["n1"] = power
    fleet.run(300)
    assert fleet.node("n1").state is NodeState.SUSPECT
    assert fleet.asked("off") == []
    incident = fleet.state.incidents[fleet.node("n1").incident]
    assert incident.stuck == "n1 is not convicted: this aggregator runs on it"
    fleet.settle(ev.OffConfirmed(at=fleet.now, name="n1", who="ops"))
    inert = fleet.node("n1").inert
    assert inert is not None
    assert inert.proof is ProofKind.OPERATOR


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "10.0.0.1:443", "[fe80::1]:22", "fe80::1", "gateway.example.net", "gw:53"]
)
def test_an_address_with_or_without_a_port_is_taken(address: str) -> None:
    assert read_config({"referenceAddress": address}).reference_address == address


@pytest.mark.parametrize("address", ["", "-c 1 evil", "a b", "http://gw/", "gw:port", "[fe80::1]"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="referenceAddress is"):
        read_config({"referenceAddress": address})
