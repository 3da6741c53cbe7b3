"""The systemd units as they ship: verified by systemd, as strict as promised, and true to what the code needs."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from agent.hypervisor_identity import LAYOUTS
from fleet.config import CREDENTIAL, CREDENTIAL_SOURCE
from fleet.hypervisor_tls import Purpose

ROOT = Path(__file__).parents[3]
UNITS = ROOT / "systemd"
ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")


def analyze(*arguments: str, unit_path: Path | None = None) -> subprocess.CompletedProcess[str]:
    assert ANALYZE is not None
    environment = {"SYSTEMD_UNIT_PATH": f"{unit_path}:", "PATH": "/usr/bin:/bin"} if unit_path else None
    return subprocess.run(
        [ANALYZE, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def lines(unit: str, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", (UNITS / unit).read_text(), re.MULTILINE)


@needs_systemd
@pytest.mark.parametrize(("name", "exposure_max"), [("agent", 1.6), ("aggregator", 1.4)])
def test_the_sandbox_is_as_tight_as_promised(name: str, exposure_max: float) -> None:
    told = analyze("security", "--offline=true", str(UNITS / f"virtward-{name}.service")).stdout
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", told)
    assert found, told
    assert float(found.group(1)) <= exposure_max, told


@needs_systemd
@pytest.mark.parametrize("name", ["agent", "aggregator"])
def test_systemd_understands_every_line(tmp_path: Path, name: str) -> None:
    """The program and libvirt's target are not on every machine that tests; the rest is the file as it ships."""
    text = (UNITS / f"virtward-{name}.service").read_text()
    unit = tmp_path / f"virtward-{name}.service"
    unit.write_text(text.replace(f"/opt/virtward/bin/virtward-{name}", "/bin/true"))
    (tmp_path / "virt-guest-shutdown.target").write_text("[Unit]\nDescription=stands for libvirt's\n")
    told = analyze("verify", "--man=no", str(unit), unit_path=tmp_path)
    assert (told.returncode, told.stderr) == (0, "")
    unit.write_text(unit.read_text().replace("WatchdogSec=30s", "WatchdogSec=soon"))
    assert "Failed to parse sec value" in analyze("verify", "--man=no", str(unit), unit_path=tmp_path).stderr


@needs_systemd
def test_libvirts_certificates_are_read_again_when_the_last_of_them_is_renewed(tmp_path: Path) -> None:
    """The unit watches the file that the agent puts in place last: before it the key would not fit."""
    for end in ("path", "service"):
        text = (UNITS / f"virtward-libvirt-tls.{end}").read_text()
        (tmp_path / f"virtward-libvirt-tls.{end}").write_text(text.replace("/usr/bin/virt-admin", "/bin/true"))
    told = analyze("verify", "--man=no", str(tmp_path / "virtward-libvirt-tls.path"), unit_path=tmp_path)
    assert (told.returncode, told.stderr) == (0, "")
    (watched,) = lines("virtward-libvirt-tls.path", "PathChanged")
    assert watched == f"/etc/pki/{LAYOUTS[Purpose.LIBVIRT].certificates[-1]}"


@pytest.mark.parametrize("name", ["agent", "aggregator"])
def test_the_token_comes_from_where_the_program_looks_for_it(name: str) -> None:
    (credential,) = lines(f"virtward-{name}.service", "LoadCredential")
    assert credential == f"{name}.token:{CREDENTIAL_SOURCE}/{name}.token"
    source = (ROOT / name / ("config.py" if name == "agent" else "settings.py")).read_text()
    assert f'token_file: str = f"{{CREDENTIAL}}{name}.token"' in source
    assert CREDENTIAL == "credential:"


@pytest.mark.parametrize("name", ["agent", "aggregator"])
def test_the_unit_waits_for_the_program_and_watches_its_loop(name: str) -> None:
    assert lines(f"virtward-{name}.service", "Type") == ["notify"]
    assert lines(f"virtward-{name}.service", "WatchdogSec") == ["30s"]
    assert lines(f"virtward-{name}.service", "Restart") == ["always"]


def test_the_agent_outlives_libvirt_and_stops_before_the_vms() -> None:
    unit = "virtward-agent.service"
    assert lines(unit, "Requires") == ["virt-guest-shutdown.target"]
    assert not lines(unit, "BindsTo")
    assert not lines(unit, "PartOf")
    assert "virt-guest-shutdown.target" in lines(unit, "After")


def test_nothing_that_guests_need_to_leave_is_stopped_before_the_agent() -> None:
    after = {name for line in lines("virtward-agent.service", "After") for name in line.split()}
    assert {"dbus.service", "polkit.service", "network-online.target"} <= after
    assert {f"{name}.service" for name in ("libvirtd", "virtqemud", "virtproxyd", "virtlogd", "virtlockd")} <= after


def test_every_line_of_the_sandbox_has_its_reason() -> None:
    readme = (UNITS / "README.md").read_text()
    reasoned = {key.rstrip("=…") for key in re.findall(r"[A-Z][A-Za-z]+[=…]?", readme)}
    for unit in UNITS.glob("*.service"):
        service = unit.read_text().partition("[Service]")[2].partition("[Install]")[0]
        for key in re.findall(
            r"^((?:Protect|Private|Restrict|Memory|Lock|NoNew|SystemCallFilter|IPA)\w*)=", service, re.MULTILINE
        ):
            stem = "ProtectKernel" if key.startswith("ProtectKernel") else key
            assert stem in reasoned, f"{unit.name}: {key} has no reason in systemd/README.md"
