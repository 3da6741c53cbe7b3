"""Another machine under a known name is an incident, once, until it gives up; and what a returning node waits for."""

from __future__ import annotations

import pytest
from msgspec import structs

from aggregator.core import events as ev
from aggregator.core.events import NodeState, PowerAnswer
from aggregator.core.identity import identity_refused
from aggregator.core.lookups import off_may_act_until
from aggregator.core.objects import FencingDevice, FencingRung, NodeSpec
from aggregator.core.state import IncidentRecord
from fleet.messages import Hello
from fleet.model import LedgerState, NodeFacts, SessionKey
from tests.unit.core.fleet import Fleet
from tests.unit.core.test_node_failure import fleet_with_vms


def hello(machine: str = "machine-n7", host: str = "host-n7") -> Hello:
    """What a machine says that was put in n1's place."""
    facts = NodeFacts(machine_id=machine, host_uuid=host)
    return Hello(1, 1, "n1", SessionKey("a boot", "a start", 1), facts, LedgerState.NEW, None)


def knocks(fleet: Fleet, said: Hello) -> bool:
    """Have a hello refused; return whether that was worth a fact."""
    fact = identity_refused(fleet.state, said, fleet.now)
    fleet.settle(*([fact] if fact is not None else []))
    return fact is not None


def about_identity(fleet: Fleet) -> list[IncidentRecord]:
    """Return the incidents about a machine that is not the one it says."""
    return [i for i in fleet.state.incidents.values() if "another machine" in i.title]


def test_another_machine_under_a_known_name_is_an_incident() -> None:
    fleet = Fleet()
    assert knocks(fleet, hello())
    (incident,) = about_identity(fleet)
    assert incident.title == "another machine says that it is n1"
    assert "machine-id machine-n7 is refused as n1, which is known as machine-n1" in incident.stuck
    assert "virtward delete node n1" in incident.way_out
    assert fleet.node("n1").state is NodeState.UP


def test_it_is_told_once_a_minute_and_closed_when_it_gives_up() -> None:
    fleet = Fleet()
    told = 0
    for _ in range(60):
        told += knocks(fleet, hello())
        fleet.run(3, 1)
    assert told == 3
    (incident,) = about_identity(fleet)
    assert not incident.closed
    fleet.run(620, 1)
    assert incident.closed
    assert fleet.node("n1").impostor is None
    assert knocks(fleet, hello())
    assert len(about_identity(fleet)) == 2


@pytest.mark.parametrize(
    ("said", "worth"),
    [
        (hello("machine-n1", "host-n1"), False),
        (hello("machine-n1", ""), False),  # its libvirt has not told yet: the same machine, as far as anybody knows
        (hello("machine-n1", "host-n7"), True),
        (hello("machine-n7", "host-n1"), True),
    ],
)
def test_only_another_machine_is_told(said: Hello, *, worth: bool) -> None:
    assert knocks(Fleet(), said) is worth


def test_a_name_that_nobody_knows_is_no_conflict() -> None:
    assert not knocks(Fleet(), structs.replace(hello(), node="n9"))


def test_a_node_that_is_deleted_takes_its_incident_along() -> None:
    fleet = Fleet()
    knocks(fleet, hello())
    fleet.settle(ev.NodeDeleted(at=fleet.now, name="n1"))
    assert about_identity(fleet)[0].closed


def test_a_device_that_answered_does_not_hide_one_that_may_still_act() -> None:
    """Two power supplies: the first off order hangs until its slot is over, whatever the other device says."""
    fleet = fleet_with_vms()
    devices = tuple(FencingDevice(agent="fence_pdu", params={"ip": f"10.9.1.{i}"}, identity="Operator") for i in (1, 2))
    spec = NodeSpec(fencing=(FencingRung(devices=devices),))
    fleet.settle(ev.NodeApplied(at=fleet.now, name="n1", labels={}, spec=spec))
    fleet.run(12)
    fleet.silent.add("n1")
    fleet.hanging.add("n1")
    fleet.run_until(lambda: len([q for q in fleet.node("n1").questions.values() if q.question == "off"]) == 2, 60)
    asked = [q for q in fleet.node("n1").questions.values() if q.question == "off"]
    first, second = sorted(asked, key=lambda question: question.device)
    answer = ev.FenceAnswered(
        at=fleet.now, node="n1", question_id=second.question_id, answer=PowerAnswer.DONE, asked_at=fleet.now
    )
    fleet.settle(answer)
    attempt = fleet.node("n1").attempt
    assert attempt is not None
    assert attempt.may_act_until >= first.deadline
    assert off_may_act_until(fleet.node("n1"), fleet.now) >= first.deadline


def test_a_device_that_said_off_between_two_boots_is_still_trusted() -> None:
    """The node lost its power for a moment, and its next boot beats: the device spoke true."""
    fleet = fleet_with_vms()
    fleet.node("n1").readiness[0].off_at = fleet.now
    fleet.reboot("n1")
    fleet.run(3)
    assert "DeviceDistrusted n1" not in fleet.story()
    fleet.node("n1").readiness[0].off_at = fleet.now
    fleet.run(3)
    assert "DeviceDistrusted n1" in fleet.story()
