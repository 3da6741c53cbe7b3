"""How long guests are down when their host fails: real libvirtd, QEMU, storage and IPMI, a fresh laboratory a round.

M tiny guests run on h1; its power is cut, or all of it is frozen while its BMC goes on saying on. A round's
`counting_s` is from the fault to the last of them counting on another host, by this machine's clock.
One JSON object a line: the inputs, a line a round, last {"p50", "worst"} of counting_s.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time

import msgspec
from msgspec import Struct

from lab.errors import LaboratoryError
from lab.scene import Scene, SceneError

FAULTS = ("power", "hang")
RECOVERY_S_MAX = 60.0


class Round(Struct):
    """One failure. stages: seconds from the fault; null where the way did not lead through it."""

    counting_s: float
    running_s: float
    stages: dict[str, float | None]
    twice: int


def play(fault: str, hosts: int, vms: int, number: int) -> Round:
    """Build a laboratory, fail h1, measure, remove it. SceneError when the guests do not come back."""
    names = [f"v{index}" for index in range(1, vms + 1)]
    with Scene(f"bm{number % 100}", names) as scene:
        scene.up(hosts=hosts)
        scene.apply(*names, host="h1")
        scene.wait(lambda: set(scene.where().values()) == {"h1"}, "all guests to run on h1")
        fault_s = time.time()
        if fault == "power":
            scene.laboratory.power("h1", "off")
        else:
            scene.send("h1", "STOP")
        return measure(scene, fault_s)


def measure(scene: Scene, fault_s: float) -> Round:
    """Watch one recovery to its end."""
    names = set(scene.names)

    def runs_elsewhere() -> bool:
        where = scene.where()
        return names <= {name for name, host in where.items() if host != "h1"}

    scene.wait(runs_elsewhere, "the guests to run elsewhere", RECOVERY_S_MAX)
    running_s = scene.witness.sample.at_s - fault_s
    scene.wait(
        lambda: names <= set(scene.witness.counting_since(fault_s, not_on="h1")),
        "the guests to count elsewhere",
        RECOVERY_S_MAX,
    )
    counted = scene.witness.counting_since(fault_s, not_on="h1")
    counting_s = max(line.at_s for line in counted.values()) - fault_s
    stages = {
        "suspect": since(scene, "NodeSuspect", fault_s),
        "lost": since(scene, "NodeLost", fault_s),
        "proof": since(scene, "NodeProven", fault_s),
        "order": since(scene, "StartDecided", fault_s, node=""),
        "running": round(running_s, 3),
        "counting": round(counting_s, 3),
    }
    return Round(round(counting_s, 3), round(running_s, 3), stages, len(scene.faults()))


def since(scene: Scene, kind: str, fault_s: float, node: str = "h1") -> float | None:
    """Return when the first such event came, in seconds from the fault; None if none did."""
    for happening in scene.witness.happenings:
        if happening.kind == kind and happening.at_s >= fault_s and (not node or happening.node == node):
            return round(happening.at_s - fault_s, 3)
    return None


def say(value: object) -> None:
    """Print one JSON line at once."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def main() -> int:
    """Run the rounds; exit 1 when one did not end."""
    parser = argparse.ArgumentParser(prog="benchmarks.recovery", description=__doc__)
    parser.add_argument("--fault", choices=FAULTS, default="power")
    parser.add_argument("--hosts", type=int, default=3)
    parser.add_argument("--vms", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=10)
    wanted = parser.parse_args()
    say({**vars(wanted), "cores": os.cpu_count()})
    rounds: list[Round] = []
    try:
        for number in range(wanted.rounds):
            rounds.append(play(wanted.fault, wanted.hosts, wanted.vms, number))
            say(rounds[-1])
    except (SceneError, LaboratoryError) as error:
        sys.stderr.write(f"benchmarks.recovery: {error}\n")
        return 1
    downs = [each.counting_s for each in rounds]
    twice = sum(each.twice for each in rounds)
    say({"p50": statistics.median(downs), "worst": max(downs), "twice": twice})
    return 0 if not twice else 1


if __name__ == "__main__":
    sys.exit(main())
