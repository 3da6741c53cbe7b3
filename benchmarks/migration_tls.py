"""What TLS costs a live migration: the same guests to and fro by virsh, with and without `--tls`, alternating.

Only the guest's memory is compared: libvirtd's own connection is encrypted both times. `migrate_tls_force` is taken
off for it. One JSON object a line: the inputs, a line a pair, last the medians and {"ratio"} of their wall times.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time

import msgspec
from msgspec import Struct

from lab import guest_log, processes
from lab.errors import LaboratoryError
from lab.laboratory import Laboratory
from lab.layout import Plane
from lab.manifest import GuestKind

COUNTS_S_MAX = 60.0


class Pair(Struct):
    """One way with TLS and one without; gap_s: the longest silence of the guest on its way."""

    tls_wall_s: float
    tls_gap_s: float
    plain_wall_s: float
    plain_gap_s: float


def prepare(laboratory: Laboratory, kind: GuestKind, memory_mib: int) -> None:
    """Build hosts without agents that allow both, and start the guest on h1."""
    laboratory.up(hosts=2, agents=False, fencing="none")
    for host in laboratory.hosts:
        conf = host.dir / "etc-libvirt" / "qemu.conf"
        conf.write_text(conf.read_text().replace("migrate_tls_force = 1", "migrate_tls_force = 0"))
        host.power_off()
        host.power_on()
    xml = laboratory.dir / "guest.xml"
    xml.write_text(laboratory.domain_xml("guest", kind, memory_mib=memory_mib))
    laboratory.virsh("h1", "define", str(xml))
    laboratory.virsh("h1", "start", "guest")

    def counts() -> bool:
        return any(line.tick for line in laboratory.guest_log("guest"))

    processes.wait_until(counts, COUNTS_S_MAX, "the guest to count")


def move(laboratory: Laboratory, source: str, target: str, *, tls: bool) -> tuple[float, float]:
    """Migrate the guest; return wall time and the guest's longest silence, in seconds."""
    uri = f"qemu+tls://{laboratory.layout.address(target, Plane.MIGRATION)}/system"
    words = ["migrate", "--live", "--p2p", "--persistent", "--undefinesource", *(["--tls"] if tls else [])]
    unix_s, begun_s = time.time(), time.monotonic()
    laboratory.virsh(source, *words, "guest", uri)
    wall_s = time.monotonic() - begun_s
    return round(wall_s, 3), round(guest_log.longest_gap_s(laboratory.guest_log("guest"), unix_s), 3)


def play(laboratory: Laboratory) -> Pair:
    """Go there with TLS and back without it, then the other way about for the next pair."""
    tls_wall_s, tls_gap_s = move(laboratory, "h1", "h2", tls=True)
    plain_wall_s, plain_gap_s = move(laboratory, "h2", "h1", tls=False)
    return Pair(tls_wall_s, tls_gap_s, plain_wall_s, plain_gap_s)


def say(value: object) -> None:
    """Print one JSON line at once."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def main() -> int:
    """Run the rounds after one that warms; exit 1 when one did not end."""
    parser = argparse.ArgumentParser(prog="benchmarks.migration_tls", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--guest", choices=[kind.value for kind in GuestKind], default=GuestKind.TINY.value)
    parser.add_argument("--memory", type=int, default=256, help="MiB")
    wanted = parser.parse_args()
    say({**vars(wanted), "cores": os.cpu_count()})
    laboratory = Laboratory("bmtls")
    try:
        prepare(laboratory, GuestKind(wanted.guest), wanted.memory)
        play(laboratory)
        pairs = []
        for _ in range(wanted.rounds):
            pairs.append(play(laboratory))
            say(pairs[-1])
    except LaboratoryError as error:
        sys.stderr.write(f"benchmarks.migration_tls: {error}\n")
        return 1
    finally:
        laboratory.down()
    medians = {name: statistics.median(getattr(pair, name) for pair in pairs) for name in Pair.__struct_fields__}
    say({**medians, "ratio": round(medians["tls_wall_s"] / medians["plain_wall_s"], 3)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
