"""`virtward simulate --random`, for the command line: a made-up story per seed, on several processes if wanted.

Prints a line a seed in the order of the seeds, the command that repeats each bad one, and a summary; returns
the exit code. Reads the clock only to say how long it took.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Iterator
from functools import partial
from multiprocessing import get_context

import msgspec
from msgspec import Struct, field

from simulator.swarm import SeedResult, run_seed

COLLECT_EVERY = (100_000, 50, 100)  # objects, and generations: almost all of a story lives until its end
SEEDS_A_PORTION = 4  # that one process takes at once


class Sums(Struct):
    """What interfaces.md fixes for the last line, while it grows."""

    scenarios: int = 0
    failed_seeds: list[int] = field(default_factory=list)
    simulated_s: float = 0.0
    wall_s: float = 0.0
    steps: int = 0
    faults: dict[str, int] = field(default_factory=dict)

    def add(self, result: SeedResult) -> None:
        self.scenarios += 1
        self.simulated_s = round(self.simulated_s + result.simulated_s, 3)
        self.steps += result.steps
        if result.violations:
            self.failed_seeds.append(result.seed)
        for kind, count in result.faults.items():
            self.faults[kind] = self.faults.get(kind, 0) + count


def read_seeds(text: str) -> range:
    """Return the seeds of `A..B`, both included; ValueError otherwise."""
    first, dots, last = text.partition("..")
    if not first.isdecimal() or (dots and not last.isdecimal()) or (dots and int(last) < int(first)):
        raise ValueError(f"{text!r} are no seeds; write them like 1..100")
    return range(int(first), int(last if dots else first) + 1)


def run_random(seeds: str, nodes: int | None, vms: int | None, output: str, jobs: int = 1) -> int:
    """Play a made-up story per seed of `A..B`; 1 if any is bad. nodes, vms: None lets the seed draw.

    jobs: processes that play side by side; what is printed does not depend on it, but for the time it took.
    """
    try:
        wanted = read_seeds(seeds)
    except ValueError as error:
        sys.stderr.write(f"virtward: {error}\n")
        return 1
    collect_rarely()
    began = time.monotonic()
    sums = Sums()
    for result in _play(wanted, nodes, vms, jobs):
        sums.add(result)
        sys.stdout.write(_seed_line(result, output))
        if result.violations:
            sys.stdout.write(_repeat_line(result.seed, nodes, vms, output))
        sys.stdout.flush()
    sums.wall_s = round(time.monotonic() - began, 2)
    sums.faults = dict(sorted(sums.faults.items()))
    sys.stdout.write(msgspec.json.encode({"summary": sums}).decode() + "\n")
    return 1 if sums.failed_seeds else 0


def collect_rarely() -> None:
    """Have the process look for garbage as often as stories leave some."""
    gc.freeze()
    gc.set_threshold(*COLLECT_EVERY)


def _play(seeds: range, nodes: int | None, vms: int | None, jobs: int) -> Iterator[SeedResult]:
    play = partial(run_seed, nodes=nodes, vms=vms)
    if jobs == 1:
        yield from map(play, seeds)
        return
    with get_context("spawn").Pool(jobs, collect_rarely) as pool:
        yield from pool.imap(play, seeds, SEEDS_A_PORTION)


def _seed_line(result: SeedResult, output: str) -> str:
    if output == "json":
        return msgspec.json.encode(result).decode() + "\n"
    struck = sum(result.faults.values())
    head = (
        f"seed {result.seed}: {result.nodes} nodes, {result.vms} VMs, {struck} faults, {result.recoveries} recoveries"
    )
    bad = "".join(f"\n  {v.invariant} at {v.t:.3f}: {v.text}" for v in result.violations)
    return f"{head}, {'FAILED' if bad else 'good'}{bad}\n"


def _repeat_line(seed: int, nodes: int | None, vms: int | None, output: str) -> str:
    sizes = "".join(f" --{key} {value}" for key, value in (("nodes", nodes), ("vms", vms)) if value is not None)
    command = f"virtward simulate --random --seeds {seed}..{seed}{sizes}"
    if output == "json":
        return msgspec.json.encode({"seed": seed, "repeat": command}).decode() + "\n"
    return f"repeat with: {command}\n"
