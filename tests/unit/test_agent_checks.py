"""Check programs: real ones, that behave or do not, and when their results turn the node's verdict."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent import checks
from agent.checks import NodeChecks, first_line, run_check
from agent.config import load
from agent.verdicts import BAD_AFTER, GOOD_AFTER, Outcome, Steadied, effect_of
from fleet.config import ConfigError
from fleet.model import CheckVerdict

FINE, DEGRADED, FAILING = Outcome(0, "all is well"), Outcome(1, "slow"), Outcome(2, "dying")
UNKNOWN = Outcome(None, "did not end")


def levels(*outcomes: Outcome) -> list[str]:
    steadied, seen = Steadied(), []
    for outcome in outcomes:
        steadied.take(outcome)
        seen.append(steadied.level)
    return seen


@pytest.mark.parametrize(
    ("outcomes", "last"),
    [
        ([FAILING], "Fine"),
        ([FAILING] * BAD_AFTER, "Failing"),
        ([DEGRADED] * BAD_AFTER, "Degraded"),
        ([FAILING, DEGRADED], "Degraded"),  # both at least so bad
        ([DEGRADED, FAILING, FAILING], "Degraded"),
        ([DEGRADED, DEGRADED, FAILING, FAILING], "Failing"),
        ([FAILING, FINE] * 50, "Fine"),  # flapping turns nothing
        ([FAILING, FAILING, FINE, FAILING] * 20, "Failing"),  # neither way
        ([FAILING] * 2 + [FINE] * (GOOD_AFTER - 1), "Failing"),
        ([FAILING] * 2 + [FINE] * GOOD_AFTER, "Fine"),
        ([FAILING] * 2 + [DEGRADED] * GOOD_AFTER, "Degraded"),
        ([FAILING] * 2 + [UNKNOWN] * 50, "Failing"),
        ([UNKNOWN] * 50, "Fine"),
        ([FAILING, UNKNOWN, FAILING], "Failing"),
    ],
)
def test_a_verdict_turns_only_on_results_in_a_row(outcomes: list[Outcome], last: str) -> None:
    assert levels(*outcomes)[-1] == last


@pytest.mark.parametrize(
    ("level", "configured", "effect"),
    [
        ("Fine", "NoExecute", ""),
        ("Degraded", "NoExecute", "PreferNoSchedule"),
        ("Failing", "NoExecute", "NoExecute"),
        ("Failing", "NoSchedule", "NoSchedule"),
        ("Failing", "", ""),
    ],
)
def test_only_a_failing_check_sets_its_whole_taint(level: str, configured: str, effect: str) -> None:
    assert effect_of(level, configured) == effect


def program(directory: Path, name: str, text: str, mode: int = 0o755) -> Path:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(mode)
    return path


def is_gone(mark: Path) -> bool:
    """Say whether the process whose id a program wrote down has ended."""
    stat = Path(f"/proc/{mark.read_text().strip()}/stat")
    return not stat.exists() or stat.read_text().split()[2] == "Z"


async def test_programs_are_run_and_what_is_not_fine_is_told_with_its_line(tmp_path: Path) -> None:
    program(tmp_path, "disk", "echo 'sda: 12 sectors pending'; echo more; exit 2")
    program(tmp_path, "fans", "exit 0")
    program(tmp_path, "notes", "exit 2", mode=0o644)  # no program
    told = NodeChecks(tmp_path, 30.0, {"disk": "NoExecute"})
    assert not await told.run_all()
    assert await told.run_all()
    assert told.verdicts() == (CheckVerdict("disk", "Failing", "NoExecute", "sda: 12 sectors pending"),)
    (tmp_path / "disk").unlink()
    assert await told.run_all()
    assert told.verdicts() == ()


async def test_a_directory_that_is_not_there_holds_no_checks(tmp_path: Path) -> None:
    told = NodeChecks(tmp_path / "none", 30.0, {})
    assert not await told.run_all()


async def test_a_program_that_hangs_is_ended_with_its_children_and_tells_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "TIMEOUT_S", 0.3)
    mark = tmp_path / "child"
    outcome = await run_check(program(tmp_path, "hangs", f"sleep 3600 & echo $! >{mark}; wait"))
    assert outcome.level == "Unknown"
    async with asyncio.timeout(30):
        while not is_gone(mark):  # noqa: ASYNC110 - sent SIGKILL is not dead yet, and nobody tells
            await asyncio.sleep(0.01)


async def test_a_program_that_floods_is_read_to_its_end_and_kept_short(tmp_path: Path) -> None:
    outcome = await run_check(program(tmp_path, "floods", "head -c 3000000 /dev/zero | tr '\\0' x; exit 1"))
    assert (outcome.exit_code, len(outcome.message)) == (1, checks.LINE_MAX)


@pytest.mark.parametrize("text", ["exit 3", "kill -9 $$", "exit 127"])
async def test_any_other_end_tells_nothing(tmp_path: Path, text: str) -> None:
    assert (await run_check(program(tmp_path, "odd", text))).level == "Unknown"


async def test_what_cannot_be_run_tells_nothing(tmp_path: Path) -> None:
    path = tmp_path / "broken"
    path.write_text("#!/nonexistent/interpreter\n")
    path.chmod(0o755)
    assert (await run_check(path)).level == "Unknown"


@pytest.mark.parametrize(
    ("text", "line"), [(b"", ""), (b"\n\nfine\nmore", "fine"), (b"\xff\x1b[31mred", "\ufffd [31mred")]
)
def test_the_line_is_shown_without_what_a_terminal_would_obey(text: bytes, line: str) -> None:
    assert first_line(text) == line


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("checks_every_s = 1.0", "checks_every_s: must be 5 to 3600 seconds, not 1"),
        (
            'checks_taint = {disk = "NoRun"}',
            "checks_taint.disk: must be one of PreferNoSchedule",
        ),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, lines: str, said: str) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(f'node = "h1"\naggregators = ["ws://127.0.0.1:1"]\ncontrol_address = "127.0.0.1"\n{lines}\n')
    with pytest.raises(ConfigError, match=said):
        load(path)
