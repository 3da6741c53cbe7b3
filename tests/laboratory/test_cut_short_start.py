"""libvirtd dies between writing a VM's status and letting its QEMU go: it comes back with a start that never ends.

What such a death leaves is laid out here as it was found after a real one (libvirt 9.0); the moment itself is too short
to be hit on purpose.
"""

from __future__ import annotations

import re

import pytest

from agent.abandoned import ABANDONED
from lab import libvirtd
from lab.hosts import Host
from lab.manifest import GuestKind
from tests.laboratory.agent_steps import kill
from tests.laboratory.scenes import SceneMaker

pytestmark = [pytest.mark.laboratory, pytest.mark.slow, pytest.mark.timeout(300)]

STARTING = "<domstatus state='paused' reason='starting up' pid='0'>"
JOB = "<job type='none' async='start' flags='0x8' asyncStarted='1795765245915'/>"


def leave_behind(host: Host, name: str, qemu: int) -> None:
    """Kill libvirtd and the VM's QEMU, and write what libvirtd would have written before that QEMU."""
    kill(host.pid_of("libvirtd"))
    kill(qemu)
    status = host.dir / "libvirt-run" / "qemu" / f"{name}.xml"
    text = re.sub("<domstatus [^>]*>", STARTING, status.read_text())
    status.write_text(re.sub("<job [^>]*/>", "", text).replace("<libDir", f"{JOB}<libDir", 1))


def test_a_start_cut_short_by_libvirtds_death_is_named_and_mended_with_its_next_start(scene: SceneMaker) -> None:
    """Until libvirtd starts anew the VM fails at once and says why; then it runs, without anybody's help."""
    fleet = scene(hosts=1, config={"restart": {"budget": 100}})
    host = fleet.laboratory.host("h1")
    for name in ("web-1", "web-2"):
        fleet.apply_text(fleet.laboratory.vm(name, GuestKind.TINY))
    fleet.wait(lambda: fleet.where() == {"web-1": "h1", "web-2": "h1"}, "both to run")
    other = fleet.laboratory.sample().vms["web-2"][0].pid
    leave_behind(host, "web-1", fleet.laboratory.sample().vms["web-1"][0].pid)
    host.spawn(
        "libvirtd", [libvirtd.LIBVIRTD, "--listen"], fleet.laboratory.dir / "libvirtd.log"
    )  # as without virtward
    fleet.wait(lambda: any(ABANDONED in h.message for h in fleet.witness.happenings), "it to be named")
    assert fleet.laboratory.virsh("h1", "domstate", "web-1", "--reason").strip() == "paused (starting up)"

    kill(host.pid_of("libvirtd"))
    host.start_libvirtd()
    fleet.wait(lambda: fleet.where() == {"web-1": "h1", "web-2": "h1"}, "both to run again")
    assert fleet.laboratory.sample().vms["web-2"][0].pid == other
    assert fleet.faults() == []
