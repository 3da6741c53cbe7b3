"""Set-up does nothing the second time, refuses nonsense with a sentence, and leaves the machine's services alone."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[3]


def run_setup(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / "scripts/setup.sh"), *arguments]
    return subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=100, check=False)


def test_a_second_set_up_has_nothing_to_do() -> None:
    run_setup()
    done = run_setup()
    assert (done.returncode, done.stdout, done.stderr) == (0, "setup: ready\n", "")


def test_an_unknown_word_is_refused() -> None:
    done = run_setup("everything")
    assert done.returncode == 1
    assert done.stderr == "setup: unknown word everything: only packages FILE, browser and rollout are understood\n"


def test_a_missing_list_of_packages_is_refused_by_name(tmp_path: Path) -> None:
    done = run_setup("packages", str(tmp_path / "none.txt"))
    assert done.returncode == 1
    assert done.stderr == f"setup: the list of packages {tmp_path}/none.txt is missing\n"


def test_installed_packages_are_left_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("# comment\n\nmake   # builds\nbash\n")
    done = run_setup("packages", str(tmp_path / "list.txt"))
    assert (done.returncode, done.stdout) == (0, "setup: ready\n")
