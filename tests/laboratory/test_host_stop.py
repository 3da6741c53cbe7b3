"""A host that is shut down in order: emptied live first, its guests unbroken, and open again afterwards."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from agent.host_stop import FLAG
from tests.laboratory.scenes import SceneMaker

VMS = ("v1", "v2", "v3")


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_host_that_is_shut_down_is_emptied_live_and_takes_vms_again_when_it_is_back(scene: SceneMaker) -> None:
    fleet = scene(*VMS)
    fleet.apply(*VMS, host="h1")
    host = fleet.laboratory.host("h1")
    program = str(Path(sys.executable).with_name("virtward-agent"))
    said = host.run([program, "--config", str(host.dir / "agent.toml"), "--host-stop", "now", "--within", "100"])
    assert said.splitlines()[-1] == "no guest is left"
    assert "h1" not in fleet.where().values()
    fleet.wait(fleet.all_count_once, "all to count elsewhere")
    assert all(fleet.unbroken(name) for name in VMS)
    assert fleet.node_state("h1") == "Up"
    assert fleet.condition("h1", "Maintenance").startswith("True")
    (host.dir / "virtward-run" / FLAG).unlink()  # as the next boot does
    fleet.wait(lambda: fleet.taints("h1") == [], "h1 to take VMs again", 30)
    assert fleet.client.get("/api/v1/incidents")["items"] == []
    assert fleet.faults() == []
