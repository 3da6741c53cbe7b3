"""Guests with UEFI and an emulated TPM, real firmware and a real swtpm: what their hosts keep for them is not lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cli.client import path_of
from cli.document import documents, look, text
from lab.layout import NBD_PORT, STORAGE_ADDRESS
from lab.manifest import GuestKind
from lab.scene import Scene
from tests.laboratory.scenes import SceneMaker
from tests.laboratory.test_move_checks import live_migratable

FIRMWARE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
VARIABLES = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
SWTPM = Path("/usr/bin/swtpm_setup")
TPM = "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>"
ELSEWHERE = "stays on its host: elsewhere it starts with an older or a new one"
ERASED = b"\xff"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        not (FIRMWARE.exists() and SWTPM.exists()), reason="the packages ovmf and swtpm-tools are not installed"
    ),
]


def with_firmware(fleet: Scene, name: str, *, tpm: bool = False) -> str:
    """Return the manifest of a linux guest with UEFI, its NVRAM where libvirt keeps it unless told otherwise."""
    manifest = fleet.laboratory.vm(name, GuestKind.LINUX, host="h1", memory_mib=256)
    manifest = manifest.replace("<os>", "<os firmware='efi'>")
    return manifest.replace("<memballoon", TPM + "<memballoon") if tpm else manifest


def with_shared_nvram(fleet: Scene, name: str, disk: str) -> str:
    """Return the same with the NVRAM on the laboratory's storage, begun from the firmware's template."""
    shutil.copy(VARIABLES, fleet.laboratory.layout.disks_dir / f"{disk}.raw")
    fleet.laboratory.storage.ensure_disk(disk)
    source = f"<source protocol='nbd' name='{disk}'><host name='{STORAGE_ADDRESS}' port='{NBD_PORT}'/></source>"
    loader = f"<loader readonly='yes' type='pflash'>{FIRMWARE}</loader><nvram type='network'>{source}</nvram>"
    return with_firmware(fleet, name).replace("<os firmware='efi'>", f"<os>{loader}")


def kept(fleet: Scene, host: str) -> Path:
    return fleet.laboratory.host(host).dir / "var-lib-libvirt"


def written(file: Path) -> int:
    """Return how many bytes of an NVRAM are written: each boot adds some, and a new one has few."""
    return len(file.read_bytes()) - file.read_bytes().count(ERASED)


def tpm_state(fleet: Scene, host: str) -> list[int]:
    """Return the inodes of the TPM states on a host: a TPM that is made anew has a new one."""
    return [file.stat().st_ino for file in kept(fleet, host).glob("swtpm/*/tpm2")]


def counts_anew(fleet: Scene, name: str, starts: int) -> None:
    fleet.wait(lambda: fleet.starts(name) == starts and fleet.counts(name), f"{name} to count in its run {starts}")


def moves(fleet: Scene, name: str, target: str, source: str) -> None:
    fleet.verb("vms", name, "migrate", {"to": target})
    fleet.wait(lambda: fleet.field("vms", name, "status.node") == target, f"{name} to be on {target}")
    fleet.wait(lambda: fleet.phase(name) == "Running" and fleet.counts(name), f"{name} to count there")
    fleet.wait(lambda: tpm_state(fleet, source) == [], f"{source} to have given its TPM away")


def stop(fleet: Scene, name: str) -> None:
    fleet.verb("vms", name, "stop", {"force": True})
    fleet.wait(lambda: fleet.phase(name) == "Stopped", f"{name} to be stopped")


def test_nvram_and_tpm_outlive_stop_restart_move_and_delete(scene: SceneMaker) -> None:
    fleet = scene("v1", hosts=2)
    fleet.apply_text(with_firmware(fleet, "v1", tpm=True))
    counts_anew(fleet, "v1", 1)
    nvram = kept(fleet, "h1") / "qemu/nvram/v1_VARS.fd"
    first, tpm = written(nvram), tpm_state(fleet, "h1")
    assert len(tpm) == 1
    stop(fleet, "v1")
    fleet.verb("vms", "v1", "start")
    counts_anew(fleet, "v1", 2)
    second = written(nvram)
    assert second > first
    assert tpm_state(fleet, "h1") == tpm
    assert live_migratable(fleet, "v1") == ("True", "NothingAgainstIt")
    for target, source in (("h2", "h1"), ("h1", "h2")):  # and back: over what it left behind
        moves(fleet, "v1", target, source)
        assert written(kept(fleet, target) / "qemu/nvram/v1_VARS.fd") == second
        assert len(tpm_state(fleet, target)) == 1
    stop(fleet, "v1")
    tpm = tpm_state(fleet, "h1")
    fleet.client.delete(path_of("vms", "v1"))
    fleet.wait(lambda: not fleet.get("vms", "v1"), "v1 to be gone")
    assert fleet.laboratory.virsh("h1", "list", "--all", "--name").split() == []
    assert written(nvram) >= second
    assert tpm_state(fleet, "h1") == tpm
    assert len(tpm) == 1
    assert fleet.faults() == []


def test_a_lost_host_takes_a_local_nvram_with_it_and_says_so(scene: SceneMaker) -> None:
    """On shared storage it is there for the next start; else that begins with a new one, which was said beforehand."""
    fleet = scene("v1", "v2", hosts=2)
    shared = fleet.laboratory.layout.disks_dir / "nvram.raw"
    assert look(fleet.apply_text(with_shared_nvram(fleet, "v1", "nvram")), "warnings") == []
    assert "its NVRAM stays on its host" in str(look(fleet.apply_text(with_firmware(fleet, "v2")), "warnings"))
    for name in ("v1", "v2"):
        counts_anew(fleet, name, 1)
    own = kept(fleet, "h1") / "qemu/nvram/v2_VARS.fd"
    first, first_of_own = written(shared), written(own)
    assert first == first_of_own > written(VARIABLES)
    assert "NVRAM" not in protected(fleet, "v1")
    assert protected(fleet, "v2") == f"its NVRAM (file:h1:/var/lib/libvirt/qemu/nvram/v2_VARS.fd) {ELSEWHERE}"
    fleet.laboratory.power("h1", "off")
    for name in ("v1", "v2"):
        counts_anew(fleet, name, 2)
    assert written(shared) > first
    assert written(kept(fleet, "h2") / "qemu/nvram/v2_VARS.fd") == first_of_own
    reasons = {name: started_because(fleet, name) for name in ("v1", "v2")}
    assert "NVRAM" not in reasons["v1"]
    assert "its NVRAM stays on h1" in reasons["v2"]
    assert fleet.faults() == []


def test_a_vm_that_requires_its_nvram_waits_for_its_host(scene: SceneMaker) -> None:
    fleet = scene("v1", hosts=2)
    manifest = with_firmware(fleet, "v1").replace("runStrategy: Always", "runStrategy: Always\n  hostState: Require")
    fleet.apply_text(manifest)
    counts_anew(fleet, "v1", 1)
    assert "hostState is Require" in protected(fleet, "v1")
    fleet.laboratory.power("h1", "off")
    fleet.wait(lambda: fleet.phase("v1") == "Recovering", "v1 to wait")
    fleet.laboratory.power("h1", "on")
    counts_anew(fleet, "v1", 2)
    assert set(fleet.where().values()) == {"h1"}
    assert fleet.faults() == []


def protected(fleet: Scene, name: str) -> str:
    """Return what is said of the VM's protection."""
    conditions = documents(fleet.get("vms", name), "status.conditions")
    return next(text(each, "message") for each in conditions if text(each, "type") == "Protected")


def started_because(fleet: Scene, name: str) -> str:
    """Return why the VM was started last, as `explain` tells it."""
    steps = documents(fleet.client.get(f"/api/v1/explain/vms/{name}"), "steps")
    return next(text(step, "reason") for step in reversed(steps) if text(step, "kind") == "StartDecided")
