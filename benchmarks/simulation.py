"""How many random stories a second the simulator plays, on one core.

A story is what `virtward simulate --random` plays: 240 s of faults, then everything is healed and has to come
right. Making the stories up, the worlds and the checks are inside the clock, which counts this process's CPU time:
what else the machine does meanwhile is not ours. A violation ends the benchmark, for a wrong core may be fast.
One JSON object a line, inputs echoed: a line a round, then the best and the median.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import msgspec
from msgspec import Struct

from simulator.seeds import collect_rarely, read_seeds
from simulator.swarm import run_seed

ROUNDS = 3


class Inputs(Struct, frozen=True):
    """What was asked for, echoed in every line."""

    nodes: int
    vms: int
    seeds: str


class Round(Struct, frozen=True):
    """One round's result; of a story on average: steps, faults, recoveries, simulated_s."""

    stories: int
    cpu_s: float
    per_s: float
    steps: float
    faults: float
    recoveries: float
    simulated_s: float


def play(inputs: Inputs) -> Round:
    """Play every story once; RuntimeError if one is bad."""
    seeds = read_seeds(inputs.seeds)
    began = time.process_time()
    results = [run_seed(seed, inputs.nodes, inputs.vms) for seed in seeds]
    took = time.process_time() - began
    bad = [result.seed for result in results if result.violations]
    if bad:
        raise RuntimeError(f"seeds {bad} violate an invariant; look at them with virtward simulate --random --seeds")
    count = len(results)
    return Round(
        stories=count,
        cpu_s=round(took, 3),
        per_s=round(count / took, 2),
        steps=round(sum(r.steps for r in results) / count, 1),
        faults=round(sum(sum(r.faults.values()) for r in results) / count, 2),
        recoveries=round(sum(r.recoveries for r in results) / count, 2),
        simulated_s=round(sum(r.simulated_s for r in results) / count, 1),
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulation", description=__doc__.partition("\n")[0])
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--vms", type=int, default=6)
    parser.add_argument("--seeds", default="1..20", help="A..B, both included")
    words = parser.parse_args()
    inputs = Inputs(nodes=words.nodes, vms=words.vms, seeds=words.seeds)
    collect_rarely()
    run_seed(1, inputs.nodes, inputs.vms)  # what is imported late and remembered for ever is not a story's
    rounds = []
    for number in range(1, ROUNDS + 1):
        rounds.append(play(inputs))
        line = msgspec.to_builtins(inputs) | {"round": number} | msgspec.to_builtins(rounds[-1])
        sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
        sys.stdout.flush()
    rates = sorted(result.per_s for result in rounds)
    line = msgspec.to_builtins(inputs) | {"best": rates[-1], "median": statistics.median(rates)}
    sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
