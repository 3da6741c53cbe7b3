"""`virtward simulate`, for the command line: one story with its golden output, or many seeds.

Prints to standard output, problems to standard error, and returns the exit code. Reads the clock
only to say how long it took.
"""

from __future__ import annotations

import difflib
import gc
import sys
import time
from pathlib import Path

import msgspec

from simulator.run import Performance, Player
from simulator.story import read_story
from simulator.story_error import StoryError
from simulator.swarm import SeedResult, run_seed

DIFFERENT_LINES_MAX = 40
COLLECT_EVERY = (100_000, 50, 100)  # objects, and generations: almost all of a story lives until its end


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


def read_seeds(text: str) -> range:
    """Return the seeds of `A..B`, both included; ValueError otherwise."""
    first, dots, last = text.partition("..")
    if not first.isdecimal() or (dots and not last.isdecimal()) or (dots and int(last) < int(first)):
        raise ValueError(f"{text!r} are no seeds; write them like 1..100")
    return range(int(first), int(last if dots else first) + 1)


def run_random(seeds: str, nodes: int | None, vms: int | None, output: str) -> int:
    """Play a made-up story per seed of `A..B`; 1 if any is bad. nodes, vms: None lets the seed draw."""
    try:
        wanted = read_seeds(seeds)
    except ValueError as error:
        return _problem(str(error))
    collect_rarely()
    began = time.monotonic()
    results: list[SeedResult] = []
    for seed in wanted:
        result = run_seed(seed, nodes, vms)
        results.append(result)
        sys.stdout.write(_seed_line(result, output))
        sys.stdout.flush()
    failed = [result for result in results if result.violations]
    faults: dict[str, int] = {}
    for result in results:
        for kind, count in result.faults.items():
            faults[kind] = faults.get(kind, 0) + count
    summary = {
        "scenarios": len(results),
        "failed_seeds": [result.seed for result in failed],
        "simulated_s": round(sum(result.simulated_s for result in results), 1),
        "wall_s": round(time.monotonic() - began, 2),
        "steps": sum(result.steps for result in results),
        "faults": dict(sorted(faults.items())),
    }
    for result in failed:
        sys.stdout.write(_repeat_line(result, nodes, vms, output))
    sys.stdout.write(msgspec.json.encode({"summary": summary}).decode() + "\n")
    return 1 if failed else 0


def collect_rarely() -> None:
    """Have the process look for garbage as often as stories leave some."""
    gc.freeze()
    gc.set_threshold(*COLLECT_EVERY)


def _seed_line(result: SeedResult, output: str) -> str:
    if output == "json":
        return msgspec.json.encode(result).decode() + "\n"
    struck = sum(result.faults.values())
    head = (
        f"seed {result.seed}: {result.nodes} nodes, {result.vms} VMs, {struck} faults, {result.recoveries} recoveries"
    )
    bad = "".join(f"\n  {v.invariant} at {v.t:.3f}: {v.text}" for v in result.violations)
    return f"{head}, {'FAILED' if bad else 'good'}{bad}\n"


def _repeat_line(result: SeedResult, nodes: int | None, vms: int | None, output: str) -> str:
    sizes = "".join(f" --{key} {value}" for key, value in (("nodes", nodes), ("vms", vms)) if value is not None)
    command = f"virtward simulate --random --seeds {result.seed}..{result.seed}{sizes}"
    if output == "json":
        return msgspec.json.encode({"seed": result.seed, "repeat": command}).decode() + "\n"
    return f"repeat with: {command}\n"
