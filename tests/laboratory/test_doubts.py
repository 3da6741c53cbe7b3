"""What looks like dead hosts and is not: nobody is convicted, nobody is fenced, every guest counts on unbroken.

What the fence devices were told is read from the BMCs themselves, what runs from the process table.
"""

from __future__ import annotations

import time

import pytest

from cli.document import Document, documents, text
from lab.scene import Scene
from tests.laboratory.scenes import SceneMaker

VMS = ("v1", "v2", "v3")
VERDICTS = {"NodeLost", "NodeFencing", "NodeFenced", "NodeProven"}
DEEDS = {"StartDecided", "OwnerChanged", "RunEnded", "BindingFreed"}


def one_vm_a_host(scene: SceneMaker) -> Scene:
    """Three hosts with a counting VM each."""
    fleet = scene(*VMS)
    for number, name in enumerate(VMS, start=1):
        fleet.apply(name, host=f"h{number}")
    return fleet


def check_that_nothing_was_done(fleet: Scene, since_s: float) -> None:
    """No verdict and no deed since a moment, no order to a BMC ever, and every count is unbroken."""
    assert not (VERDICTS | DEEDS) & set(fleet.kinds(since_s))
    assert fleet.laboratory.fence_deeds() == {}
    assert fleet.where() == {"v1": "h1", "v2": "h2", "v3": "h3"}
    assert all(fleet.unbroken(name) for name in VMS)
    assert fleet.faults() == []


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["agents stand still", "control plane cut"])
def test_two_of_three_agents_are_slow_to_return_after_a_minute_without_aggregator(scene: SceneMaker, how: str) -> None:
    """Silence before its start is not silence, and then more are silent than the brake lets through."""
    fleet = one_vm_a_host(scene)
    killed_s = time.time()
    fleet.send("aggregator@1", "KILL")
    fleet.wait(lambda: time.time() > killed_s + 60 and fleet.all_count_once(), "a minute without aggregator", 120)
    for host in ("h2", "h3"):
        if how == "agents stand still":
            fleet.send(f"agent@{host}", "STOP")
        else:
            fleet.laboratory.cut(host, "control")
    fleet.start("aggregator@1")
    fleet.wait(lambda: fleet.node_state("h1") == "Up", "h1 to be heard")
    later_s = time.time() + 25  # longer than a node may be unseen before anybody asks after it
    fleet.wait(lambda: time.time() > later_s and fleet.all_count_once(), "the VMs to count on")
    for host in ("h2", "h3"):
        if how == "agents stand still":
            fleet.send(f"agent@{host}", "CONT")
        else:
            fleet.laboratory.heal(host, "control")
    fleet.wait(lambda: all(fleet.node_state(f"h{n}") == "Up" for n in (1, 2, 3)), "every node to be Up")
    fleet.wait(lambda: all(fleet.phase(name) == "Running" for name in VMS), "every VM to be known again")
    check_that_nothing_was_done(fleet, killed_s)


@pytest.mark.timeout(180)
def test_two_of_three_hosts_cut_at_once_close_the_brake(scene: SceneMaker) -> None:
    """Their devices say on and would obey: nobody is shot, an incident says why and what a person can do."""
    fleet = one_vm_a_host(scene)
    cut_s = time.time()
    for host in ("h1", "h2"):
        for plane in ("control", "migration"):
            fleet.laboratory.cut(host, plane)
    fleet.wait(lambda: mass_outage(fleet) != {}, "an incident about the outage", 40)
    outage = mass_outage(fleet)
    assert "h1, h2" in text(outage, "status.title")
    assert "--confirm-off" in text(outage, "status.wayOut")
    later_s = cut_s + 20  # longer than a silent host lives when it is one alone
    fleet.wait(lambda: time.time() > later_s and fleet.all_count_once(), "the VMs to count on")
    assert {fleet.node_state("h1"), fleet.node_state("h2")} == {"Suspect"}
    for host in ("h1", "h2"):
        incident = fleet.incident_of(host)
        assert f"virtward fence {host} --confirm-off" in text(incident, "status.wayOut")
    for host in ("h1", "h2"):
        for plane in ("control", "migration"):
            fleet.laboratory.heal(host, plane)
    fleet.wait(lambda: all(fleet.node_state(f"h{n}") == "Up" for n in (1, 2, 3)), "every node to be Up")
    fleet.wait(lambda: all(fleet.phase(name) == "Running" for name in VMS), "every VM to be known again")
    check_that_nothing_was_done(fleet, cut_s)


def mass_outage(fleet: Scene) -> Document:
    """Return the incident that names a mass outage; empty when there is none."""
    found = documents(fleet.client.get("/api/v1/incidents"), "items")
    return next((i for i in found if "mass outage" in text(i, "status.title")), {})
