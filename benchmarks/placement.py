"""How many VMs a second placement finds nodes for, every node considered, on one core.

The fleet is the one interfaces.md fixes: nodes of 64 CPU and 256 GiB, ten running VMs on each. The pending
VMs come one after another in the order of their numbers, each seeing those before it; --together hands them
over as one batch instead, which sorts them first. --kind mixed takes the five kinds in turn.
Building nodes, VMs and table is outside the clock; indexes and everything remembered are made inside.
One JSON object a line, inputs echoed: a line a round, then the best and the median.
"""

from __future__ import annotations

import argparse
import gc
import resource
import statistics
import sys
import time

import msgspec
from msgspec import Struct

from aggregator.core.labels import HOSTNAME
from aggregator.core.objects import (
    Affinity,
    LabelSelector,
    TopologySpreadConstraint,
    VmAffinity,
    VmAffinityTerm,
    VmSpec,
    WeightedVmAffinityTerm,
)
from aggregator.placement.place import Told, build_table, place_batch
from aggregator.placement.table import Table
from aggregator.placement.types import PlacementNode, PlacementVm, ScoreSettings

KINDS = ("basic", "selector", "antiaffinity", "preferred", "spread")
MIXED = "mixed"
ROUNDS = 3
VMS_A_NODE = 10
NODES_A_RACK = 40
VMS_AN_APP = 20
GIB = 2**30


class Inputs(Struct, frozen=True):
    """What was asked for, echoed in every line."""

    kind: str
    nodes: int
    pending: int
    together: bool


class Round(Struct, frozen=True):
    """One round's result. rss_mb: the highest that the process had so far."""

    placed: int
    seconds: float
    per_s: float
    rss_mb: float


def a_node(number: int) -> PlacementNode:
    name = f"n{number}"
    labels = {HOSTNAME: name, "zone": f"z{number % 10}", "rack": f"r{number // NODES_A_RACK}", "gen": f"{number % 4}"}
    return PlacementNode(name=name, labels=labels, cpu_m=64_000, memory_bytes=256 * GIB)


def a_vm(name: str, number: int, pending: int, spec: VmSpec) -> PlacementVm:
    return PlacementVm(
        name=name,
        labels={"app": an_app(number, pending)},
        spec=spec,
        cpu_m=1000 * (1 + number % 4),
        memory_bytes=(2 + number % 7) * GIB,
    )


def an_app(number: int, pending: int) -> str:
    return f"a{number % (1 + pending // VMS_AN_APP)}"


def a_spec(kind: str, number: int, pending: int) -> VmSpec:
    """Return the rules of a pending VM; each VM has its own objects, as if read from its own manifest."""
    if kind == MIXED:
        kind = KINDS[number % len(KINDS)]
    own = LabelSelector(match_labels={"app": an_app(number, pending)})
    if kind == "selector":
        return VmSpec(node_selector={"gen": f"{number % 4}"})
    if kind == "antiaffinity":
        apart = VmAffinityTerm(topology_key=HOSTNAME, label_selector=own)
        return VmSpec(affinity=Affinity(vm_anti_affinity=VmAffinity(required=(apart,))))
    if kind == "preferred":
        apart = VmAffinityTerm(topology_key="rack", label_selector=own)
        wish = WeightedVmAffinityTerm(weight=10, vm_affinity_term=apart)
        return VmSpec(affinity=Affinity(vm_anti_affinity=VmAffinity(preferred=(wish,))))
    if kind == "spread":
        even = TopologySpreadConstraint(
            max_skew=1, topology_key="zone", when_unsatisfiable="DoNotSchedule", label_selector=own
        )
        return VmSpec(topology_spread_constraints=(even,))
    return VmSpec()


def a_fleet(inputs: Inputs) -> tuple[Table, list[PlacementVm]]:
    """Return the table with its running VMs, and the pending VMs."""
    running = (
        (a_vm(f"r{number}", number, inputs.pending, VmSpec()), f"n{number // VMS_A_NODE}")
        for number in range(VMS_A_NODE * inputs.nodes)
    )
    table = build_table([a_node(number) for number in range(inputs.nodes)], running)
    pending = [
        a_vm(f"p{number}", number, inputs.pending, a_spec(inputs.kind, number, inputs.pending))
        for number in range(inputs.pending)
    ]
    return table, pending


def place(table: Table, pending: list[PlacementVm], *, together: bool) -> int:
    """Place all and return how many have a node."""
    settings = ScoreSettings()
    if together:
        return sum(v.node is not None for v in place_batch(pending, table, settings, keep=True, told=Told.NODE))
    placed = rotation = 0
    for vm in pending:
        verdict = place_batch([vm], table, settings, rotation, keep=True, told=Told.NODE)[0]
        rotation = verdict.rotation
        placed += verdict.node is not None
    return placed


def play(inputs: Inputs) -> Round:
    """Build a new fleet and measure."""
    table, pending = a_fleet(inputs)
    gc.collect()
    began_s = time.perf_counter()
    placed = place(table, pending, together=inputs.together)
    seconds = time.perf_counter() - began_s
    rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Round(placed, round(seconds, 6), round(len(pending) / seconds, 1), round(rss_mb, 1))


def say(*parts: Struct | dict[str, float]) -> None:
    """Print one JSON line at once."""
    line: dict[str, object] = {}
    for part in parts:
        line |= msgspec.to_builtins(part)
    sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
    sys.stdout.flush()


def positive(text: str) -> int:
    """Read a count of at least 1; ValueError otherwise."""
    count = int(text)
    if count < 1:
        raise ValueError(text)
    return count


def main() -> int:
    """Run the rounds."""
    parser = argparse.ArgumentParser(prog="benchmarks.placement", description=__doc__)
    parser.add_argument("--kind", choices=(*KINDS, MIXED), default=KINDS[0])
    parser.add_argument("--nodes", type=positive, default=5000)
    parser.add_argument("--pending", type=positive, default=10_000)
    parser.add_argument("--together", action="store_true", help="one batch, sorted by size, instead of one by one")
    wanted = parser.parse_args()
    inputs = Inputs(wanted.kind, wanted.nodes, wanted.pending, wanted.together)
    rounds: list[Round] = []
    for _ in range(ROUNDS):
        rounds.append(play(inputs))
        say(inputs, rounds[-1])
    speeds = [each.per_s for each in rounds]
    say(inputs, {"best": max(speeds), "median": statistics.median(speeds)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
