"""Running VMs move without losing a beat, and libvirt's own hand-over trap runs nothing twice."""

from __future__ import annotations

import time

import pytest

from cli.document import text
from lab.witness import gap_between_s
from tests.laboratory.scenes import SceneMaker

VMS = ("v1", "v2", "v3")
GAP_S_MAX = 1.0


def test_a_drain_moves_every_guest_live_and_its_count_goes_on(scene: SceneMaker) -> None:
    """Three guests leave a host: none starts again, no gap is over a second, the host stays empty until uncordon."""
    fleet = scene(*VMS)
    fleet.apply(*VMS, host="h1")
    begun_s = time.time()
    fleet.verb("nodes", "h1", "drain")
    fleet.wait(lambda: text(fleet.get("drains", "h1"), "status.phase") == "Done", "the drain to be done")
    ended_s = time.time()
    fleet.wait(fleet.all_count_once, "every VM to count")
    assert "h1" not in fleet.where().values()
    assert "virtward/maintenance:NoSchedule" in fleet.taints("h1")
    for name in VMS:
        assert fleet.starts(name) == 1
        assert gap_between_s(fleet.witness.guests[name].ticks, begun_s, ended_s) <= GAP_S_MAX
    fleet.verb("nodes", "h1", "uncordon")
    fleet.wait(lambda: fleet.taints("h1") == [], "the maintenance taint to go")
    assert fleet.faults() == []


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_hand_over_whose_reply_is_lost_does_not_run_the_vm_twice(scene: SceneMaker) -> None:
    """The target's libvirtd answers nobody from the middle of the migration on: one copy counts, and it converges.

    This is the trap in which libvirt alone runs both (field notes, reproduced with libvirt 9.0).
    """
    fleet = scene("v1")
    fleet.apply("v1", host="h1", memory_mib=256, dirty_mib_per_s=20)
    fleet.laboratory.slow("h1", "migration", 400)
    fleet.verb("vms", "v1", "migrate", {"to": "h2"})
    fleet.wait(lambda: fleet.phase("v1") == "Migrating", "the migration to begin")
    fleet.wait(
        lambda: any(q.cpus == "incoming" for q in fleet.witness.sample.vms.get("v1", [])), "the copy to be under way"
    )
    fleet.laboratory.cut("h2", "migration", "out")
    later_s = time.time() + 45
    fleet.wait(lambda: time.time() > later_s, "libvirt's keepalive to run out", 60)
    fleet.laboratory.heal("h1", "migration")
    fleet.laboratory.heal("h2", "migration")
    fleet.wait(lambda: fleet.all_count_once() and fleet.phase("v1") == "Running", "one copy to run and count")
    assert fleet.starts("v1") <= 2  # both halves may have been lost; then it was started once more
    assert fleet.faults() == []
