"""Snapshots, checkpoints and overlays of real qcow2 images: what libvirt knows of them is kept, or said to be left."""

from __future__ import annotations

import subprocess

import pytest

from cli.client import path_of
from cli.document import documents, text
from cli.errors import Failure
from lab.manifest import GuestKind
from lab.scene import Scene
from tests.laboratory.scenes import SceneMaker
from tests.laboratory.test_firmware import protected, started_because, stop

IMAGE_BYTES = 64 * 1024 * 1024  # the export does not grow
OVERLAY = "/var/lib/libvirt/v3.overlay"


def with_qcow2(fleet: Scene, name: str) -> str:
    """Return the manifest of a tiny guest whose disk on the shared storage holds a qcow2 image."""
    disk = fleet.laboratory.layout.disks_dir / f"{name}.raw"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "1M"], check=True)
    with disk.open("r+b") as file:
        file.truncate(IMAGE_BYTES)
    return fleet.laboratory.vm(name, GuestKind.TINY, host="h1").replace("type='raw'", "type='qcow2'")


def virsh_names(fleet: Scene, host: str, command: str, vm: str) -> list[str]:
    return fleet.laboratory.virsh(host, command, vm, "--name").split()


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_snapshots_are_kept_at_home_and_what_is_left_behind_is_said(scene: SceneMaker) -> None:
    fleet = scene("v1", "v2", "v3", hosts=2)
    for name in ("v1", "v2", "v3"):
        fleet.apply_text(with_qcow2(fleet, name))
    fleet.wait(lambda: all(fleet.counts(name) for name in fleet.names), "all to count")
    fleet.laboratory.virsh("h1", "snapshot-create-as", "v1", "before")
    fleet.laboratory.virsh("h1", "checkpoint-create-as", "v2", "since")
    spec = f"hda,file={OVERLAY}"
    fleet.laboratory.virsh("h1", "snapshot-create-as", "v3", "--disk-only", "--no-metadata", "--diskspec", spec)
    fleet.wait(lambda: "its 1 snapshot stays" in protected(fleet, "v1"), "the snapshot to be seen")
    fleet.wait(lambda: "its 1 checkpoint stays" in protected(fleet, "v2"), "the checkpoint to be seen")
    fleet.wait(lambda: OVERLAY in protected(fleet, "v3"), "the overlay to be seen")
    with pytest.raises(Failure, match="libvirt keeps snapshots of it"):
        fleet.verb("vms", "v1", "migrate", {"to": "h2"})
    for name in ("v1", "v2"):
        before = fleet.starts(name)
        stop(fleet, name)
        fleet.verb("vms", name, "start")
        fleet.wait(lambda name=name, before=before: fleet.starts(name) > before, f"{name} to run again")  # type: ignore[misc]
    assert virsh_names(fleet, "h1", "snapshot-list", "v1") == ["before"]
    assert virsh_names(fleet, "h1", "checkpoint-list", "v2") == ["since"]
    fleet.laboratory.power("h1", "off")
    fleet.wait(lambda: set(fleet.where()) == {"v1", "v2"}, "those of shared storage to run elsewhere")
    assert "libvirt's record of its 1 snapshot stays on h1" in started_because(fleet, "v1")
    assert "libvirt's record of its 1 checkpoint stays on h1" in started_because(fleet, "v2")
    fleet.laboratory.power("h1", "on")
    fleet.wait(lambda: fleet.where().get("v3") == "h1", "the overlay's VM to be back with its host")
    fleet.laboratory.virsh("h2", "snapshot-create-as", "v1", "after")
    fleet.wait(lambda: "its 1 snapshot stays" in protected(fleet, "v1"), "that snapshot to be seen")
    stop(fleet, "v1")
    fleet.client.delete(path_of("vms", "v1"))
    fleet.wait(lambda: not fleet.get("vms", "v1"), "v1 to be gone")
    for host in ("h1", "h2"):
        assert "v1" not in fleet.laboratory.virsh(host, "list", "--all", "--name").split()
    events = documents(fleet.client.get("/api/v1/events"), "items")
    assert any("libvirt's record of its 1 snapshot goes with it" in text(event, "reason") for event in events)
    assert fleet.faults() == []
