"""What virtward says of a move before it is made, against real libvirt and QEMU."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from aggregator.core.labels import HOSTNAME
from cli.client import path_of
from cli.document import documents, look, name_of, number, text
from cli.errors import Failure
from lab.scene import Scene
from tests.laboratory.scenes import SceneMaker

LINK_BYTES_PER_S = 10 * 1024 * 1024
CHECKS = (
    "LiveMigratable",
    "NodeReady",
    "Placement",
    "QEMUVersion",
    "Call",
    "MigrationNetwork",
    "Libvirt",
    "Ports",
    "Memory",
    "MachineType",
    "Storage",
    "Definition",
)


def live_migratable(fleet: Scene, name: str) -> tuple[str, str]:
    """Return (status, reason) of the condition."""
    for condition in documents(fleet.get("vms", name), "status.conditions"):
        if condition.get("type") == "LiveMigratable":
            return text(condition, "status"), text(condition, "reason")
    return "", ""


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_disk_that_was_plugged_in_from_its_host_forbids_the_move(scene: SceneMaker, tmp_path: Path) -> None:
    """The stored definition knows nothing of it; libvirt would refuse in the middle of a drain."""
    fleet = scene("v1", hosts=2)
    fleet.apply("v1", host="h1")
    fleet.wait(lambda: live_migratable(fleet, "v1") == ("True", "NothingAgainstIt"), "nothing to stand against it")
    image = tmp_path / "local.img"
    image.write_bytes(bytes(1 << 20))
    fleet.laboratory.virsh("h1", "attach-disk", "v1", str(image), "vdb", "--targetbus", "virtio", "--live")
    fleet.wait(lambda: live_migratable(fleet, "v1") == ("False", "DisksNotLiveMigratable"), "the disk to be seen")
    with pytest.raises(Failure, match="disk vdb is local to this node"):
        fleet.verb("vms", "v1", "migrate", {"to": "h2"})
    assert fleet.faults() == []


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_turn_begins_once_the_loss_of_another_host_was_thought_through(scene: SceneMaker) -> None:
    """Three hosts with room: the drain in turn begins by itself, and its guest arrives."""
    fleet = scene("v1")
    fleet.apply("v1", host="h1")
    fleet.client.post(path_of("drains"), {"labelSelector": f"{HOSTNAME}=h1"})
    fleet.wait(lambda: text(fleet.get("drains", "h1"), "status.phase") == "Done", "the turn to come and end")
    fleet.wait(lambda: fleet.all_count_once() and "h1" not in fleet.where().values(), "the guest to count elsewhere")
    assert fleet.starts("v1") == 1
    assert fleet.faults() == []


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_move_is_checked_at_both_ends_and_its_course_foretold(scene: SceneMaker) -> None:
    """Real libvirt, TLS and dirty-rate measurement: an idle guest converges, one that outruns the link does not."""
    fleet = scene("v1", "v2", hosts=2)
    fleet.apply("v1", host="h1")
    fleet.apply("v2", host="h1", memory_mib=256, dirty_mib_per_s=40)
    for node in ("h1", "h2"):
        fleet.client.patch(path_of("nodes", node), {"spec": {"migrationBandwidth": LINK_BYTES_PER_S}})
    found = fleet.verb("vms", "v1", "checkMigration", {"to": "h2"})
    told = {text(c, "name"): text(c, "status") for c in documents(found, "checks")}
    assert told == dict.fromkeys(CHECKS, "True"), found
    assert text(found, "forecast.verdict") == "Converges"
    found = fleet.verb("vms", "v2", "checkMigration", {"to": "h2"})
    assert text(found, "forecast.verdict") == "NeedsAutoConverge", found
    assert number(found, "forecast.dirtyBytesPerS") > LINK_BYTES_PER_S
    plan = documents(fleet.verb("nodes", "h1", "drain", {"dryRun": True}), "status.plan")
    assert {text(s, "vm"): text(s, "forecast.verdict") for s in plan} == {"v1": "Converges", "v2": "NeedsAutoConverge"}
    way = fleet.verb("nodes", "h2", "checkMigration", {"to": "h1"})
    assert look(way, "possible") is True, way
    fleet.laboratory.cut("h2", "migration")
    found = fleet.verb("vms", "v1", "checkMigration", {"to": "h2"})
    against = {text(c, "name") for c in documents(found, "checks") if text(c, "status") == "False"}
    assert against == {"Call", "MigrationNetwork"}, found
    assert fleet.faults() == []


TAKE_PORTS = """
import socket, time
taken = [socket.create_server(("0.0.0.0", port)) for port in range(49152, 49216)]
time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_target_without_a_free_port_refuses_before_libvirt_has_begun(scene: SceneMaker) -> None:
    """Every port of the range is taken on h2: the move fails in words, and the guest does not notice."""
    fleet = scene("v1", hosts=2)
    fleet.apply("v1", host="h1")
    h2 = fleet.laboratory.host("h2")
    h2.spawn("ports", [sys.executable, "-c", TAKE_PORTS], h2.dir / "ports.log")

    def has_none() -> bool:
        found = fleet.verb("vms", "v1", "checkMigration", {"to": "h2"})
        return "Ports" in {text(c, "name") for c in documents(found, "checks") if text(c, "status") == "False"}

    fleet.wait(has_none, "the ports to be taken")
    made = name_of(fleet.verb("vms", "v1", "migrate", {"to": "h2"}))
    fleet.wait(lambda: text(fleet.get("migrations", made), "status.phase") == "Failed", "the move to be refused")
    assert "h2 refuses it: Ports: 0 of 64 ports" in text(fleet.get("migrations", made), "status.reason")
    fleet.wait(lambda: fleet.phase("v1") == "Running" and fleet.all_count_once(), "the guest to count on")
    assert (fleet.where(), fleet.starts("v1")) == ({"v1": "h1"}, 1)
    assert fleet.faults() == []
