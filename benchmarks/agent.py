"""What an agent costs beside N real domains, and how late its beats are while a QEMU or libvirtd stands still.

One host of a laboratory of its own, N tiny guests that tick once a second, a real aggregator. Processor time and memory
are the agent's own, read from /proc over the quiet time; a beat's gap is what the aggregator says of its age, looked at
twenty times a second. One JSON object a line: the inputs, a line a round, the best and the median of each figure.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import psutil
from msgspec import Struct

from cli.document import Document, number
from lab.errors import LaboratoryError
from lab.scene import Scene, SceneError

HOST = "h1"
CONFIG: Document = {"overcommit": {"cpu": 100.0}}  # guests that tick once a second need next to nothing
TOGETHER = 10  # guests that are applied at once
LOOK_EVERY_S = 0.05
STILL_S = 12.0  # how long a QEMU, and then libvirtd, stands still
SETTLE_S = 5.0


class Round(Struct):
    """cpu_percent: of one core. beat_gap_ms_max: quiet, with one QEMU frozen, with libvirtd frozen."""

    cpu_percent: float
    rss_mb: float
    beat_gap_ms_max: float
    beat_gap_ms_max_qemu_frozen: float
    beat_gap_ms_max_libvirtd_frozen: float


def play(vms: int, seconds: float) -> Round:
    """Build the laboratory, measure, remove it."""
    names = [f"v{index}" for index in range(1, vms + 1)]
    with Scene("bag", names) as scene:
        scene.up(hosts=1, config=dict(CONFIG))
        for first in range(0, vms, TOGETHER):
            scene.apply(*names[first : first + TOGETHER], host=HOST, tick_ms=1000)
        time.sleep(SETTLE_S)
        agent = psutil.Process(scene.laboratory.host(HOST).pid_of("agent"))
        began_s, used = time.monotonic(), sum(agent.cpu_times()[:2])
        quiet = widest_gap_ms(scene, seconds)
        share = (sum(agent.cpu_times()[:2]) - used) / (time.monotonic() - began_s)
        rss_mb = agent.memory_info().rss / 2**20
        frozen = [while_still(scene, target) for target in (f"qemu:{names[0]}", f"libvirtd@{HOST}")]
        return Round(round(100 * share, 2), round(rss_mb, 1), quiet, *frozen)


def while_still(scene: Scene, target: str) -> float:
    """Freeze a process for a while and return the widest gap meanwhile, in milliseconds."""
    scene.send(target, "STOP")
    try:
        return widest_gap_ms(scene, STILL_S)
    finally:
        scene.send(target, "CONT")
        scene.wait(lambda: scene.condition(HOST, "LibvirtReady").startswith("True"), "libvirt to be ready again")


def widest_gap_ms(scene: Scene, seconds: float) -> float:
    """Return the greatest age of the node's newest beat that is seen within some seconds."""
    ends, widest_s = time.monotonic() + seconds, 0.0
    while time.monotonic() < ends:
        widest_s = max(widest_s, number(scene.get("nodes", HOST), "status.lastBeatAgo"))
        time.sleep(LOOK_EVERY_S)
    return round(1000 * widest_s, 1)


def have_bytecode() -> None:
    """Let the agent find itself compiled, as an installed one does: its compiler's memory would count as its own."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    program = Path(sys.executable).with_name("virtward-agent")
    subprocess.run([program, "--help"], check=True, stdout=subprocess.DEVNULL)


def say(value: object) -> None:
    """Print one JSON line at once."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def main() -> int:
    """Run the rounds; exit 1 when one did not end."""
    parser = argparse.ArgumentParser(prog="benchmarks.agent", description=__doc__)
    parser.add_argument("--vms", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=60.0, help="of quiet, while the agent's cost is measured")
    parser.add_argument("--rounds", type=int, default=3)
    wanted = parser.parse_args()
    say({**vars(wanted), "cores": os.cpu_count()})
    have_bytecode()
    rounds = []
    for _ in range(wanted.rounds):
        try:
            rounds.append(play(wanted.vms, wanted.seconds))
        except (SceneError, LaboratoryError) as error:
            sys.stderr.write(f"benchmarks.agent: {error}\n")
            return 1
        say(rounds[-1])
    figures = {name: [getattr(each, name) for each in rounds] for name in Round.__struct_fields__}
    say(
        {
            "best": {n: min(f) for n, f in figures.items()},
            "median": {n: statistics.median(f) for n, f in figures.items()},
        }
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
