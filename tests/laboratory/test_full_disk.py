"""The disk under the agent's ledger is full: VMs are started, stopped and brought back all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.hosts import Host
from lab.manifest import GuestKind
from tests.laboratory.agent_steps import kill
from tests.laboratory.scenes import SceneMaker

pytestmark = [pytest.mark.laboratory, pytest.mark.slow, pytest.mark.timeout(300)]

KEEP = "cp -a {0} {0}.kept && mount -t tmpfs -o size=24m none {0} && cp -a {0}.kept/. {0}"
FILL = "dd if=/dev/zero of={0}/others bs=4096 2>/dev/null; df --output=avail {0} | tail -n 1"


def free_blocks(host: Host) -> int:
    """Fill the disk under the agent's state; return what is free of it afterwards."""
    return int(host.run(["sh", "-c", FILL.format(host.dir / "agent")]))


def test_a_full_disk_under_the_ledger_stops_no_order(scene: SceneMaker) -> None:
    fleet = scene(hosts=1)
    host = fleet.laboratory.host("h1")
    kill(host.pid_of("agent"))
    host.run(["sh", "-c", KEEP.format(host.dir / "agent")])
    fleet.start("agent@h1")
    spare = Path(f"/proc/{host.init}/root{host.dir}/agent/ledger.new")
    fleet.wait(lambda: spare.stat().st_blocks > 0, "the agent to have reserved what it needs")
    assert free_blocks(host) == 0

    for name in ("web-1", "web-2"):
        fleet.apply_text(fleet.laboratory.vm(name, GuestKind.TINY))
    fleet.wait(lambda: fleet.where() == {"web-1": "h1", "web-2": "h1"}, "both to run")
    fleet.verb("vms", "web-1", "stop", {"force": True})
    fleet.wait(lambda: fleet.phase("web-1") == "Stopped", "web-1 to stop")
    assert free_blocks(host) == 0
    kill(host.pid_of("agent"))
    fleet.start("agent@h1")
    kill(fleet.laboratory.sample().vms["web-2"][0].pid)
    fleet.wait(lambda: fleet.where() == {"web-2": "h1"}, "web-2 to be started again")
    fleet.verb("vms", "web-1", "start", {})
    fleet.wait(lambda: fleet.where() == {"web-1": "h1", "web-2": "h1"}, "both to run again")
    assert fleet.faults() == []
