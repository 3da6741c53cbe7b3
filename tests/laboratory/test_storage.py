"""One host loses the storage that the others reach: its VMs count on elsewhere, and nobody writes twice."""

from __future__ import annotations

import subprocess
import time

import pytest

from cli.document import Document
from lab import namespaces
from lab.layout import NBD_PORT
from lab.scene import Scene
from tests.laboratory.scenes import SceneMaker

SOON: Document = {"storageLossAfter": "10s"}


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_host_cut_from_its_storage_gives_its_vms_away(scene: SceneMaker) -> None:
    """It beats and is well but for its disks: tainted, its VMs ended there and started elsewhere, never twice.

    QEMU's NBD client waits for ever and pauses nobody, so what the host's own sockets say is the evidence. What the
    guests wrote last waits in those sockets and outlives the QEMUs: it must not reach the disks later.
    """
    fleet = scene("v1", "v2", "v3", config=SOON)
    fleet.apply("v1", "v2", host="h1")
    fleet.apply("v3", host="h2")
    cut_s = time.time()
    fleet.laboratory.cut("h1", "storage")
    fleet.wait(lambda: "virtward/storage-unreachable:NoSchedule" in fleet.taints("h1"), "h1 to be tainted", 40)
    assert fleet.condition("h1", "StorageReachable").startswith("False no answer from nbd://")
    names = {"v1", "v2"}
    fleet.wait(lambda: names <= set(fleet.witness.counting_since(cut_s + 5, not_on="h1")), "the VMs elsewhere", 150)
    assert closing_sockets(fleet, "h1") == ""
    fleet.laboratory.heal("h1", "storage")
    fleet.wait(lambda: fleet.node_state("h1") == "Up" and fleet.taints("h1") == [], "h1 to be well again", 90)
    later_s = time.time() + 20
    fleet.wait(lambda: time.time() > later_s and fleet.all_count_once(), "everything to count on")
    assert fleet.faults() == []


def closing_sockets(fleet: Scene, host: str) -> str:
    """Return the sockets of a host that no process holds and that still have something to send to the storage."""
    command = ["ss", "--no-header", "--numeric", "--tcp", "state", "fin-wait-1", f"( dport = :{NBD_PORT} )"]
    inside = namespaces.inside(fleet.laboratory.layout.namespace(host), command)
    return subprocess.run(inside, capture_output=True, text=True, check=True).stdout.strip()
