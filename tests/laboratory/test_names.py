"""VMs whose names hold every character that libvirt takes: started, moved, killed, stopped and deleted as any other."""

from __future__ import annotations

from xml.sax.saxutils import escape

import msgspec
import pytest

from cli.client import path_of
from lab.manifest import GuestKind
from tests.laboratory.scenes import SceneMaker

NAMES = {
    "odd1": "Ünïcode VM",
    "odd2": "a b:c@d#1,e=f",
    "odd3": "100% \"quoted\" & 'so' <on>",
    "odd4": "-rf $(id) `id` ; *?[x]\\",
    "odd5": "x" * 247,
}


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_vm_of_any_name_lives_its_whole_life(scene: SceneMaker) -> None:
    fleet = scene(*NAMES, hosts=2)
    for short, name in NAMES.items():
        manifest = fleet.laboratory.vm(short, GuestKind.TINY, host="h1", tick_ms=500)
        manifest = manifest.replace(f'name: "{short}"', f"name: {msgspec.json.encode(name).decode()}")
        fleet.apply_text(manifest.replace(f"<name>{short}</name>", f"<name>{escape(name)}</name>"))
    everybody = list(NAMES.values())
    fleet.wait(lambda: all(fleet.phase(name) == "Running" for name in everybody), "all to run")
    fleet.wait(lambda: all(fleet.counts(short) for short in NAMES), "all to count")
    for name in everybody:
        fleet.verb("vms", name, "migrate", {"to": "h2"})
    fleet.wait(lambda: all(fleet.field("vms", n, "status.node") == "h2" for n in everybody), "all to have moved")
    fleet.wait(lambda: all(fleet.phase(name) == "Running" for name in everybody), "all to run there")
    assert all(fleet.unbroken(short) for short in NAMES)
    for qemus in fleet.laboratory.sample().vms.values():
        (qemu,) = qemus
        assert qemu.host == "h2"
    fleet.laboratory.power("h2", "off")
    fleet.wait(lambda: all(fleet.starts(short) == 2 and fleet.counts(short) for short in NAMES), "all to count again")
    for name in everybody:
        fleet.verb("vms", name, "stop", {"force": True})
    fleet.wait(lambda: all(fleet.phase(name) == "Stopped" for name in everybody), "all to be stopped")
    for name in everybody:
        fleet.client.delete(path_of("vms", name))
    fleet.wait(lambda: all(not fleet.get("vms", name) for name in everybody), "all to be gone")
    assert fleet.laboratory.virsh("h1", "list", "--all", "--name").split() == []
    assert fleet.faults() == []
