"""What one look at a fleet costs the core, on one core: decide() of a settled fleet, and a turn of one report.

The fleet is the simulator's, after a quiet minute. `resting` is decide() where nothing has changed since the last
one; `reported` is a turn in which one node repeats what it said of one VM: fold, then decide. Processor time, not
wall time. One JSON object a line, inputs echoed: a line a round, then the best.
"""

from __future__ import annotations

import argparse
import sys
import time

import msgspec
from msgspec import Struct

from aggregator.core.decide import decide
from aggregator.core.events import VmsReported
from aggregator.core.settle import settle
from aggregator.core.state import State
from simulator.plan import NodePlan, VmPlan, WorldPlan
from simulator.world import World

ROUNDS = 5
QUIET_S = 60.0
LOOKS = 400


class Round(Struct, frozen=True):
    """Microseconds each."""

    resting_us: float
    reported_us: float


def a_settled_fleet(nodes: int, vms: int) -> State:
    """Return the state of a fleet in which everything runs and nothing is to be decided."""
    plan = WorldPlan(
        nodes=tuple(NodePlan(name=f"n{number}") for number in range(nodes)),
        vms=tuple(VmPlan(name=f"v{number}", node=f"n{number % nodes}") for number in range(vms)),
    )
    world = World(plan)
    world.run_until(QUIET_S)
    state = world.aggregator.state
    if settle(state, (), state.now).events:
        raise RuntimeError("the fleet has not settled")
    return state


def a_repeated_report(state: State) -> VmsReported:
    """Return a delta that says once more what is known of the first VM."""
    vm = next(iter(state.vms.values()))
    seen = vm.reports[vm.owner]
    return VmsReported(at=state.now, node=vm.owner, session=seen.session, generation=1, vms=(seen.report,))


def play(state: State) -> Round:
    """Measure one round."""
    report = a_repeated_report(state)
    began_s = time.process_time()
    for _ in range(LOOKS):
        decide(state, state.now)
    rested_s = time.process_time()
    for _ in range(LOOKS):
        settle(state, (report,), state.now)
    reported_s = time.process_time()
    return Round(*(round(1e6 * s / LOOKS, 1) for s in (rested_s - began_s, reported_s - rested_s)))


def say(value: object) -> None:
    """Print one JSON line at once."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def main() -> int:
    """Build the fleet once, run the rounds."""
    parser = argparse.ArgumentParser(prog="benchmarks.decide", description=__doc__)
    parser.add_argument("--nodes", type=int, default=16)
    parser.add_argument("--vms", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    wanted = parser.parse_args()
    say(vars(wanted))
    state = a_settled_fleet(wanted.nodes, wanted.vms)
    rounds = []
    for _ in range(wanted.rounds):
        rounds.append(play(state))
        say(rounds[-1])
    say({"best": {name: min(getattr(each, name) for each in rounds) for name in Round.__struct_fields__}})
    return 0


if __name__ == "__main__":
    sys.exit(main())
