"""How soon a QEMU that was killed is known to the aggregator, and runs again: real libvirtd and QEMU, one VM.

`known_s` is from the kill to the arrival here of the aggregator's RunEnded; `again_s` to a new QEMU whose CPUs run, by
the process table, looked at ten times a second. One JSON object a line: the inputs, a line a crash, last the median,
the 99th percentile and the worst of each.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import time

import msgspec
from msgspec import Struct

from cli.document import Document
from lab.errors import LaboratoryError
from lab.scene import Scene, SceneError

VM, HOST = "v1", "h1"
CONFIG: Document = {"restart": {"budget": 1000}}  # as many crashes as are asked for, and none is held back
AGAIN_S_MAX = 30.0


class Crash(Struct):
    """One of them, in seconds from the kill."""

    known_s: float
    again_s: float


def play(crashes: int) -> list[Crash]:
    """Build the laboratory, kill the VM's QEMU so many times, remove the laboratory."""
    with Scene("bcr", [VM]) as scene:
        scene.up(hosts=1, config=dict(CONFIG))
        scene.apply(VM, host=HOST)
        found = []
        for _ in range(crashes):
            found.append(crash(scene))
            say(found[-1])
        if scene.faults():
            raise SceneError(f"what must never be: {scene.faults()}")
        return found


def crash(scene: Scene) -> Crash:
    """Kill it once and wait until the new one counts."""
    scene.wait(lambda: scene.counts(VM) and scene.phase(VM) == "Running", "the VM to run")
    old = _pid(scene)
    os.kill(old, signal.SIGKILL)
    killed_s = time.time()
    scene.wait(lambda: _pid(scene) not in (0, old), "a new QEMU", AGAIN_S_MAX)
    again_s = scene.witness.sample.at_s - killed_s
    scene.wait(lambda: bool(_ends(scene, killed_s)), "the aggregator's word", AGAIN_S_MAX)
    return Crash(round(_ends(scene, killed_s)[0] - killed_s, 3), round(again_s, 3))


def _pid(scene: Scene) -> int:
    """Return the process of the QEMU whose CPUs run, 0 for none."""
    return next((qemu.pid for qemu in scene.witness.sample.vms.get(VM, []) if str(qemu.cpus) == "running"), 0)


def _ends(scene: Scene, since_s: float) -> list[float]:
    return [h.at_s for h in scene.witness.happenings if h.kind == "RunEnded" and h.at_s >= since_s - 0.001]


def say(value: object) -> None:
    """Print one JSON line at once."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def summary(values: list[float]) -> dict[str, float]:
    """Return median, 99th percentile (the worst but one in a hundred) and worst."""
    ordered = sorted(values)
    return {"p50": statistics.median(ordered), "p99": ordered[-1 - len(ordered) // 100], "worst": ordered[-1]}


def main() -> int:
    """Run it; exit 1 when a VM did not come back."""
    parser = argparse.ArgumentParser(prog="benchmarks.crash", description=__doc__)
    parser.add_argument("--crashes", type=int, default=50)
    wanted = parser.parse_args()
    say({**vars(wanted), "cores": os.cpu_count()})
    try:
        found = play(wanted.crashes)
    except (SceneError, LaboratoryError) as error:
        sys.stderr.write(f"benchmarks.crash: {error}\n")
        return 1
    say({"known_s": summary([c.known_s for c in found]), "again_s": summary([c.again_s for c in found])})
    return 0


if __name__ == "__main__":
    sys.exit(main())
