"""`virtward simulate STORY`, for the command line: one story with its golden output.

Prints to standard output, problems to standard error, and returns the exit code.
"""

from __future__ import annotations

import difflib
import sys
from pathlib import Path

import msgspec

from simulator.run import Performance, Player
from simulator.story import read_story
from simulator.story_error import StoryError

DIFFERENT_LINES_MAX = 40


def run_story(path: Path, output: str, *, rewrite: bool = False) -> int:
    """Play the story at `path`. output: json or text; rewrite: keep the output beside it (STORY.out).

    Returns 0, or 1 on a violation, an unmet expectation, a difference to STORY.out or a bad story.
    """
    try:
        story = read_story(path.read_text(encoding="utf-8"), path.stem)
    except OSError as error:
        return _problem(f"{path}: {error.strerror or error}")
    except UnicodeDecodeError:
        return _problem(f"{path}: this is no UTF-8 text")
    except StoryError as error:
        return _problem(f"{path}: {error}")
    performance = Player(story).play()
    text = text_of(performance)
    sys.stdout.write(json_of(performance) if output == "json" else text)
    return _judge(path.with_suffix(".out"), performance, text, rewrite=rewrite)


def _problem(sentence: str) -> int:
    sys.stderr.write(f"virtward: {sentence}\n")
    return 1


def _judge(golden: Path, performance: Performance, text: str, *, rewrite: bool) -> int:
    code = 0
    for expectation in performance.unmet:
        span = f"{expectation.earliest:g}..{expectation.latest:g} s"
        code = _problem(f"expected and not seen in {span}: {expectation.words}")
    for bad in performance.unforeseen:
        code = _problem(f"violation of {bad.invariant} at {bad.t:.3f} s: {bad.text}")
    if rewrite:
        golden.write_text(text, encoding="utf-8")
    elif golden.exists() and golden.read_text(encoding="utf-8") != text:
        old = golden.read_text(encoding="utf-8").splitlines()
        difference = list(difflib.unified_diff(old, text.splitlines(), str(golden), "now", lineterm="", n=1))
        sys.stderr.write("\n".join(difference[:DIFFERENT_LINES_MAX]) + "\n")
        code = _problem(f"the output differs from {golden}; if the new one is right, keep it with --rewrite")
    return code


def text_of(performance: Performance) -> str:
    """Return the output for people; it is what STORY.out keeps."""
    return "\n".join([*performance.text, performance.summary.text()]) + "\n"


def json_of(performance: Performance) -> str:
    """Return a line per event and last the summary."""
    lines = [line.json() for line in performance.lines]
    lines.append({"summary": msgspec.to_builtins(performance.summary)})
    return "\n".join(msgspec.json.encode(line).decode() for line in lines) + "\n"
