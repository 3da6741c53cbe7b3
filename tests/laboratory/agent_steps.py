"""Steps of the tests of the real agent: an agent on each host that talks to the tests' own aggregator.

The ground truth is the laboratory's own (the process table and each guest's second monitor).
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from fleet.messages import MigrateVm
from lab import processes
from lab.daemons import write_agent_configuration
from lab.errors import LaboratoryError
from lab.hosts import Host
from lab.laboratory import Laboratory
from tests.agent_bench import TOKEN, BenchAggregator, listen_inside

AGENTS_PORT = 8421


@pytest.fixture
async def bench(laboratory: Laboratory) -> AsyncIterator[BenchAggregator]:
    """An aggregator at 127.0.0.1 of each host, and an agent on each whose session stands; nothing twice at the end."""
    terms = laboratory.dir / "bench-term"
    term = int(terms.read_text()) + 1 if terms.exists() else 1
    terms.write_text(str(term))
    aggregator = BenchAggregator(term)
    await aggregator.start(*(listen_inside(_init(host), AGENTS_PORT) for host in laboratory.hosts))
    for host in laboratory.hosts:
        start_agent(laboratory, host)
    for host in laboratory.hosts:
        await aggregator.session(host.name)
    try:
        yield aggregator
        assert laboratory.splits() == []
    finally:
        for host in laboratory.hosts:
            stop_agent(host)
            remove_guests(laboratory, host)
        await aggregator.stop()


def _init(host: Host) -> int:
    init = host.init
    assert init is not None
    return init


def start_agent(laboratory: Laboratory, host: Host) -> None:
    write_agent_configuration(laboratory.layout, host, [laboratory.aggregator], has_bmc=True)
    path = host.dir / "agent.toml"
    url = f'aggregators = ["ws://127.0.0.1:{AGENTS_PORT}"]'
    path.write_text(re.sub("aggregators = .*", url, path.read_text()))
    token = host.dir / "agent.token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    host.start_agent()


def stop_agent(host: Host) -> None:
    pid = host.pid_of("agent")
    if pid is not None:
        kill(pid)


def kill(pid: int | None) -> None:
    """Kill a process and wait until it is gone."""
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    processes.wait_until(lambda: not processes.is_alive(pid), 10.0, f"the end of {pid}")


def remove_guests(laboratory: Laboratory, host: Host) -> None:
    """End what a failed test left behind."""
    if host.pid_of("libvirtd") is None:
        host.start_libvirtd()
    for name in laboratory.virsh(host.name, "list", "--name").split():
        with suppress(LaboratoryError):  # it may end by itself at this very moment
            laboratory.virsh(host.name, "destroy", name)
    for name in laboratory.virsh(host.name, "list", "--all", "--name").split():
        with suppress(LaboratoryError):  # a start cut short by libvirtd's death leaves what nothing can end
            laboratory.virsh(host.name, "undefine", name)


def a_guest(laboratory: Laboratory, name: str) -> tuple[tuple[str, str], str]:
    """Make a tiny guest's disk; return (uuid, name) and its XML."""
    xml = laboratory.domain_xml(name)
    uuid = re.search("<uuid>(.*)</uuid>", xml)
    assert uuid is not None
    return (uuid.group(1), name), xml


def may_run(laboratory: Laboratory, name: str) -> list[str]:
    """Hosts on which the guest's CPUs may run, by the ground truth."""
    return [qemu.host for qemu in laboratory.sample().vms.get(name, []) if qemu.may_run]


async def counting(laboratory: Laboratory, bench: BenchAggregator, name: str) -> None:
    """Wait until the guest has booted and counts."""
    await bench.wait(lambda: any(line.text.startswith("tick") for line in laboratory.guest_log(name)))


def migrate(bench: BenchAggregator, target: str, secret: str, epoch: int = 2) -> MigrateVm:
    hello = bench.nodes[target].hello
    assert hello is not None
    addresses = hello.facts.addresses
    peers = tuple(f"{addresses[plane]}:{hello.facts.agent_port}" for plane in ("control", "migration"))
    return MigrateVm("m1", 1, target, epoch, hello.facts.peer_uri, addresses["migration"], peers, secret)
