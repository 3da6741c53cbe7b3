"""kill -9 of agent, libvirtd and virtlogd in every order, beside 20 guests: what was ordered is, no more.

Judged by the process table: a guest that was not meant has the same QEMU process afterwards, its CPUs running.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from functools import partial

import pytest

from lab.hosts import Host
from lab.laboratory import Laboratory
from lab.manifest import GuestKind
from lab.scene import Scene
from lab.truth import Cpus
from tests.laboratory.agent_steps import kill
from tests.laboratory.scenes import SceneMaker

pytestmark = [pytest.mark.laboratory, pytest.mark.slow, pytest.mark.timeout(420)]

STAY = tuple(f"stay{number:02}" for number in range(15))
MEANT = tuple(f"meant{number}" for number in range(5))
DAEMONS = ("agent", "libvirtd", "virtlogd")
ORDERS = tuple(itertools.permutations(DAEMONS))
VIRTLOGD = "/usr/sbin/virtlogd"
TICK_MS = 1000  # twenty emulated guests share the machine


def start_daemon(fleet: Scene, host: Host, daemon: str) -> None:
    """Start a daemon of a host, as systemd would."""
    if daemon == "virtlogd":
        host.spawn(daemon, [VIRTLOGD], fleet.laboratory.dir / "virtlogd.log")
    else:
        fleet.start(f"{daemon}@{host.name}")


def with_log_daemon(fleet: Scene) -> Host:
    """Return the host, with guests' logs through virtlogd, as libvirt is shipped; the laboratory has files else."""
    host = fleet.laboratory.host("h1")
    config = host.dir / "etc-libvirt" / "qemu.conf"
    config.write_text(re.sub('stdio_handler = "file"', 'stdio_handler = "logd"', config.read_text()))
    kill(host.pid_of("libvirtd"))
    start_daemon(fleet, host, "virtlogd")
    start_daemon(fleet, host, "libvirtd")
    fleet.wait(lambda: fleet.condition("h1", "LibvirtReady").startswith("True"), "libvirtd to be back")
    return host


def running(laboratory: Laboratory) -> dict[str, int]:
    """Return each guest that runs, and the pid of its only QEMU."""
    vms = laboratory.sample().vms
    assert all(len(qemus) == 1 for qemus in vms.values())
    return {name: qemus[0].pid for name, qemus in vms.items() if qemus[0].cpus is Cpus.RUNNING}


def is_as_ordered(fleet: Scene, up: set[str], down: set[str]) -> bool:
    """Whether process table and virtward agree on who runs and who does not, and the node says that all is well."""
    if set(fleet.laboratory.sample().vms) != up or set(running(fleet.laboratory)) != up:
        return False
    phases = {name: fleet.phase(name) for name in up | down}
    well = fleet.node_state("h1") == "Up" and fleet.condition("h1", "LibvirtReady").startswith("True")
    return well and all(phases[n] == "Running" for n in up) and all(phases[n] == "Stopped" for n in down)


@pytest.fixture
def fleet(scene: SceneMaker) -> Scene:
    """One host with twenty guests, five of which are started and stopped by order only."""
    one = scene(hosts=1, config={"restart": {"budget": 100}})
    for name in STAY + MEANT:
        manifest = one.laboratory.vm(name, GuestKind.TINY, tick_ms=TICK_MS)
        one.apply_text(manifest.replace("Always", "Manual") if name in MEANT else manifest)
    return one


def strike(fleet: Scene, host: Host, order: tuple[str, ...], moment: Callable[[], bool]) -> None:
    """Kill the three at a moment, one after the other, and start them again in the same order."""
    fleet.wait(moment, "the moment to strike", 30)
    for daemon in order:
        kill(host.pid_of(daemon))
    for daemon in order:
        start_daemon(fleet, host, daemon)


def command(fleet: Scene, verb: str) -> None:
    """Give the five an order."""
    for name in MEANT:
        fleet.verb("vms", name, verb, {"force": True} if verb == "stop" else {})


def settled(fleet: Scene, *, five_run: bool, order: tuple[str, ...] = ()) -> None:
    """Wait until all is as ordered."""
    up = set(STAY + MEANT) if five_run else set(STAY)
    what = f"all to be as ordered after {order}"
    fleet.wait(lambda: is_as_ordered(fleet, up, set(STAY + MEANT) - up), what, 120)


def started(fleet: Scene) -> int:
    """How many of the five have a QEMU now."""
    return len(set(MEANT) & set(fleet.laboratory.sample().vms))


def has_started(fleet: Scene, at_least: int) -> bool:
    return started(fleet) >= at_least


def has_stopped(fleet: Scene, at_least: int) -> bool:
    return started(fleet) <= len(MEANT) - at_least


def prepared(fleet: Scene) -> tuple[Host, dict[str, int]]:
    """Return the host with its fifteen running and the five stopped, and the fifteen's processes."""
    fleet.wait(lambda: set(running(fleet.laboratory)) == set(STAY), "fifteen guests to run")
    host = with_log_daemon(fleet)
    command(fleet, "start")
    settled(fleet, five_run=True)
    return host, running(fleet.laboratory)


def test_during_starts(fleet: Scene) -> None:
    """Struck when none, one, two … of five guests have a QEMU: each ends up running, once."""
    host, before = prepared(fleet)
    for number, order in enumerate(ORDERS):
        command(fleet, "stop")
        settled(fleet, five_run=False)
        command(fleet, "start")
        strike(fleet, host, order, partial(has_started, fleet, number % len(MEANT)))
        settled(fleet, five_run=True, order=order)
        after = running(fleet.laboratory)
        assert {name: after[name] for name in STAY} == {name: before[name] for name in STAY}, order
    assert fleet.faults() == []


def test_during_stops(fleet: Scene) -> None:
    """Struck when none, one, two … of five guests are gone: each ends up stopped."""
    host, before = prepared(fleet)
    for number, order in enumerate(ORDERS):
        command(fleet, "stop")
        strike(fleet, host, order, partial(has_stopped, fleet, number % len(MEANT)))
        settled(fleet, five_run=False, order=order)
        assert running(fleet.laboratory) == {name: before[name] for name in STAY}, order
        command(fleet, "start")
        settled(fleet, five_run=True)
    assert fleet.faults() == []


def test_while_idle(fleet: Scene) -> None:
    """Nothing is under way: nothing is touched."""
    host, before = prepared(fleet)
    for order in ORDERS:
        strike(fleet, host, order, lambda: True)
        settled(fleet, five_run=True, order=order)
        assert running(fleet.laboratory) == before, order
    assert fleet.faults() == []
