"""Guests with UEFI and an emulated TPM, real firmware and a real swtpm: what their hosts keep for them is not lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.client import path_of
from lab.manifest import GuestKind
from lab.scene import Scene
from tests.laboratory.scenes import SceneMaker
from tests.laboratory.test_move_checks import live_migratable

FIRMWARE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
SWTPM = Path("/usr/bin/swtpm_setup")
TPM = "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>"
ERASED = b"\xff"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        not (FIRMWARE.exists() and SWTPM.exists()), reason="the packages ovmf and swtpm-tools are not installed"
    ),
]


def with_firmware(fleet: Scene, name: str, *, tpm: bool = False, nvram: str = "") -> str:
    """Return the manifest of a linux guest with UEFI. nvram: the file that keeps it; empty: libvirt's own place."""
    manifest = fleet.laboratory.vm(name, GuestKind.LINUX, host="h1", memory_mib=256)
    manifest = manifest.replace("<os>", "<os firmware='efi'>" + (f"<nvram>{nvram}</nvram>" if nvram else ""))
    return manifest.replace("<memballoon", TPM + "<memballoon") if tpm else manifest


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
