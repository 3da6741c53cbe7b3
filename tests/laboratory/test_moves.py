"""Running VMs move without losing a beat, and libvirt's own hand-over trap runs nothing twice."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator

import pytest

from cli.document import text
from lab.laboratory import Laboratory
from lab.layout import LIBVIRT_PORT
from lab.scene import Scene
from lab.truth import Cpus, twice
from lab.witness import gap_between_s
from tests.laboratory.lab_steps import counts_on, define, peer_uri, wait_for
from tests.laboratory.scenes import SceneMaker

VMS = ("v1", "v2", "v3")
GAP_S_MAX = 1.0
COPY_MIB, DIRTY_MIB_PER_S, COPY_MBIT = 256, 20, 400
"""A copy of some seconds that converges: long enough to be hit in the middle, short against the keepalive."""
REPLY_LOST_S = 40.0  # libvirt's keepalive is 5 x 5 s; then the source decides alone


def test_a_drain_moves_every_guest_live_and_its_count_goes_on(scene: SceneMaker) -> None:
    """Three guests leave a host: none starts again, no gap is over a second, the host stays empty until uncordon."""
    fleet = scene(*VMS)
    fleet.apply(*VMS, host="h1")
    begun_s = time.time()
    fleet.verb("nodes", "h1", "drain")
    fleet.wait(lambda: text(fleet.get("drains", "h1"), "status.phase") == "Done", "the drain to be done")
    ended_s = time.time()
    fleet.wait(lambda: fleet.all_count_once() and "h1" not in fleet.where().values(), "every VM to count elsewhere")
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
    """The trap of the next test at the same phase, sprung on virtward: one copy counts, and it converges."""
    fleet = scene("v1")
    fleet.apply("v1", host="h1", memory_mib=COPY_MIB, dirty_mib_per_s=DIRTY_MIB_PER_S)
    fleet.laboratory.slow("h1", "migration", COPY_MBIT)
    fleet.verb("vms", "v1", "migrate", {"to": "h2"})
    fleet.wait(lambda: fleet.phase("v1") == "Migrating", "the migration to begin")
    lose_the_targets_replies(fleet.laboratory, "v1")
    fleet.wait(lambda: cpus(fleet, "h1") == Cpus.FINISHED, "the source to have sent everything")
    later_s = time.time() + REPLY_LOST_S
    fleet.wait(lambda: time.time() > later_s, "libvirt's keepalive to run out", REPLY_LOST_S + 30)
    assert len(fleet.where()) == 1
    fleet.laboratory.heal("h1", "migration")
    fleet.laboratory.heal("h2", "migration")
    fleet.wait(lambda: fleet.all_count_once() and fleet.phase("v1") == "Running", "one copy to run and count")
    fleet.wait(lambda: fleet.where() == {"v1": fleet.field("vms", "v1", "status.node")}, "virtward to know where")
    fleet.wait(lambda: len(fleet.witness.sample.vms["v1"]) == 1, "the other half to be gone")
    assert fleet.starts("v1") == 1
    assert fleet.faults() == []
    assert fleet.laboratory.twice_seen() == []


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_plain_libvirt_runs_a_vm_twice_when_the_reply_of_the_hand_over_is_lost(laboratory: Laboratory) -> None:
    """The trap is real on this machine: only so does the test above prove anything. Nobody of virtward is here."""
    wishes = {"memory_mib": COPY_MIB, "dirty_mib_per_s": DIRTY_MIB_PER_S}
    define(laboratory, "h1", "trap", **wishes)
    laboratory.virsh("h1", "start", "trap")
    counts_on(laboratory, "trap")
    laboratory.slow("h1", "migration", COPY_MBIT)
    words = [
        "migrate",
        "--live",
        "--p2p",
        "--tls",
        "--persistent",
        "--undefinesource",
        "trap",
        peer_uri(laboratory, "h2"),
    ]
    with migrating_by_virsh(laboratory, "h1", words):
        lose_the_targets_replies(laboratory, "trap")
        wait_for(lambda: twice(laboratory.sample()) == ["trap"], "libvirt to run it twice", 90)
        wait_for(lambda: {line.host for line in laboratory.guest_log("trap")[-20:]} == {"h1", "h2"}, "both to count")
    # No `split`: both halves are one life of the guest, with one nonce; only the ground truth tells them apart.
    wait_for(laboratory.twice_seen, "the observer to look and write it down")


def lose_the_targets_replies(laboratory: Laboratory, vm: str) -> None:
    """Wait until memory is being copied, then let nothing that h2's libvirtd says reach anybody.

    Prepare is answered by then, Finish is not asked yet: so the reply of Finish is the one that is lost.
    """
    wait_for(lambda: copied_bytes(laboratory, "h1", vm) > 0, "memory to be copied")
    laboratory.mute("h2", "migration", LIBVIRT_PORT)
    assert [q.cpus for q in laboratory.sample().vms[vm] if q.host == "h2"] == [Cpus.INCOMING]


def copied_bytes(laboratory: Laboratory, host: str, vm: str) -> int:
    """How much the migration job has sent; 0 without one."""
    lines = laboratory.virsh(host, "domjobinfo", "--rawstats", vm).splitlines()
    values = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(values.get("memory_processed", "0"))


def cpus(fleet: Scene, host: str) -> Cpus | None:
    """What the CPUs of the copy on a host do."""
    return next((q.cpus for q in fleet.witness.sample.vms.get("v1", []) if q.host == host), None)


@contextlib.contextmanager
def migrating_by_virsh(laboratory: Laboratory, host: str, words: list[str]) -> Iterator[None]:
    """A migration by hand beside the test; virsh is ended afterwards whatever it waits for."""
    process = subprocess.Popen(["virsh", "-q", "-c", laboratory.host(host).uri(), *words], stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()
