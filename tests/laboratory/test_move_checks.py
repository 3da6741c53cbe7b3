"""What virtward says of a move before it is made, against real libvirt and QEMU."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.document import documents, text
from cli.errors import Failure
from lab.scene import Scene
from tests.laboratory.scenes import SceneMaker


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
