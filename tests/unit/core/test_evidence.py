"""What is seen of a silent node lands in its incident: who was asked, where, what came back, and how its talk ended."""

from __future__ import annotations

import pytest

from aggregator.core import events as ev
from aggregator.core.actions import SendProbe
from aggregator.core.events import NodeState, PowerAnswer
from aggregator.core.state import INCIDENT_STEPS_MAX, IncidentStep
from aggregator.core.views import incident_view
from fleet.messages import ProbeResult
from fleet.model import Plane
from tests.unit.core.fleet import Fleet
from tests.unit.core.test_node_failure import fleet_with_vms


def steps(fleet: Fleet, node: str, what: str) -> list[IncidentStep]:
    return [step for step in fleet.state.incidents[fleet.node(node).incident].steps if step.what == what]


def probed(fleet: Fleet, prober: str, *results: ProbeResult) -> None:
    fleet.settle(ev.ProbeAnswered(at=fleet.now, prober=prober, probe_id="probe-1", target="n1", results=tuple(results)))


def test_two_peers_and_the_device_are_asked_and_each_answer_is_kept_with_who_gave_it() -> None:
    fleet = fleet_with_vms()
    fleet.silent.add("n1")
    fleet.run_until(fleet.is_in("n1", NodeState.SUSPECT), 10)
    fleet.run(3)
    seen = steps(fleet, "n1", "ProbeAnswered")
    assert [step.who for step in seen] == ["n2", "n3"]
    assert all(f"{step.who} asked it on control: agent and libvirt and ssh: no answer" in step.detail for step in seen)
    assert all("on migration: " in step.detail for step in seen)
    (device,) = steps(fleet, "n1", "FenceAnswered")
    assert device.who == "its fence device"
    assert "says On" in device.detail or "ON" in device.detail.upper()


def test_an_answer_that_repeats_itself_is_counted_and_a_new_one_is_a_new_line() -> None:
    fleet = fleet_with_vms()
    fleet.silent.add("n1")
    fleet.off_answer["n1"] = PowerAnswer.ERROR
    fleet.run_until(fleet.is_in("n1", NodeState.SUSPECT), 10)
    fleet.run(20)
    first = [step for step in steps(fleet, "n1", "ProbeAnswered") if step.who == "n2"]
    assert len(first) == 1
    assert first[0].times > 10
    assert first[0].last_at > first[0].at + 10
    fleet.answers_at["n1"] = ("ssh",)
    fleet.run(5)
    both = [step for step in steps(fleet, "n1", "ProbeAnswered") if step.who == "n2"]
    assert len(both) == 2
    assert "ssh: answers" in both[1].detail
    view = incident_view(fleet.state.incidents[fleet.node("n1").incident])
    shown = next(step for step in view.status.steps if step.what == "ProbeAnswered" and step.who == "n2")
    assert shown.times == first[0].times
    assert shown.last_at.endswith("Z")


@pytest.mark.parametrize(
    ("how", "by_it", "said"),
    [
        (None, False, "shows no end"),
        ("reset", True, "reset by its own kernel: the host lived then"),
        ("closed", True, "closed by its own kernel: the host lived then"),
        ("goodbye", True, "said goodbye"),
        ("timeout", False, "ended by us (timeout)"),
    ],
)
def test_how_the_connection_ended_is_an_observation(how: str | None, *, by_it: bool, said: str) -> None:
    fleet = fleet_with_vms()
    fleet.silent.add("n1")
    session = fleet.node("n1").session
    assert session is not None
    if how is not None:
        fleet.settle(ev.SessionEnded(at=fleet.now, node="n1", session=session, how=how, by_it=by_it))
    fleet.run_until(fleet.is_in("n1", NodeState.SUSPECT), 10)
    (step,) = steps(fleet, "n1", "ConnectionSeen")
    assert said in step.detail


def test_the_end_of_a_relayed_connection_says_nothing_of_the_node() -> None:
    fleet = fleet_with_vms()
    fleet.cut_off("n1")
    fleet.run_until(lambda: bool(fleet.node("n1").via), 10)
    fleet.mend("n1")
    fleet.run(2)
    fleet.cut_off("n1")
    fleet.run_until(lambda: bool(fleet.node("n1").via), 10)
    node = fleet.node("n1")
    assert node.session is not None
    fleet.settle(ev.SessionEnded(at=fleet.now, node="n1", session=node.session, how="closed", by_it=True))
    incident = fleet.state.incidents[node.incident]
    incident.closed, node.incident = fleet.now, ""
    fleet.relayable.clear()
    fleet.silent.add("n1")
    fleet.run_until(fleet.is_in("n1", NodeState.SUSPECT), 10)
    (step,) = steps(fleet, "n1", "ConnectionSeen")
    assert f"ended by {node.via}, which carried it" in step.detail


def test_a_refusal_by_the_kernel_is_told_apart_from_silence() -> None:
    fleet = fleet_with_vms()
    fleet.silent.add("n1")
    fleet.run_until(fleet.is_in("n1", NodeState.SUSPECT), 10)
    refused = ProbeResult(Plane.CONTROL, "libvirt", answered=False, asked_ago_s=0.0, detail="nobody listens")
    silent = ProbeResult(Plane.CONTROL, "agent", answered=False, asked_ago_s=0.0, detail="no answer within 1 s")
    probed(fleet, "n3", silent, refused)
    newest = steps(fleet, "n1", "ProbeAnswered")[-1]
    assert newest.detail.endswith("n3 asked it on control: agent: no answer within 1 s, libvirt: nobody listens")


def test_a_full_incident_loses_observations_and_keeps_what_was_decided() -> None:
    fleet = fleet_with_vms()
    fleet.silent.add("n1")
    fleet.run_until(fleet.is_in("n1", NodeState.SUSPECT), 10)
    for number in range(INCIDENT_STEPS_MAX + 200):
        detail = f"another word {number}"
        probed(fleet, "n2", ProbeResult(Plane.CONTROL, "agent", answered=False, asked_ago_s=0.0, detail=detail))
    fleet.run_until(fleet.is_in("n1", NodeState.FENCED), 30)
    incident = fleet.state.incidents[fleet.node("n1").incident]
    kinds = [step.what for step in incident.steps]
    assert len(kinds) <= INCIDENT_STEPS_MAX
    assert {"IncidentOpened", "ConnectionSeen", "NodeLost", "NodeFencing", "NodeFenced", "StartDecided"} <= set(kinds)


def test_a_plane_on_which_only_ssh_was_asked_is_never_found_silent() -> None:
    fleet = fleet_with_vms()
    fleet.silent.add("n1")
    fleet.run_until(fleet.is_in("n1", NodeState.SUSPECT), 10)
    suspicion = fleet.node("n1").suspicion
    assert suspicion is not None
    suspicion.silent.clear()
    probed(fleet, "n2", ProbeResult(Plane.CONTROL, "ssh", answered=False, asked_ago_s=0.0, detail="nobody listens"))
    assert suspicion.silent == {}
    probed(fleet, "n2", ProbeResult(Plane.CONTROL, "libvirt", answered=False, asked_ago_s=0.0))
    assert list(suspicion.silent) == ["control"]


def test_peers_are_asked_in_turn_until_one_hears_it_and_that_one_again() -> None:
    fleet = fleet_with_vms(nodes=6)
    fleet.silent.add("n1")
    fleet.hears["n1"] = {"n5"}
    begin = len(fleet.actions)
    fleet.run_until(lambda: "RelaySought n1" in fleet.story(), 12)
    asked = [a.prober for a in fleet.actions[begin:] if isinstance(a, SendProbe)]
    assert asked[:4] == ["n2", "n3", "n4", "n5"]
    fleet.run(8)
    later = [a.prober for a in fleet.actions[begin:] if isinstance(a, SendProbe)][len(asked) :]
    assert later[::2] == ["n5"] * len(later[::2]), "it is asked every time"
    assert set(later[1::2]) > {"n2"}, "and the others in turn"
    assert fleet.node("n1").state in {NodeState.SUSPECT, NodeState.AGENT_LOST}
