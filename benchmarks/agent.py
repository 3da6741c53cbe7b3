"""What an agent costs beside N real domains, and how late its beats are while a QEMU or libvirtd stands still.

One host of a laboratory of its own, N tiny guests that tick once a second, a real aggregator; with --defined M, domains
besides that libvirt knows and that do not run, until there are M, and then a VM is stopped and started and the agent
killed in their midst. Processor time and memory are the agent's own, read from /proc over the quiet time; a beat's gap
is what the aggregator says of its age, looked at twenty times a second. One JSON object a line: the inputs, a line a
round, the best and the median of each figure.
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
    stop_ms: float = 0.0  # from the order to Stopped, as the API tells it, the guest ended by force
    start_ms: float = 0.0  # from the order to the guest's first word
    rejoin_ms: float = 0.0  # from the start of an agent that was killed to its node's being Up with it


def play(vms: int, defined: int, seconds: float) -> Round:
    """Build the laboratory, measure, remove it."""
    names = [f"v{index}" for index in range(1, vms + 1)]
    with Scene("bag", names) as scene:
        scene.up(hosts=1, config=dict(CONFIG))
        for first in range(0, vms, TOGETHER):
            scene.apply(*names[first : first + TOGETHER], host=HOST, tick_ms=1000)
        define(scene, [f"d{index}" for index in range(vms + 1, defined + 1)])
        time.sleep(SETTLE_S)
        agent = psutil.Process(scene.laboratory.host(HOST).pid_of("agent"))
        began_s, used = time.monotonic(), sum(agent.cpu_times()[:2])
        quiet = widest_gap_ms(scene, seconds)
        share = (sum(agent.cpu_times()[:2]) - used) / (time.monotonic() - began_s)
        rss_mb = agent.memory_info().rss / 2**20
        frozen = [while_still(scene, target) for target in (f"qemu:{names[0]}", f"libvirtd@{HOST}")]
        lived = lives(scene, names[0]) if defined else []
        return Round(round(100 * share, 2), round(rss_mb, 1), quiet, *frozen, *lived)


def define(scene: Scene, names: list[str]) -> None:
    """Let the host's libvirt know domains that do not run."""
    for name in names:
        file = scene.laboratory.dir / "defined.xml"
        file.write_text(scene.laboratory.domain_xml(name), encoding="ascii")
        scene.laboratory.virsh(HOST, "define", str(file))


def lives(scene: Scene, name: str) -> list[float]:
    """Stop a VM, start it, and start the agent anew; return how long each took, in milliseconds."""
    scene.verb("vms", name, "stop", {"force": True})
    stop_s = scene.wait(lambda: scene.phase(name) == "Stopped", f"{name} to be stopped")
    before = scene.starts(name)
    scene.verb("vms", name, "start")
    start_s = scene.wait(lambda: scene.starts(name) > before, f"{name} to boot")
    life = scene.field("nodes", HOST, "status.agentStart")
    scene.send(f"agent@{HOST}", "KILL")
    scene.wait(lambda: scene.laboratory.host(HOST).pid_of("agent") is None, "the agent's end")
    scene.start(f"agent@{HOST}")
    rejoin_s = scene.wait(
        lambda: scene.field("nodes", HOST, "status.agentStart") != life and scene.node_state(HOST) == "Up", "the agent"
    )
    return [round(1000 * each, 1) for each in (stop_s, start_s, rejoin_s)]


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
    parser.add_argument("--defined", type=int, default=0, help="domains in all; those beyond --vms do not run")
    parser.add_argument("--seconds", type=float, default=60.0, help="of quiet, while the agent's cost is measured")
    parser.add_argument("--rounds", type=int, default=3)
    wanted = parser.parse_args()
    say({**vars(wanted), "cores": os.cpu_count()})
    have_bytecode()
    rounds = []
    for _ in range(wanted.rounds):
        try:
            rounds.append(play(wanted.vms, wanted.defined, wanted.seconds))
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
