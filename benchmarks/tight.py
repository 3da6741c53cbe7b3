"""Tight clusters: of how many VMs that a full batch leaves does re-seating find a place, and how long does it think.

Nodes of 16 CPU and 64 GiB, VMs whose sizes together leave 5 % free, in groups of as many as five that must not
share a node (required anti-affinity). One JSON object a line: a line a seed, then the mean.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time

from msgspec import Struct

from aggregator.core.labels import HOSTNAME
from aggregator.core.objects import Affinity, LabelSelector, VmAffinity, VmAffinityTerm, VmSpec
from aggregator.placement.place import Told, build_table, place_batch
from aggregator.placement.table import Table
from aggregator.placement.types import PlacementNode, PlacementVm, ScoreSettings
from benchmarks.placement import GIB, positive, say

CPU_M, MEMORY_BYTES = 16_000, 64 * GIB
GROUP = 5  # VMs that must not share a node


class Inputs(Struct, frozen=True):
    """What was asked for, echoed in every line."""

    nodes: int
    vms: int
    free: float
    budget_s: float


class Result(Struct, frozen=True):
    """One seed. seconds: of processor time, greedy included; room: VMs that exist."""

    seed: int
    greedy: int
    placed: int
    seconds: float


def a_tight_fleet(inputs: Inputs, seed: int) -> tuple[list[PlacementNode], list[PlacementVm]]:
    """Return nodes, and VMs that a first filling of the nodes shows to fit together.

    Each node is cut into pieces at random, so that all VMs fit in principle; then 5 % of each piece is given back.
    Groups are dealt so that in that filling no two of a group share a node.
    """
    dice = random.Random(seed)
    nodes = [
        PlacementNode(name=f"n{n:02}", labels={HOSTNAME: f"n{n:02}"}, cpu_m=CPU_M, memory_bytes=MEMORY_BYTES)
        for n in range(inputs.nodes)
    ]
    pieces: list[tuple[int, int, int]] = []
    share, more = divmod(inputs.vms, inputs.nodes)
    for number in range(inputs.nodes):
        count = share + (number < more)
        cpu, memory = _cut(dice, count), _cut(dice, count)
        keep = 1 - inputs.free
        pieces += [
            (number, int(c * CPU_M * keep), int(m * MEMORY_BYTES * keep)) for c, m in zip(cpu, memory, strict=True)
        ]
    dice.shuffle(pieces)
    return nodes, [_a_vm(index, piece, _group(index, pieces)) for index, piece in enumerate(pieces)]


def _cut(dice: random.Random, count: int) -> list[float]:
    weights = [dice.lognormvariate(0, 0.8) for _ in range(count)]
    return [weight / sum(weights) for weight in weights]


def _group(index: int, pieces: list[tuple[int, int, int]]) -> str:
    """Return the VM's group: five in a row, where they lie on different nodes; else a group of its own."""
    first = index - index % GROUP
    homes = [home for home, _, _ in pieces[first : first + GROUP]]
    return f"g{first}" if len({*homes}) == len(homes) else f"g{first}-{index}"


def _a_vm(index: int, piece: tuple[int, int, int], group: str) -> PlacementVm:
    apart = VmAffinityTerm(topology_key=HOSTNAME, label_selector=LabelSelector(match_labels={"group": group}))
    return PlacementVm(
        name=f"v{index:03}",
        labels={"group": group},
        spec=VmSpec(affinity=Affinity(vm_anti_affinity=VmAffinity(required=(apart,)))),
        cpu_m=piece[1],
        memory_bytes=piece[2],
    )


def placed(vms: list[PlacementVm], table: Table, budget_s: float) -> int:
    """Place all as one batch and return how many have a node."""
    settings = ScoreSettings(solver_budget_s=budget_s)
    return sum(verdict.node is not None for verdict in place_batch(vms, table, settings, told=Told.NODE))


def play(inputs: Inputs, seed: int) -> Result:
    """Place one fleet without and with re-seating."""
    nodes, vms = a_tight_fleet(inputs, seed)
    greedy = placed(vms, build_table(nodes), 0.0)
    table = build_table(nodes)
    began_s = time.process_time()
    found = placed(vms, table, inputs.budget_s)
    return Result(seed, greedy, found, round(time.process_time() - began_s, 3))


def main() -> int:
    """Run the seeds."""
    parser = argparse.ArgumentParser(prog="benchmarks.tight", description=__doc__)
    parser.add_argument("--nodes", type=positive, default=20)
    parser.add_argument("--vms", type=positive, default=100)
    parser.add_argument("--free", type=float, default=0.05)
    parser.add_argument("--budget", type=float, default=1.0, help="seconds of re-seating")
    parser.add_argument("--seeds", type=positive, default=20)
    wanted = parser.parse_args()
    inputs = Inputs(wanted.nodes, wanted.vms, wanted.free, wanted.budget)
    results = []
    for seed in range(wanted.seeds):
        results.append(play(inputs, seed))
        say(inputs, results[-1])
    summary = {
        "greedy": statistics.mean(each.greedy for each in results),
        "placed": statistics.mean(each.placed for each in results),
        "seconds_max": max(each.seconds for each in results),
        "worse_than_greedy": float(sum(each.placed < each.greedy for each in results)),
    }
    say(inputs, summary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
