"""The house's own checks find what they are there to find, and let good code pass."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def run_check(name: str, *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / name), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


def function_of(lines: int) -> str:
    return "def long() -> None:\n" + "    pass\n" * (lines - 1)


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        (function_of(60), None),
        (function_of(61), "m.py:1: function long has 61 lines, 60 are allowed"),
        ("async " + function_of(61), "function long has 61 lines"),
        ("x = 1\n" * 400, None),
        ("x = 1\n" * 401, "m.py:400: module has 401 lines, 400 are allowed"),
        ("class A:\n    def __init__(self, a, b, c, d, e, f): ...\n", None),
        ("class A:\n    def __init__(self, a, b, c, *, d, e, f, g): ...\n", "constructor takes 7 parameters"),
        ("class A:\n    def __init__(self, a, b, c, d, e, f, **g): ...\n", "constructor takes 7 parameters"),
    ],
)
def test_sizes(tmp_path: Path, source: str, complaint: str | None) -> None:
    (tmp_path / "m.py").write_text(source)
    done = run_check("check_sizes.py", str(tmp_path))
    assert done.returncode == (1 if complaint else 0), done.stdout + done.stderr
    assert (complaint or "") in done.stdout


@pytest.fixture
def vendored(tmp_path: Path) -> Path:
    """A tree with one vendored file, listed as it should be."""
    folder = tmp_path / "ui/vendor"
    folder.mkdir(parents=True)
    (folder / "chart.js").write_text("draw()")
    digest = hashlib.sha256(b"draw()").hexdigest()
    (folder / "VENDORED.md").write_text(f"# Files\n| `chart.js` | 1.0 | MIT | {digest} |\n")
    return tmp_path


def test_vendored_files_as_they_came_pass(vendored: Path) -> None:
    done = run_check("check_vendored.py", str(vendored))
    assert (done.returncode, done.stdout) == (0, "")


def test_a_changed_vendored_file_is_found(vendored: Path) -> None:
    (vendored / "ui/vendor/chart.js").write_text("draw() ")
    done = run_check("check_vendored.py", str(vendored))
    assert done.returncode == 1
    assert "chart.js differs from the sha256" in done.stdout


def test_an_unlisted_and_a_missing_vendored_file_are_found(vendored: Path) -> None:
    (vendored / "ui/vendor/chart.js").rename(vendored / "ui/vendor/other.js")
    done = run_check("check_vendored.py", str(vendored))
    assert done.returncode == 1
    assert "other.js is not listed" in done.stdout
    assert "chart.js is listed in VENDORED.md but missing" in done.stdout


def test_a_vendor_folder_without_a_list_is_found(vendored: Path) -> None:
    (vendored / "ui/vendor/VENDORED.md").unlink()
    done = run_check("check_vendored.py", str(vendored))
    assert done.returncode == 1
    assert "VENDORED.md is missing" in done.stdout


def house(folder: Path, files: dict[str, str]) -> Path:
    for package in ("fleet", "agent", "aggregator"):
        (folder / package).mkdir()
        (folder / package / "__init__.py").write_text("")
    for name, source in files.items():
        (folder / name).write_text(source)
    return folder


def run_fleet_check(folder: Path) -> subprocess.CompletedProcess[str]:
    # -P and PYTHONPATH: the packages of the made-up house are found before ours.
    command = [sys.executable, "-P", str(ROOT / "scripts/check_fleet.py")]
    return subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": str(folder)}, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_fleet_module_that_both_daemons_reach_passes(tmp_path: Path) -> None:
    files = {
        "fleet/clock.py": "",
        "fleet/model.py": "from fleet import clock\n",
        "agent/main.py": "from fleet import model\n",
        "aggregator/main.py": "from fleet.model import clock\n",
    }
    done = run_fleet_check(house(tmp_path, files))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_a_fleet_module_that_one_daemon_alone_needs_is_found(tmp_path: Path) -> None:
    files = {
        "fleet/clock.py": "",
        "agent/main.py": "from fleet import clock\n",
        "aggregator/main.py": "",
    }
    done = run_fleet_check(house(tmp_path, files))
    assert done.returncode == 1
    assert "fleet/clock.py: aggregator does not need it" in done.stdout


def test_a_fleet_package_with_code_in_its_init_is_found(tmp_path: Path) -> None:
    done = run_fleet_check(house(tmp_path, {"fleet/__init__.py": "x = 1\n"}))
    assert done.returncode == 1
    assert "must stay empty" in done.stdout


@pytest.mark.parametrize("name", ["requirements.lock", "scripts/tools.lock", "scripts/browser.lock"])
def test_locks_are_hashed_and_name_no_index(name: str) -> None:
    lines = (ROOT / name).read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith((" ", "#"))]
    assert pins
    assert all(line.partition(" ")[0].count("==") == 1 and line.endswith("\\") for line in pins), pins
    assert not [
        line for line in lines if "://" in line or (line.lstrip().startswith(("-", "file:")) and "--hash=" not in line)
    ]


CONTRACT = """
[[tool.importlinter.contracts]]
name = "what decides has no clock and no I/O"
source_modules = ["aggregator.core"]
"""


def test_a_pure_module_that_no_contract_names_is_found(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(CONTRACT)
    (tmp_path / "aggregator/core").mkdir(parents=True)
    assert run_check("check_contracts.py", cwd=tmp_path).returncode == 0
    (tmp_path / "fleet").mkdir()
    (tmp_path / "fleet/lease.py").write_text("")
    done = run_check("check_contracts.py", cwd=tmp_path)
    assert done.returncode == 1
    assert 'add "fleet.lease"' in done.stdout
