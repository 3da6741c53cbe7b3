"""What breaks in the laboratory breaks as it does in life: power, cables, frozen hosts, dead daemons."""

from __future__ import annotations

import signal
import sys
import time

import pytest

from lab import processes, status, targets
from lab.laboratory import Laboratory
from lab.layout import LIBVIRT_PORT, Plane
from lab.planes import Direction
from lab.truth import Cpus
from tests.laboratory.lab_steps import in_host, start, wait_for

# Says "open" when it is connected, then "closed" if the peer says goodbye, "silent" if nothing comes for 2 s.
_LISTENER = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as peer:
    print("open", flush=True)
    peer.settimeout(2)
    try:
        print("closed" if peer.recv(1) == b"" else "spoke")
    except TimeoutError:
        print("silent")
    except OSError:
        print("closed")
"""
_RECEIVER = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
    own.bind(("0.0.0.0", 5005)); own.settimeout(float(sys.argv[1]))
    print("ready", flush=True)
    try:
        print(own.recv(9).decode())
    except TimeoutError:
        print("nothing")
"""
_SENDER = """
import socket, sys, time
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
    for _ in range(5):
        own.sendto(b"hello", (sys.argv[1], 5005)); time.sleep(0.02)
"""
_SINK = """
import socket, time
with socket.create_server(("0.0.0.0", 5006)) as door:
    print("ready", flush=True)
    peer, _ = door.accept()
    begun, size = time.monotonic(), 0
    while piece := peer.recv(65536):
        size += len(piece)
    print(size * 8 / 1e6 / (time.monotonic() - begun))
"""
_SOURCE = """
import socket, sys
with socket.create_connection((sys.argv[1], 5006), 5) as peer:
    peer.sendall(bytes(int(sys.argv[2])))
"""


def _arrives(laboratory: Laboratory, sender: str, receiver: str) -> bool:
    """Whether a datagram of one host reaches another on the control plane."""
    with in_host(laboratory, receiver, sys.executable, "-c", _RECEIVER, "1.0") as ear:
        assert ear.stdout is not None
        assert ear.stdout.readline() == "ready\n"
        address = laboratory.layout.address(receiver, Plane.CONTROL)
        with in_host(laboratory, sender, sys.executable, "-c", _SENDER, address) as mouth:
            mouth.wait()
        return ear.stdout.readline() == "hello\n"


def test_a_power_cut_ends_everything_and_says_no_goodbye(laboratory: Laboratory) -> None:
    """The peer of an open connection hears nothing, every process is gone, and the host returns as another boot."""
    start(laboratory, "h3", "victim")
    host = laboratory.host("h3")
    boot_id, members = host.boot_id, host.members()
    assert len(members) >= 3, "process 1, libvirtd and the QEMU"
    address = laboratory.layout.address("h3", Plane.CONTROL)
    with in_host(laboratory, "h2", sys.executable, "-c", _LISTENER, address, str(LIBVIRT_PORT)) as peer:
        assert peer.stdout is not None
        assert peer.stdout.readline() == "open\n"
        laboratory.power("h3", "off")
        assert not any(processes.is_alive(pid) for pid in members)
        assert peer.stdout.readline() == "silent\n"
    assert status.take(laboratory).hosts[2].power == "off"
    assert "victim" not in laboratory.sample().vms
    laboratory.power("h3", "on")
    assert host.boot_id not in ("", boot_id)
    assert laboratory.virsh("h3", "domstate", "victim").strip() == "shut off"


def test_a_frozen_host_stands_still_and_goes_on(laboratory: Laboratory) -> None:
    """Its QEMUs are stopped but would run on: so the ground truth counts them among those that may run."""
    start(laboratory, "h2", "frost")
    targets.send(laboratory, "h2", signal.SIGSTOP)
    assert status.take(laboratory).hosts[1].power == "frozen"
    qemu = laboratory.sample().vms["frost"][0]
    assert (qemu.cpus, qemu.may_run) == (Cpus.STOPPED, True)
    assert laboratory.bmc("h2").mode == "works"
    targets.send(laboratory, "h2", signal.SIGCONT)
    wait_for(lambda: laboratory.sample().vms["frost"][0].cpus is Cpus.RUNNING, "the thaw")
    assert laboratory.virsh("h2", "domstate", "frost").strip() == "running"


def test_a_one_way_cut_stops_one_way_only(laboratory: Laboratory) -> None:
    """`in` and `out` are as the host sees them; both together is a pulled plug; heal mends all of it."""
    assert _arrives(laboratory, "h1", "h2")
    assert _arrives(laboratory, "h2", "h1")
    laboratory.cut("h1", "control", Direction.IN)
    assert status.take(laboratory).hosts[0].planes == {
        "control": "cut-in",
        "migration": "up",
        "storage": "up",
        "bmc": "up",
    }
    assert _arrives(laboratory, "h1", "h2")
    assert not _arrives(laboratory, "h2", "h1")
    laboratory.cut("h1", "control", Direction.OUT)
    assert status.take(laboratory).hosts[0].planes["control"] == "cut"
    assert not _arrives(laboratory, "h1", "h2")
    laboratory.heal("h1", "control")
    assert _arrives(laboratory, "h1", "h2")
    assert _arrives(laboratory, "h2", "h1")


@pytest.mark.slow
def test_a_cut_outlives_the_hosts_power(laboratory: Laboratory) -> None:
    """A cable that was cut is still cut when the host boots again."""
    laboratory.cut("h1", "migration")
    laboratory.power("h1", "cycle")
    assert laboratory.planes.wire(laboratory.layout.link("h1", Plane.MIGRATION)).word == "cut"
    carrier = laboratory.layout.link("h1", Plane.MIGRATION).near
    assert "NO-CARRIER" in _link_state(laboratory, "h1", carrier)
    laboratory.heal("h1")
    wait_for(lambda: "NO-CARRIER" not in _link_state(laboratory, "h1", carrier), "the carrier")


def _link_state(laboratory: Laboratory, host: str, link: str) -> str:
    with in_host(laboratory, host, "ip", "-br", "link", "show", "dev", link) as shown:
        assert shown.stdout is not None
        return shown.stdout.read()


@pytest.mark.slow
def test_a_slow_cable_is_slow(laboratory: Laboratory) -> None:
    """A rate limit holds: 16 Mbit need two seconds at 8 Mbit/s, whatever the machine."""
    laboratory.slow("h1", "migration", 8)
    with in_host(laboratory, "h2", sys.executable, "-c", _SINK) as sink:
        assert sink.stdout is not None
        assert sink.stdout.readline() == "ready\n"
        address = laboratory.layout.address("h2", Plane.MIGRATION)
        with in_host(laboratory, "h1", sys.executable, "-c", _SOURCE, address, "2000000") as source:
            source.wait()
        assert float(sink.stdout.readline()) < 10.0
    laboratory.heal("h1")


def test_libvirtd_dies_alone_and_is_started_again(laboratory: Laboratory) -> None:
    """Guests outlive their libvirtd; nothing comes back by itself; `start` brings it back and it knows them."""
    start(laboratory, "h2", "orphan")
    targets.send(laboratory, "libvirtd@h2", signal.SIGKILL)
    wait_for(lambda: status.take(laboratory).hosts[1].libvirtd is None, "the death of libvirtd")
    begun = time.time()
    wait_for(lambda: laboratory.guest_log("orphan")[-1].at_s > begun, "a tick without libvirtd")
    targets.start(laboratory, "libvirtd@h2")
    assert laboratory.virsh("h2", "domstate", "orphan").strip() == "running"
    targets.send(laboratory, "qemu:orphan", signal.SIGKILL)
    wait_for(lambda: "orphan" not in laboratory.sample().vms, "the death of the QEMU")
