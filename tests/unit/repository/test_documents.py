"""What the documents promise about themselves: sizes, links, and that generated ones are current."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from cli.main import VERBS

ROOT = Path(__file__).parents[3]
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
FOLDERS = ("agent", "aggregator", "benchmarks", "cli", "docs", "fleet", "lab", "scripts", "simulator", "tests")


def test_architecture_stays_short_enough_to_be_read() -> None:
    assert len((ROOT / "docs" / "ARCHITECTURE.md").read_text().splitlines()) <= 200


def test_the_state_diagrams_are_what_the_tables_say() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/draw_states.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_and_every_file_named_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#:]+)\)", text) if "://" not in link]
    missing = [link for link in links if not (document.parent / link).exists()]
    named = re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]*\w/?)`", text)
    missing += [name for name in named if not (ROOT / name).exists()]
    assert missing == []


def test_every_verb_the_readme_shows_exists() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"[`$|] ?virtward ([a-z][a-z-]+)", text))
    assert shown
    assert shown - set(VERBS) == set()
