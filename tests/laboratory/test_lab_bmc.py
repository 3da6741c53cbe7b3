"""A BMC of the laboratory is a real one on the wire, acts on the host it is wired to, and fails as told."""

from __future__ import annotations

import json
import subprocess

import pytest

from lab import namespaces
from lab.laboratory import Laboratory
from lab.layout import BMC_USER, Plane
from tests.laboratory.lab_steps import start, wait_for


def _ipmi(laboratory: Laboratory, host: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Ask a host's BMC over the bmc plane, from the namespace of another BMC."""
    bmc = laboratory.bmc(host)
    command = ["ipmitool", "-I", "lanplus", "-C", "3", "-N", "2", "-R", "1", "-H", bmc.address, "-U", BMC_USER]
    asker = laboratory.layout.link("h3" if host != "h3" else "h2", Plane.BMC).namespace
    line = namespaces.inside(asker, [*command, "-f", str(bmc.password_file), *words])
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)


def _reading(laboratory: Laboratory, host: str) -> str:
    return _ipmi(laboratory, host, "chassis", "power", "status").stdout.strip()


def test_fence_ipmilan_takes_the_power_and_gives_it_back(laboratory: Laboratory) -> None:
    """The real fence program, parameters on stdin: off means that every process is gone, on boots again."""
    start(laboratory, "h1", "fenced")
    bmc = laboratory.bmc("h1")
    words = {"ip": bmc.address, "username": BMC_USER, "password": bmc.password_file.read_text().strip()}
    words |= {"lanplus": "1", "cipher": "3", "action": "off"}
    line = namespaces.inside(laboratory.layout.link("h3", Plane.BMC).namespace, ["fence_ipmilan"])
    feed = "".join(f"{key}={value}\n" for key, value in words.items())
    fenced = subprocess.run(line, input=feed, capture_output=True, text=True, check=False, timeout=60)
    assert fenced.returncode == 0, fenced.stderr
    assert laboratory.host("h1").init is None
    assert "fenced" not in laboratory.sample().vms
    assert _reading(laboratory, "h1") == "Chassis Power is off"
    assert _ipmi(laboratory, "h1", "chassis", "power", "on").returncode == 0
    wait_for(lambda: laboratory.host("h1").pid_of("libvirtd"), "the return of h1")
    assert _reading(laboratory, "h1") == "Chassis Power is on"


def test_a_failing_bmc_refuses_and_a_hung_one_says_nothing(laboratory: Laboratory) -> None:
    """`fails` answers an error and cuts nothing; `hangs` answers no question, and forgets what it was asked."""
    laboratory.set_bmc("h1", "fails")
    assert _ipmi(laboratory, "h1", "chassis", "power", "off").returncode != 0
    assert _reading(laboratory, "h1") == "Chassis Power is on"
    laboratory.set_bmc("h1", "hangs")
    assert _ipmi(laboratory, "h1", "chassis", "power", "off").returncode != 0
    laboratory.set_bmc("h1", "works")
    assert _reading(laboratory, "h1") == "Chassis Power is on"
    assert laboratory.host("h1").init is not None


@pytest.mark.slow
def test_an_early_bmc_says_off_before_it_is(laboratory: Laboratory) -> None:
    """The reading is off at once; the processes die a little later."""
    laboratory.set_bmc("h2", "early")
    assert _ipmi(laboratory, "h2", "chassis", "power", "off").returncode == 0
    assert laboratory.host("h2").power_switch == "off"
    wait_for(lambda: laboratory.host("h2").init is None, "the end of h2")
    laboratory.set_bmc("h2", "works")
    laboratory.power("h2", "on")


def test_swapped_bmcs_switch_each_others_hosts(laboratory: Laboratory) -> None:
    """After a swap h1's device controls h2, and h1 itself, asked in-band, names the other device."""
    before = _identity(laboratory, "h1")
    assert before == {"address": laboratory.bmc("h1").address, "guid": laboratory.bmc("h1").guid}
    laboratory.swap_bmcs("h1", "h2")
    assert _identity(laboratory, "h1") == {"address": laboratory.bmc("h2").address, "guid": laboratory.bmc("h2").guid}
    assert _ipmi(laboratory, "h1", "chassis", "power", "off").returncode == 0
    assert laboratory.host("h2").init is None
    assert laboratory.host("h1").init is not None
    laboratory.swap_bmcs("h1", "h2")
    laboratory.power("h2", "on")


def _identity(laboratory: Laboratory, host: str) -> dict[str, str]:
    answer: dict[str, str] = json.loads(namespaces.run([str(laboratory.host(host).dir / "bmc-identity")]))
    return answer


@pytest.mark.slow
def test_total_power_loss_takes_the_bmc_along(laboratory: Laboratory) -> None:
    """With --with-bmc the device answers nothing, until the power is back."""
    laboratory.power("h1", "off", with_bmc=True)
    assert _ipmi(laboratory, "h1", "chassis", "power", "status").returncode != 0
    laboratory.power("h1", "on")
    assert _reading(laboratory, "h1") == "Chassis Power is on"
