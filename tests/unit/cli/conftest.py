"""What the tests of the command line share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli.main import run
from tests.unit.cli.speaker import Speaker

Virtward = Callable[..., tuple[int, str, str]]


@pytest.fixture
def speaker() -> Iterator[Speaker]:
    made = Speaker()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads this machine's settings."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("VIRTWARD_LAB_DIR", str(tmp_path / "lab"))
    monkeypatch.delenv("VIRTWARD_API", raising=False)
    monkeypatch.delenv("VIRTWARD_TOKEN_FILE", raising=False)


@pytest.fixture
def virtward(speaker: Speaker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Virtward:
    """Run a command line against the speaker; returns (exit code, stdout, stderr)."""
    monkeypatch.setenv("VIRTWARD_API", speaker.url)

    def call(*words: str) -> tuple[int, str, str]:
        code = run(list(words))
        out, err = capsys.readouterr()
        return code, out, err

    return call
