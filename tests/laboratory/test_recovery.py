"""A host fails and its VMs count on elsewhere, never twice: on real libvirtd, QEMU, storage and IPMI."""

from __future__ import annotations

import time

import pytest

from cli.document import Document, documents, text
from cli.errors import Failure
from lab.scene import Scene
from tests.laboratory.scenes import SceneMaker

VMS = ("v1", "v2", "v3")
ALONE: Document = {"brake": {"window": "0s", "offOrdersPerHourMax": 100}}
"""For tests that break more than one node of one laboratory."""


def counts_elsewhere(scene: Scene, since_s: float, lost: str) -> bool:
    """Return whether every VM has counted since a moment on another host."""
    counted = scene.witness.counting_since(since_s, not_on=lost)
    return set(counted) == set(scene.names)


def test_a_power_cut_marks_the_node_and_its_vms_count_elsewhere_once(scene: SceneMaker) -> None:
    """Suspect, Fenced by the device's own word, restart where what-if said, return; a cordon survives it all."""
    fleet = scene(*VMS, "late")
    fleet.apply(*VMS, host="h1")
    fleet.verb("nodes", "h1", "cordon")
    foretold = documents(fleet.client.get("/api/v1/whatif", fail="h1"), "vms")
    cut_s = time.time()
    fleet.laboratory.power("h1", "off")
    fleet.wait(lambda: fleet.node_state("h1") == "Suspect", "h1 to be Suspect", 10)
    assert "virtward/not-ready:NoSchedule" in fleet.taints("h1")
    fleet.wait(lambda: fleet.node_state("h1") == "Fenced", "h1 to be Fenced", 15)
    assert set(fleet.taints("h1")) == {"virtward/unreachable:NoSchedule", "virtward/unreachable:NoExecute"}
    names = set(VMS)
    fleet.wait(lambda: names <= set(fleet.witness.counting_since(cut_s, not_on="h1")), "the VMs to count elsewhere")
    assert {text(fate, "vm"): text(fate, "node") for fate in foretold} == {name: fleet.where()[name] for name in VMS}
    fleet.apply("late", host="h1")
    assert fleet.where()["late"] != "h1"
    assert all(fleet.starts(name) == 2 for name in VMS)
    fleet.laboratory.power("h1", "on")
    fleet.wait(lambda: fleet.node_state("h1") == "Up", "h1 to be Up again")
    assert fleet.taints("h1") == []
    assert fleet.field("nodes", "h1", "spec.unschedulable") == "True"
    assert "h1" not in fleet.where().values()
    incident = fleet.incident_of("h1")
    assert text(incident, "status.phase") == "Closed"
    assert fleet.faults() == []


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_frozen_host_is_fenced_by_its_ladder_and_powered_on_again(scene: SceneMaker) -> None:
    """Its kernel still takes connections and its BMC says on: no sign of life, so it is shot, and comes back once."""
    fleet = scene(*VMS)
    fleet.apply(*VMS, host="h1")
    frozen_s = time.time()
    fleet.send("h1", "STOP")
    fleet.wait(lambda: fleet.first("NodeFenced", "h1", frozen_s) is not None, "h1 to be Fenced", 40)
    kinds = [h.kind for h in fleet.witness.happenings if h.node == "h1" and h.at_s > frozen_s]
    order = [kind for kind in kinds if kind.startswith("Node")]
    assert order.index("NodeSuspect") < order.index("NodeLost") < order.index("NodeFencing") < order.index("NodeFenced")
    assert "NodeAgentLost" not in order
    fleet.wait(lambda: counts_elsewhere(fleet, frozen_s, "h1"), "the VMs to count elsewhere")
    fleet.wait(lambda: fleet.node_state("h1") == "Up", "h1 to be powered on and Up again")
    assert "h1" not in fleet.where().values()
    assert fleet.faults() == []


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_host_whose_control_plane_alone_is_cut_speaks_through_a_peer(scene: SceneMaker) -> None:
    """It stays Up, degraded: its VMs count on, one can be stopped, none comes to it, until the cable is mended."""
    fleet = scene(*VMS, "late")
    fleet.apply(*VMS, host="h1")
    cut_s = time.time()
    fleet.laboratory.cut("h1", "control")
    fleet.wait(lambda: fleet.first("RelaySought", "h1", cut_s) is not None, "a peer to be asked to carry h1", 20)
    fleet.wait(lambda: fleet.condition("h1", "Degraded").startswith("True"), "h1 to speak through a peer", 20)
    fleet.wait(lambda: fleet.node_state("h1") == "Up", "h1 to be Up", 10)
    assert fleet.taints("h1") == ["virtward/degraded:NoSchedule"]
    later_s = time.time() + 15  # longer than it takes to be found Lost or AgentLost
    fleet.wait(lambda: time.time() > later_s and all(fleet.counts(name) for name in VMS), "the VMs to count on")
    assert fleet.node_state("h1") == "Up"
    fleet.verb("vms", "v1", "stop", {"force": True})
    fleet.wait(lambda: fleet.phase("v1") == "Stopped" and "v1" not in fleet.where(), "the stop to be obeyed", 20)
    fleet.apply("late", host="h1")
    assert fleet.where()["late"] != "h1"
    incident = fleet.incident_of("h1")
    assert "mend the control network" in text(incident, "status.wayOut")
    fleet.laboratory.heal("h1", "control")
    fleet.wait(lambda: fleet.condition("h1", "Degraded").startswith("False"), "h1 to speak for itself", 30)
    assert fleet.taints("h1") == []
    fleet.wait(lambda: text(fleet.incident_of("h1"), "status.phase") == "Closed", "the incident to be closed", 10)
    states = [
        h.kind for h in fleet.witness.happenings if h.node == "h1" and h.at_s > cut_s and h.kind.startswith("Node")
    ]
    assert states == ["NodeSuspect", "NodeUp"]
    assert all(fleet.starts(name) == 1 for name in VMS)
    assert fleet.faults() == []


def steps_of(fleet: Scene, node: str) -> list[Document]:
    """Return what the newest incident of a node holds, step by step."""
    return documents(fleet.incident_of(node), "status.steps")


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_an_agent_that_is_gone_for_good_costs_no_vm(scene: SceneMaker) -> None:
    """Peers hear the host's libvirt, so its VMs run: AgentLost, nothing is fenced, and Up once somebody starts it."""
    fleet = scene(*VMS)
    fleet.apply(*VMS, host="h1")
    killed_s = time.time()
    fleet.send("agent@h1", "KILL")
    fleet.wait(lambda: fleet.node_state("h1") == "AgentLost", "h1 to be AgentLost", 40)
    later_s = time.time() + 20
    fleet.wait(lambda: time.time() > later_s and fleet.all_count_once(), "the VMs to count on")
    assert fleet.node_state("h1") == "AgentLost"
    assert set(fleet.where().values()) == {"h1"}
    assert fleet.first("NodeFencing", "h1", killed_s) is None
    assert fleet.first("FenceAsked", "h1", killed_s) is None
    assert fleet.laboratory.fence_deeds() == {}
    seen = {(text(s, "what"), text(s, "who")): text(s, "detail") for s in steps_of(fleet, "h1")}
    assert "by its own kernel" in seen["ConnectionSeen", ""]
    for peer in ("h2", "h3"):
        words = seen["ProbeAnswered", peer]
        for plane in ("control", "migration"):
            assert f"on {plane}: agent" in words
        assert "libvirt: answers" in words
    assert "On" in seen["FenceAnswered", "its fence device"]
    fleet.start("agent@h1")
    fleet.wait(lambda: fleet.node_state("h1") == "Up", "h1 to be Up again")
    assert all(fleet.starts(name) == 1 for name in VMS)
    assert fleet.faults() == []


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("fault", ["fails", "hangs", "missing"])
def test_a_fence_device_without_proof_keeps_the_vms_down_until_a_person_vouches(scene: SceneMaker, fault: str) -> None:
    """No proof, no start: the Incident says why and what to do, and `fence --confirm-off` does it."""
    fleet = scene(*VMS, config=ALONE)
    fleet.apply(*VMS, host="h1")
    if fault == "missing":
        fleet.hide_fence_agents()
    else:
        fleet.laboratory.set_bmc("h1", fault)
    fleet.send("h1", "STOP")
    fleet.wait(
        lambda: "--confirm-off" in text(fleet.incident_of("h1"), "status.wayOut"),
        "the incident to name the way out",
        90,
    )
    assert fleet.node_state("h1") in {"Lost", "Fencing"}
    running = {name: host for name, host in fleet.where().items() if host != "h1"}
    assert running == {}
    fleet.laboratory.power("h1", "off")
    confirmed_s = time.time()
    fleet.wait(lambda: is_confirmed_off(fleet, "h1"), "the person's word to be taken", 30)
    fleet.wait(lambda: counts_elsewhere(fleet, confirmed_s, "h1"), "the VMs to count elsewhere")
    proof = fleet.first("NodeProven", "h1", confirmed_s)
    assert proof is not None
    if fault != "fails":  # that one refuses orders, but goes on to tell the truth: now it says off itself
        assert "Operator" in proof.message
    assert fleet.faults() == []


def is_confirmed_off(fleet: Scene, node: str) -> bool:
    """Vouch for a node as a person does; refused for a moment where its device said on just before."""
    try:
        fleet.verb("nodes", node, "fence", {"confirmOff": True})
    except Failure:
        return fleet.node_state(node) == "Fenced"
    return True


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_swapped_devices_are_found_before_anything_dies(scene: SceneMaker) -> None:
    """Each device answers and says on, but about the neighbour: shown by readiness, and a silent host is not shot."""
    fleet = scene(*VMS, config=ALONE)
    fleet.apply(*VMS, host="h1")
    fleet.laboratory.swap_bmcs("h1", "h2")
    fleet.wait(lambda: not fleet.fenceable("h1") and not fleet.fenceable("h2"), "readiness to find the swap", 30)
    found = fleet.condition("h1", "Fenceable")  # by itself, or by h2, whoever looked first
    assert "own controller is at" in found or "h2 finds this controller in itself" in found
    assert fleet.fenceable("h3")
    assert all(fleet.node_state(node) == "Up" for node in ("h1", "h2", "h3"))
    frozen_s = time.time()
    fleet.send("h1", "STOP")
    fleet.wait(
        lambda: "--confirm-off" in text(fleet.incident_of("h1"), "status.wayOut"),
        "the incident to name the way out",
        90,
    )
    later_s = time.time() + 10
    fleet.wait(lambda: time.time() > later_s, "a wrong shot to be fired")
    assert fleet.node_state("h2") == "Up"
    assert not [h for h in fleet.witness.happenings if h.kind == "NodeProven" and h.at_s > frozen_s]
    assert set(fleet.where().values()) <= {"h1"}
    fleet.send("h1", "CONT")
    fleet.wait(lambda: fleet.node_state("h1") == "Up" and fleet.all_count_once(), "h1 to go on as it was")
    assert all(fleet.starts(name) == 1 for name in VMS)
    fleet.laboratory.swap_bmcs("h1", "h2")
    fleet.wait(lambda: fleet.fenceable("h1") and fleet.fenceable("h2"), "the right devices to be trusted again")
    assert fleet.faults() == []
