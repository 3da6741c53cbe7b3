"""Every story plays without a violation, meets what it expects, and says what its golden output says."""

from pathlib import Path

import pytest

from simulator.command import text_of
from simulator.run import Player
from simulator.story import read_story

STORIES = sorted(Path(__file__).parent.glob("*.yaml"))


def test_there_are_stories() -> None:
    assert len(STORIES) >= 80


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_story(path: Path) -> None:
    """`virtward simulate STORY --rewrite` keeps a new output, after somebody has read it."""
    text = path.read_text(encoding="utf-8")
    story = read_story(text, path.stem)
    performance = Player(story).play()
    assert performance.unforeseen == []
    assert [expectation.words for expectation in performance.unmet] == []
    assert text_of(performance) == path.with_suffix(".out").read_text(encoding="utf-8")
    assert story.name == path.stem
    assert text.startswith("# "), "a story begins with a sentence on why its outcome is right"
