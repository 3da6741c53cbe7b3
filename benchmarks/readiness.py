"""What the standing report on the loss of each node, rack and zone costs, on one core.

The fleet is the simulator's beginning: every node Up, VMs round robin, racks of 20 nodes, zones of 100. `copy_s`
is what the loop is held up for, `think_s` is spent on a thread of its own, `share` of one core at the pace that the
aggregator keeps (aggregator/readiness.py). Processor time. One JSON object a line: a line a round, then the best.
"""

from __future__ import annotations

import argparse
import sys
import time

import msgspec
from msgspec import Struct

from aggregator.core.whatif import answer_all, ask_all
from aggregator.readiness import EVERY_S_MIN, SHARE_MAX
from fleet.model import NodeFacts, SessionKey
from simulator.beginning import FLEET_EPOCH_S, state_of
from simulator.plan import NodePlan, VmPlan, WorldPlan

ROUNDS = 3
NODES_A_RACK, NODES_A_ZONE = 20, 100


class Round(Struct, frozen=True):
    """parts: nodes, racks and zones; uncovered: those whose loss not every VM would come back from."""

    nodes: int
    vms: int
    parts: int
    uncovered: int
    copy_s: float
    think_s: float
    share: float


def measure(nodes: int, vms: int) -> Round:
    """Make one report."""
    labels = [
        {"virtward/rack": f"r{number // NODES_A_RACK}", "virtward/zone": f"z{number // NODES_A_ZONE}"}
        for number in range(nodes)
    ]
    plan = WorldPlan(
        nodes=tuple(NodePlan(name=f"n{number}", labels=labels[number]) for number in range(nodes)),
        vms=tuple(VmPlan(name=f"v{number}", node=f"n{number % nodes}") for number in range(vms)),
    )
    state = state_of(plan, FLEET_EPOCH_S)
    for node in state.nodes.values():
        node.facts = NodeFacts(f"machine-{node.name}", f"uuid-{node.name}", cpu_m=64_000, memory_bytes=256 << 30)
        node.connected = node.complete = True
        node.session = SessionKey(node.boot_id, "agent-1", 1)
    begun = time.process_time()
    questions = ask_all(state, state.now)
    copied = time.process_time()
    report = answer_all(questions)
    ended = time.process_time()
    took_s = ended - begun
    pause_s = max(EVERY_S_MIN, took_s / SHARE_MAX)
    return Round(
        nodes,
        vms,
        len(report.parts),
        len(report.uncovered),
        round(copied - begun, 4),
        round(ended - copied, 4),
        round(took_s / (took_s + pause_s), 4),
    )


def main(arguments: list[str]) -> int:
    """Print a line a round and the best."""
    parser = argparse.ArgumentParser(prog="benchmarks.readiness", description=__doc__)
    parser.add_argument("--nodes", type=int, default=500)
    parser.add_argument("--vms", type=int, default=5000)
    options = parser.parse_args(arguments)
    rounds = [measure(options.nodes, options.vms) for _ in range(ROUNDS)]
    for found in rounds:
        print(msgspec.json.encode(found).decode())
    best = min(rounds, key=lambda found: found.think_s)
    print(msgspec.json.encode({"best": best}).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
