"""The aggregator's store is lost for ever, and there is no backup: what agents know is enough."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli.document import Document, documents, mapping, text
from lab.scene import Scene
from tests.laboratory.scenes import SceneMaker

VMS = ("v1", "v2", "v3")
HOSTS = ("h1", "h2", "h3")
NAMED = ("h1", "h2")  # somebody forgets h3; the agents of the others know it


def lose_the_store(fleet: Scene) -> None:
    """Kill the aggregator and delete all that it has written but for its authority; begin anew."""
    aggregator = fleet.laboratory.aggregator
    fleet.send(aggregator.role, "KILL")
    fleet.wait(lambda: aggregator.pid is None, "the aggregator to be gone")
    state_dir = aggregator.dir / "state"
    program = str(Path(sys.executable).with_name("virtward-aggregator"))
    command = [program, "--config", str(aggregator.dir / "aggregator.toml"), "rebuild", *NAMED]
    refused = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (refused.returncode, "move it away first" in refused.stderr) == (1, True), refused.stderr
    for path in state_dir.iterdir():
        if path.is_file():
            path.unlink()
    subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)


def told(fleet: Scene, vm: str) -> dict[str, object]:
    """What a person wrote of a VM, and where it runs."""
    found = fleet.get("vms", vm)
    spec = {key: value for key, value in mapping(found, "spec").items() if key != "domainXML"}
    return {"labels": mapping(found, "metadata.labels"), "spec": spec, "node": text(found, "status.node")}


def has_told_what_changed(fleet: Scene, vm: str) -> bool:
    """Return whether the newest order that gives a VM to keep was carried out."""
    said = [each for each in fleet.witness.happenings if each.vm == vm]
    orders = [each.message.split()[1] for each in said if each.message.startswith("SetIsolation ")]
    return bool(orders) and any(f"{orders[-1]} Done" in each.message for each in said)


def open_incidents(fleet: Scene) -> list[Document]:
    found = documents(fleet.client.get("/api/v1/incidents"), "items")
    return [each for each in found if text(each, "status.phase") != "Closed"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_fleet_is_known_again_from_its_agents_and_no_guest_notices(scene: SceneMaker) -> None:
    """Nothing is done before the last member has spoken; then all is as it was, and the next failure is recovered."""
    fleet = scene(*VMS)
    fleet.apply("v1", "v3", host="h1")
    fleet.apply("v2", host="h2")
    fleet.client.patch("/api/v1/vms/v1", {"metadata": {"labels": {"tier": "gold"}}, "spec": {"restartPriority": 900}})
    fleet.verb("vms", "v3", "migrate", {"to": "h2"})
    fleet.wait(lambda: fleet.where().get("v3") == "h2", "v3 to be on h2")
    fleet.wait(lambda: all(fleet.phase(vm) == "Running" for vm in VMS), "all to be Running")
    fleet.wait(lambda: has_told_what_changed(fleet, "v1"), "the agent to keep what changed of v1")
    before = {vm: told(fleet, vm) for vm in VMS}
    nodes = {host: mapping(fleet.get("nodes", host), "spec") for host in HOSTS}
    fleet.send("agent@h3", "STOP")

    lose_the_store(fleet)
    fleet.start("aggregator@1")
    fleet.wait(lambda: fleet.node_state("h1") == fleet.node_state("h2") == "Up", "h1 and h2 to be Up")
    fleet.wait(lambda: "h3" in text(next(iter(open_incidents(fleet)), {}), "status.wayOut"), "the incident to name h3")
    assert documents(fleet.client.get("/api/v1/vms"), "items") == []
    fleet.send("agent@h3", "CONT")
    fleet.wait(lambda: all(fleet.phase(vm) == "Running" for vm in VMS), "the VMs to be known again")
    fleet.wait(lambda: open_incidents(fleet) == [], "the incident about the store to be closed")
    assert {vm: told(fleet, vm) for vm in VMS} == before
    assert all(fleet.unbroken(vm) for vm in VMS)

    for host, spec in nodes.items():
        fleet.client.put(
            f"/api/v1/nodes/{host}",
            {"apiVersion": "virtward/v1", "kind": "Node", "metadata": {"name": host}, "spec": spec},
        )
    fleet.wait(lambda: all(fleet.fenceable(host) for host in HOSTS), "every fence device to be checked again")
    cut_s = time.time()
    fleet.laboratory.power("h2", "off")
    fleet.wait(lambda: set(fleet.witness.counting_since(cut_s, not_on="h2")) == set(VMS), "the VMs to count elsewhere")
    assert fleet.faults() == []
