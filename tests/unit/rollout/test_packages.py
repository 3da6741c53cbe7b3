"""What is shipped: a bill of materials that is the lock, and a wheel that is the same bytes each time."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).parents[3]


def bill(version: str) -> str:
    command = [sys.executable, "scripts/sbom.py", "requirements.lock", version]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout


def test_the_bill_of_materials_names_every_locked_package_with_its_hashes() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    document = json.loads(bill("1.2.3"))
    pinned = [line.partition(" ")[0] for line in lock.splitlines() if "==" in line and not line.startswith((" ", "#"))]
    assert [f"{each['name']}=={each['version']}" for each in document["components"]] == pinned
    assert all(each["hashes"] for each in document["components"])
    assert document["specVersion"] == "1.5"
    assert document["metadata"]["component"]["version"] == "1.2.3"
    assert bill("1.2.3") == bill("1.2.3")
    assert bill("1.2.3") != bill("1.2.4")


def build(folder: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={"SOURCE_DATE_EPOCH": "1700000000", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_the_wheel_is_reproducible_and_whole(tmp_path: Path) -> None:
    first, second = build(tmp_path / "one"), build(tmp_path / "two")
    assert sha256(first.read_bytes()).digest() == sha256(second.read_bytes()).digest()
    with zipfile.ZipFile(first) as wheel:
        names = set(wheel.namelist())
    hooks = {"agent/hooks/qemu.d/virtward", "agent/hooks/libvirt-before-start"}
    assert hooks | {"agent/check.py", "aggregator/ui/static/page.js", "cli/main.py"} <= names
    assert not any(name.startswith(("tests/", "scripts/", "ansible/")) for name in names)
