"""`make demo` as a program: its last line, its exit code, and what it leaves behind."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import namespaces
from lab.layout import Layout

NAME = f"d{secrets.token_hex(2)}"  # namespaces are the machine's: two runs of the tests must not meet
DEMO_S_MAX = 180


@pytest.fixture
def base() -> Iterator[Path]:
    """A folder with a short name, for the paths of sockets must stay short."""
    with tempfile.TemporaryDirectory(prefix="vw-") as folder:
        yield Path(folder)


def _start(base: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "VIRTWARD_LAB_DIR": str(base), "PYTHONUNBUFFERED": "1", "KEEP": ""}
    # The tests may themselves run in the background, where shells have Ctrl-C ignored by all that is started.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "lab.demo", "--name", NAME]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def _left_behind(base: Path) -> list[str]:
    layout = Layout(NAME, base)
    found = [name for name in namespaces.names() if layout.owns_namespace(name)]
    return found + ([str(layout.dir)] if layout.dir.exists() else [])


@pytest.mark.timeout(DEMO_S_MAX + 60)
def test_the_demo_ends_with_every_vm_running_exactly_once(base: Path) -> None:
    process = _start(base)
    try:
        out, err = process.communicate(timeout=DEMO_S_MAX)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
    assert process.returncode == 0, out[-3000:] + err
    line = json.loads(out.splitlines()[-1])
    assert set(line) == {"vms", "recovery", "migrations", "page", "twice"}
    assert line["twice"] == 0
    assert len(line["vms"]) >= 3
    assert all(vm["node"] for vm in line["vms"].values())
    assert max(vm["starts"] for vm in line["vms"].values()) == 2  # recovered once
    assert min(vm["starts"] for vm in line["vms"].values()) == 1  # and another one never restarted
    assert len(line["migrations"]) >= 2
    recovery = line["recovery"]
    assert 0 < recovery["suspect_s"] < recovery["proof_s"] < recovery["counting_s"]
    assert _left_behind(base) == []


@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_interrupted_demo_cleans_up(base: Path, number: signal.Signals) -> None:
    process = _start(base)
    assert process.stdout is not None
    for line in process.stdout:
        if "virtward get nodes" in line:
            break
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert "Traceback" not in err
    assert _left_behind(base) == []


def test_a_second_demo_of_the_same_name_is_refused_in_one_sentence(base: Path) -> None:
    with socket.socket(socket.AF_UNIX) as first:
        first.bind(f"\0virtward-demo-{NAME}")
        second = _start(base)
        out, err = second.communicate(timeout=60)
    assert (second.returncode, out) == (1, "")
    assert err == "demo: another demo is running on this machine; wait until it has ended\n"
    assert _left_behind(base) == []
