"""A host whose own check program says that it is about to die: emptied live, and open again when it is well."""

from __future__ import annotations

import pytest

from lab.daemons import CHECKS, DISK_CHECK
from tests.laboratory.scenes import SceneMaker


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_host_that_calls_itself_failing_is_emptied_before_it_dies(scene: SceneMaker) -> None:
    fleet = scene("v1")
    fleet.apply("v1", host="h1")
    directory = fleet.laboratory.host("h1").dir / CHECKS
    directory.mkdir()
    check = directory / DISK_CHECK
    check.write_text("#!/bin/sh\necho 'sda: 12 sectors pending'\nexit 2\n")
    check.chmod(0o755)
    fleet.wait(lambda: "virtward/degraded:NoExecute" in fleet.taints("h1"), "the check to taint its host", 60)
    assert fleet.condition("h1", "Degraded") == "True disk: sda: 12 sectors pending"
    fleet.wait(lambda: fleet.where().get("v1") not in (None, "h1") and fleet.all_count_once(), "the guest to leave", 60)
    assert fleet.starts("v1") == 1
    check.unlink()
    fleet.wait(lambda: fleet.taints("h1") == [], "the taint to go", 60)
    assert fleet.faults() == []
