"""One victim after another of a live migration, in one laboratory, while memory is copied and when the reply is lost.

Whatever dies, exactly one copy runs afterwards, or the run ended with its only live QEMU and was begun anew once;
virtward knows where, and no host keeps a paused half. Where a definition stays behind, is named.
"""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable, Iterator

import pytest

from lab import processes
from lab.layout import LIBVIRT_PORT
from lab.scene import Scene
from lab.truth import Cpus
from tests.laboratory.lab_steps import fresh_name

SOURCE, TARGET = "h1", "h2"
VICTIMS = (
    "agent@h1",
    "agent@h2",
    "libvirtd@h1",
    "libvirtd@h2",
    "qemu@h1",
    "qemu@h2",
    "aggregator@1",
    "migration plane",
)
FIRST_PASS, REPLY_LOST = "first pass", "reply lost"
ROWS = tuple(itertools.product((FIRST_PASS, REPLY_LOST), VICTIMS))
NAMES = tuple(f"v{number}" for number in range(1, len(ROWS) + 1))  # a VM of its own for each: no back-off is inherited
LEAVES_A_DEFINITION = ((REPLY_LOST, "libvirtd@h1"), (REPLY_LOST, "qemu@h2"))
"""Where a half may end without libvirt undefining it: it is shut off, and the wall refuses to start it."""
MAY_LEAVE_A_DEFINITION = (*LEAVES_A_DEFINITION, (REPLY_LOST, "libvirtd@h2"))
"""The same without another start: the target's libvirtd can die after it stored the copy and before it is told."""
FALSE_ALARM = (REPLY_LOST, "libvirtd@h1")
"""Known: for some milliseconds virtward says that it runs twice; the ground truth sees one copy all the time."""
COPY_MIB, DIRTY_MIB_PER_S, COPY_MBIT = 256, 20, 400
"""A copy of some seconds that converges: long enough to be hit in the middle."""
DOWN_LOOKS = 20  # looks of the witness, ten a second, for which a victim stays dead: shorter than suspectAfter


@pytest.fixture(scope="module")
def fleet() -> Iterator[Scene]:
    """One laboratory for the whole file; the tests leave nothing but a guest that is off."""
    with Scene(fresh_name(), NAMES) as made:
        made.up()
        yield made


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.xdist_group("victims")
@pytest.mark.parametrize(("row", "phase", "victim"), [(n, *each) for n, each in enumerate(ROWS)])
def test_a_victim_of_a_migration_leaves_one_copy(fleet: Scene, row: int, phase: str, victim: str) -> None:
    """Judged by the ground truth, by both libvirts and by what virtward says, when all is well again."""
    vm = NAMES[row]
    fleet.wait(lambda: all(fleet.node_state(f"h{n}") == "Up" for n in (1, 2, 3)), "every node to be Up")
    fleet.apply(vm, host=SOURCE, memory_mib=COPY_MIB, dirty_mib_per_s=DIRTY_MIB_PER_S)
    fleet.laboratory.slow(SOURCE, "migration", COPY_MBIT)
    fleet.verb("vms", vm, "migrate", {"to": TARGET})
    fleet.wait(lambda: cpus(fleet, vm, TARGET) == Cpus.INCOMING and copied(fleet, vm) > 0, "memory to be copied")
    if phase == REPLY_LOST:
        fleet.laboratory.mute(TARGET, "migration", LIBVIRT_PORT)
        fleet.wait(lambda: cpus(fleet, vm, SOURCE) == Cpus.FINISHED, "the source to have sent everything")
    revive = strike(fleet, vm, victim)
    wait_looks(fleet, DOWN_LOOKS)
    revive()
    for host in (SOURCE, TARGET):
        fleet.laboratory.heal(host, "migration")
    fleet.wait(lambda: at_rest(fleet, vm), f"one copy of {vm} to run where virtward says, and nothing else", 150)
    may_begin_anew = victim == "qemu@h1" or (phase, victim) in LEAVES_A_DEFINITION
    assert fleet.starts(vm) <= (2 if may_begin_anew else 1)
    if not may_begin_anew and (phase, victim) not in MAY_LEAVE_A_DEFINITION:
        fleet.wait(lambda: known_by(fleet, vm) == [fleet.field("vms", vm, "status.node")], "no other definition of it")
    if (phase, victim) != FALSE_ALARM:
        assert "SecondRunSeen" not in [h.kind for h in fleet.witness.happenings if h.vm == vm]
    assert fleet.faults() == []
    fleet.verb("vms", vm, "stop", {"force": True})
    fleet.wait(lambda: not fleet.witness.sample.vms.get(vm), "the guest to be off")


def strike(fleet: Scene, vm: str, victim: str) -> Callable[[], None]:
    """Kill or cut the victim; return what brings it back."""
    role, _, host = victim.partition("@")
    if victim == "migration plane":
        fleet.laboratory.cut(SOURCE, "migration")
        return lambda: fleet.laboratory.heal(SOURCE, "migration")
    if role == "qemu":
        for qemu in fleet.laboratory.sample().vms.get(vm, []):
            if qemu.host == host:
                processes.send(qemu.pid, signal.SIGKILL)
        return lambda: None
    fleet.send(victim, "KILL")
    return lambda: fleet.start(victim)


def wait_looks(fleet: Scene, looks: int) -> None:
    """Wait until the witness has looked so often: nothing may run twice meanwhile."""
    seen = {fleet.witness.sample.at_s}

    def looked() -> bool:
        seen.add(fleet.witness.sample.at_s)
        return len(seen) > looks

    fleet.wait(looked, f"{looks} looks of the witness")


def at_rest(fleet: Scene, vm: str) -> bool:
    """Return whether there is one QEMU, which counts, and virtward names its host."""
    qemus = fleet.witness.sample.vms.get(vm, [])
    if len(qemus) != 1 or not fleet.counts(vm) or fleet.phase(vm) != "Running":
        return False
    return qemus[0].host == fleet.field("vms", vm, "status.node")


def known_by(fleet: Scene, vm: str) -> list[str]:
    """Return the hosts whose libvirt has a definition of the VM."""
    return [h for h in ("h1", "h2", "h3") if vm in fleet.laboratory.virsh(h, "list", "--all", "--name").split()]


def cpus(fleet: Scene, vm: str, host: str) -> Cpus | None:
    """What the CPUs of the copy on a host do."""
    return next((q.cpus for q in fleet.witness.sample.vms.get(vm, []) if q.host == host), None)


def copied(fleet: Scene, vm: str) -> int:
    """How many bytes the migration job has sent; 0 without one."""
    lines = fleet.laboratory.virsh(SOURCE, "domjobinfo", "--rawstats", vm).splitlines()
    values = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(values.get("memory_processed", "0"))
