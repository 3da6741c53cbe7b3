"""A laboratory comes up, comes down, and keeps to itself."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import namespaces, processes
from lab.belongings import Belongings
from lab.errors import LaboratoryError
from lab.laboratory import Laboratory
from tests.laboratory.lab_steps import define, fresh_name, start, wait_for

PROGRAM = str(Path(shutil.which("virtward-lab") or ".venv/bin/virtward-lab").absolute())


@pytest.fixture
def other(lab_base: Path) -> Iterator[Laboratory]:
    """A second laboratory, not up yet."""
    second = Laboratory(fresh_name(), lab_base)
    try:
        yield second
    finally:
        second.down()


def _run(lab_base: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "VIRTWARD_LAB_DIR": str(lab_base)}
    return subprocess.run([PROGRAM, *words], env=environment, capture_output=True, text=True, check=False, timeout=60)


def _left_behind(laboratory: Laboratory) -> list[object]:
    belongings = Belongings(laboratory.layout)
    return [*belongings.processes(), *belongings.namespaces(), *([laboratory.dir] if laboratory.dir.exists() else [])]


def test_status_tells_every_name_of_the_contract(laboratory: Laboratory, lab_base: Path) -> None:
    """Others script against these keys; agents and aggregator are absent, not missing."""
    start(laboratory, "h1", "seen")
    told = _run(lab_base, "status", "-o", "json", "--name", laboratory.layout.name)
    assert told.returncode == 0, told.stderr
    now = json.loads(told.stdout)
    assert {"dir", "name", "api", "token_file", "hosts", "aggregators", "vms"} <= now.keys()
    assert [host["name"] for host in now["hosts"]] == ["h1", "h2", "h3"]
    assert now["hosts"][0].keys() == {"name", "power", "boot_id", "planes", "agent", "libvirtd"}
    assert now["hosts"][0]["agent"] is None
    assert processes.is_alive(now["hosts"][0]["libvirtd"])
    assert len({host["boot_id"] for host in now["hosts"]}) == 3
    assert [(qemu["host"], qemu["cpus"]) for qemu in now["vms"]["seen"]] == [("h1", "running")]
    assert now["vms"]["seen"][0].keys() == {"host", "pid", "uuid", "cpus"}


def test_up_is_idempotent_and_mends_what_is_missing(laboratory: Laboratory) -> None:
    """A second `up` restarts nothing that runs, and boots what is off."""
    kept = laboratory.host("h1").init
    laboratory.power("h2", "off")
    laboratory.up(agents=False)
    assert laboratory.host("h1").init == kept
    assert laboratory.host("h2").pid_of("libvirtd") is not None
    with pytest.raises(LaboratoryError, match="down"):
        laboratory.up(hosts=4, agents=False)


def test_two_laboratories_never_meet(laboratory: Laboratory, other: Laboratory) -> None:
    """Same addresses, other namespaces: taking one down leaves every process of the other alone."""
    other.up(hosts=1, agents=False)
    define(other, "h1", "stranger")
    other.virsh("h1", "start", "stranger")
    wait_for(lambda: other.sample().vms, "the other's guest")
    assert "stranger" not in laboratory.sample().vms
    before = Belongings(laboratory.layout).processes()
    other.down()
    assert _left_behind(other) == []
    assert Belongings(laboratory.layout).processes() == before


def test_a_name_serves_one_laboratory(laboratory: Laboratory, tmp_path: Path) -> None:
    """A laboratory elsewhere cannot take the name, and taking it down there does no harm here."""
    impostor = Laboratory(laboratory.layout.name, tmp_path)
    with pytest.raises(LaboratoryError, match="taken"):
        impostor.up(hosts=1, agents=False)
    before = Belongings(laboratory.layout).processes()
    impostor.down()
    assert Belongings(laboratory.layout).processes() == before
    assert namespaces.exists(laboratory.layout.switch)


@pytest.mark.parametrize(
    "after_s", [pytest.param(0.15, marks=pytest.mark.slow), 0.3, pytest.param(0.45, marks=pytest.mark.slow)]
)
def test_down_clears_what_a_killed_up_left(other: Laboratory, lab_base: Path, after_s: float) -> None:
    """`up` killed anywhere leaves nothing that `down` does not find."""
    environment = {**os.environ, "VIRTWARD_LAB_DIR": str(lab_base)}
    words = ["up", "--no-agents", "--name", other.layout.name]
    process = subprocess.Popen([PROGRAM, *words], env=environment, stderr=subprocess.DEVNULL)
    time.sleep(after_s)  # where it is hit is the point; any place must do
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert _run(lab_base, "down", "--name", other.layout.name).returncode == 0
    assert _left_behind(other) == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["up", "--aggregators", "3"], "exactly one aggregator"),
        (["up", "--aggregators-on-hosts"], "namespace of its own"),
        (["up", "--name", "much-too-long"], "laboratory name"),
        (["power", "h9", "off"], "no h9"),
        (["start", "etcd@1"], "no etcd"),
        (["kill", "agent@h1"], "does not run"),
        (["start", "agent@h1"], "--no-agents"),
        (["kill", "nobody"], "no target"),
        (["kill", "h1", "--signal", "LOUD"], "no signal"),
        (["vm", "../x"], "VM name"),
        (["guest", "nobody", "crash"], "runs nowhere"),
        (["guest-log", "nobody"], "no VM nobody"),
        (["uri", "kvm1"], "no host"),
    ],
)
def test_bad_input_is_one_sentence(laboratory: Laboratory, lab_base: Path, words: list[str], sentence: str) -> None:
    """Exit code 1, one line on stderr that says what and where, and no traceback."""
    named = words if words[0] == "up" else [*words, "--name", laboratory.layout.name]
    refused = _run(lab_base, *named)
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert len(refused.stderr.splitlines()) == 1
    assert sentence in refused.stderr
