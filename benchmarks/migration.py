"""What virtward costs a planned move: a drain of M guests, and plain `virsh migrate` of M equal ones, in turn.

Two equal sets of guests run in one laboratory: one that virtward manages, and one that nobody does, since the second
wall refuses a migration of a managed guest by hand. In each round a drain takes the first set to the other host and
virsh the second one, over the same link, with the same TLS, and as many at once as the drain's limits allow. Gaps are
a guest's longest silence by this machine's clock. One JSON object a line: the inputs, a line a guest and round, last
{"ratio"} of the whole times (their medians) and the gaps over all. The first round warms and does not count.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime

import msgspec
from msgspec import Struct

from cli.document import Document, documents, text
from lab import guest_log, processes
from lab.errors import LaboratoryError
from lab.layout import Plane
from lab.manifest import GuestKind
from lab.scene import Scene, SceneError

AT_ONCE = 2  # migration.outboundPerNodeMax, as it is by default
DRAIN_S_MAX = 300.0
COUNTS_S_MAX = 120.0
NEXT_COUNT_S = 2.0  # a guest has counted again by then


class Move(Struct):
    """One guest of each set on its way, in seconds."""

    wall_s: float
    gap_s: float
    virsh_wall_s: float
    virsh_gap_s: float


class Fleet:
    """Both sets of guests, on the same host of the two."""

    def __init__(self, scene: Scene, kind: GuestKind, vms: int) -> None:
        self.scene = scene
        self.managed = [f"v{number}" for number in range(1, vms + 1)]
        self.others = [f"u{number}" for number in range(1, vms + 1)]
        self.kind = kind

    def begin(self) -> None:
        """Let all of them run on h1 and count; keep h3 out of it."""
        scene, laboratory = self.scene, self.scene.laboratory
        scene.up(hosts=3)
        scene.verb("nodes", "h3", "cordon")
        scene.verb("nodes", "h2", "cordon")
        for name in self.managed:
            scene.apply_text(laboratory.vm(name, self.kind, host="h1"))
        for name in self.others:
            xml = laboratory.dir / f"{name}.xml"
            xml.write_text(laboratory.domain_xml(name, self.kind))
            laboratory.virsh("h1", "define", str(xml))
            laboratory.virsh("h1", "start", name)
        scene.verb("nodes", "h2", "uncordon")
        self.wait_counting(time.time())

    def wait_counting(self, since_s: float) -> None:
        """Wait until every guest has counted after a moment."""
        laboratory = self.scene.laboratory

        def all_counted() -> bool:
            logs = (laboratory.guest_log(name) for name in (*self.managed, *self.others))
            return all(any(line.tick and line.at_s > since_s for line in log[-20:]) for log in logs)

        processes.wait_until(all_counted, COUNTS_S_MAX, "every guest to count")

    def silence_s(self, name: str, since_s: float) -> float:
        """Return a guest's longest silence from a moment on."""
        return round(guest_log.longest_gap_s(self.scene.laboratory.guest_log(name), since_s), 3)

    def drain(self, source: str) -> tuple[float, dict[str, tuple[float, float]]]:
        """Drain a host and open it again; return the whole time, and each guest's wall time and silence."""
        scene, begun_s = self.scene, time.time()
        scene.verb("nodes", source, "drain")
        scene.wait(lambda: self.is_done(source), "the drain to be done", DRAIN_S_MAX)
        took_s = time.time() - begun_s
        self.wait_counting(time.time() + NEXT_COUNT_S / 2)
        scene.verb("nodes", source, "uncordon")
        moved = documents(scene.client.get("/api/v1/migrations"), "items")  # oldest first
        walls = {text(each, "spec.vm"): took_of(each) for each in moved}
        return took_s, {name: (walls[name], self.silence_s(name, begun_s)) for name in self.managed}

    def is_done(self, node: str) -> bool:
        return text(self.scene.get("drains", node), "status.phase") == "Done"

    def by_hand(self, source: str, target: str) -> tuple[float, dict[str, tuple[float, float]]]:
        """Let virsh move the other set, AT_ONCE at a time; return the same."""
        laboratory = self.scene.laboratory
        uri = f"qemu+tls://{laboratory.layout.address(target, Plane.MIGRATION)}/system"
        words = ["virsh", "-q", "-c", laboratory.host(source).uri(), "migrate", "--live", "--p2p", "--tls"]
        waiting = list(self.others)
        running: dict[str, tuple[subprocess.Popen[bytes], float]] = {}
        walls: dict[str, float] = {}
        begun_s = time.time()
        while waiting or running:
            while waiting and len(running) < AT_ONCE:
                name = waiting.pop(0)
                process = subprocess.Popen([*words, "--persistent", "--undefinesource", name, uri])
                running[name] = (process, time.time())
            for name, (process, since_s) in list(running.items()):
                if process.poll() is not None:
                    if process.returncode:
                        raise SceneError(f"virsh could not move {name} to {target}")
                    walls[name] = time.time() - since_s
                    del running[name]
            time.sleep(0.005)
        took_s = time.time() - begun_s
        self.wait_counting(time.time() + NEXT_COUNT_S / 2)
        return took_s, {name: (walls[name], self.silence_s(name, begun_s)) for name in self.others}


def took_of(migration: Document) -> float:
    """Return how long a migration took from its turn to its end, in seconds."""
    began, ended = (datetime.fromisoformat(text(migration, f"status.{at}")) for at in ("started", "ended"))
    return (ended - began).total_seconds()


def play(fleet: Fleet, number: int) -> tuple[float, float, list[Move]]:
    """Move both sets once, in the one order and then in the other; return both whole times and the moves."""
    source, target = ("h1", "h2") if number % 2 == 0 else ("h2", "h1")
    if number // 2 % 2 == 0:
        drain_s, ours = fleet.drain(source)
        virsh_s, theirs = fleet.by_hand(source, target)
    else:
        virsh_s, theirs = fleet.by_hand(source, target)
        drain_s, ours = fleet.drain(source)
    pairs = zip(fleet.managed, fleet.others, strict=True)
    moves = [Move(*(round(value, 3) for value in (*ours[mine], *theirs[other]))) for mine, other in pairs]
    return drain_s, virsh_s, moves


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that so great a share of them does not exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def summary(drains: list[float], virshes: list[float], moves: list[Move]) -> dict[str, object]:
    """Return the figures of all rounds that count."""
    ours, theirs = [each.gap_s for each in moves], [each.virsh_gap_s for each in moves]
    return {
        "drain_s": round(statistics.median(drains), 3),
        "virsh_s": round(statistics.median(virshes), 3),
        "ratio": round(statistics.median(drains) / statistics.median(virshes), 3),
        "gap_p50": percentile(ours, 0.5),
        "gap_p99": percentile(ours, 0.99),
        "virsh_gap_p50": percentile(theirs, 0.5),
        "virsh_gap_p99": percentile(theirs, 0.99),
    }


def say(value: object) -> None:
    """Print one JSON line at once."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def main() -> int:
    """Run the rounds; exit 1 when one did not end, or a VM was seen twice."""
    parser = argparse.ArgumentParser(prog="benchmarks.migration", description=__doc__)
    parser.add_argument("--vms", type=int, default=6)
    parser.add_argument("--guest", choices=[kind.value for kind in GuestKind], default=GuestKind.TINY.value)
    parser.add_argument("--rounds", type=int, default=4)
    wanted = parser.parse_args()
    say({**vars(wanted), "at_once": AT_ONCE, "cores": os.cpu_count()})
    names = [f"v{number}" for number in range(1, wanted.vms + 1)]
    drains: list[float] = []
    virshes: list[float] = []
    moves: list[Move] = []
    try:
        with Scene("bmig", names) as scene:
            fleet = Fleet(scene, GuestKind(wanted.guest), wanted.vms)
            fleet.begin()
            for number in range(wanted.rounds + 1):
                drain_s, virsh_s, moved = play(fleet, number)
                if number:
                    drains.append(drain_s)
                    virshes.append(virsh_s)
                    moves += moved
                    for move in moved:
                        say(move)
            twice = len(scene.faults())
    except (SceneError, LaboratoryError) as error:
        sys.stderr.write(f"benchmarks.migration: {error}\n")
        return 1
    say({**summary(drains, virshes, moves), "twice": twice})
    return 0 if not twice else 1


if __name__ == "__main__":
    sys.exit(main())
