"""Slices deal every test out once, shared laboratories stay whole, and what does not run is said."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.selection import Slice, left_out_line, slice_key

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("parts", [1, 2, 4, 7])
def test_every_test_is_in_exactly_one_slice(parts: int) -> None:
    slices = [Slice(f"{part}/{parts}") for part in range(1, parts + 1)]
    for number in range(500):
        key = f"tests/unit/test_x.py::test_{number}"
        assert sum(one.holds(key) for one in slices) == 1


def test_slices_are_of_similar_size() -> None:
    slices = [Slice(f"{part}/4") for part in range(1, 5)]
    sizes = [sum(one.holds(f"tests/unit/test_x.py::test_{number}") for number in range(1000)) for one in slices]
    assert min(sizes) > 150


@pytest.mark.parametrize("text", ["", "1", "0/4", "5/4", "1/0", "a/b", "1/4/2", "-1/4", "1/4 "])
def test_a_slice_that_makes_no_sense_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(ValueError, match="slice"):
        Slice(text)


def test_tests_that_share_a_laboratory_stay_together_and_others_do_not() -> None:
    file, others = "tests/laboratory/test_power.py", ("scene", "tmp_path")
    assert slice_key(f"{file}::test_a", ["laboratory"]) == slice_key(f"{file}::test_b", ["bench", "laboratory"])
    assert slice_key(f"{file}::test_c", others) != slice_key(f"{file}::test_d", others)


def test_the_line_names_what_was_left_out() -> None:
    assert left_out_line(Counter()) == "left out: nothing"
    line = left_out_line(Counter(slow=2, browser=1))
    assert line == "left out: 3 tests (1 browser, 2 slow); make test-all runs every one"


def run_pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest with our plugin on tests of our making, in another process."""
    command = [sys.executable, "-m", "pytest", "-p", "tests.selection", "-p", "no:cacheprovider", "-q", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A small suite: eight quick tests, one slow one, and three laboratory tests in one file."""
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n slow:\n browser:\n laboratory:\n")
    (tmp_path / "laboratory").mkdir()
    (tmp_path / "laboratory/test_power.py").write_text(
        "import os, pytest\n"
        "@pytest.fixture(scope='module')\n"
        "def laboratory(): return print('built')\n"
        "@pytest.mark.parametrize('n', range(3))\n"
        "def test_worker(n, laboratory): print('ran-on', os.environ.get('PYTEST_XDIST_WORKER'))\n"
    )
    (tmp_path / "test_quick.py").write_text(
        "import pytest\n"
        "@pytest.mark.parametrize('n', range(8))\n"
        "def test_quick(n): pass\n"
        "@pytest.mark.slow\n"
        "def test_slow(): pass\n"
    )
    return tmp_path


@pytest.mark.parametrize("workers", ["0", "2"])
def test_left_out_tests_are_counted_with_and_without_workers(suite: Path, workers: str) -> None:
    done = run_pytest(suite, "-n", workers, "-m", "not slow")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "left out: 1 tests (1 slow)" in done.stdout
    assert "11 passed" in done.stdout


def test_laboratory_tests_run_on_one_worker(suite: Path) -> None:
    done = run_pytest(suite, "-n", "2", "--dist=loadgroup", "-rP")
    workers = {line for line in done.stdout.splitlines() if line.startswith("ran-on")}
    assert len(workers) == 1, done.stdout


def test_all_slices_together_run_every_test_once(suite: Path) -> None:
    ran: list[str] = []
    for part in (1, 2, 3):
        done = run_pytest(suite, f"--slice={part}/3", "-vv")
        ran += [line.split()[0] for line in done.stdout.splitlines() if " PASSED" in line]
    assert len(ran) == 12
    assert len(set(ran)) == 12


def test_what_lies_in_other_slices_is_counted_as_such(suite: Path) -> None:
    done = run_pytest(suite, "--slice=1/3", "-k", "quick or power")
    assert "in other slices" in done.stdout
    assert "(1 slow" not in done.stdout


def test_a_bad_slice_ends_with_one_sentence(suite: Path) -> None:
    done = run_pytest(suite, "--slice=9/4")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "slice '9/4': k counts from 1 to n" in done.stderr
    assert "Traceback" not in done.stderr
