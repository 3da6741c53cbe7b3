"""The real agent on real hosts: orders, hand-over, and every process killed at a bad moment.

The ground truth is the laboratory's own (the process table and each guest's second monitor); the
aggregator is a small one of the tests that decides nothing.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from functools import partial
from itertools import pairwise

import pytest

from fleet.messages import (
    DestroyVm,
    DiscardIncoming,
    MigrateVm,
    ProbeAddress,
    ProbeRequest,
    ReceiveVm,
    ResumeVm,
    ShutdownVm,
    StartVm,
)
from fleet.model import EndReason, LedgerState, OrderOutcome, Plane, QemuState
from lab import processes
from lab.daemons import write_agent_configuration
from lab.errors import LaboratoryError
from lab.hosts import Host
from lab.laboratory import Laboratory
from lab.layout import Plane as LabPlane
from tests.agent_bench import TOKEN, BenchAggregator, _send, listen_inside

pytestmark = [pytest.mark.laboratory, pytest.mark.timeout(300)]
AGENTS_PORT = 8421


@pytest.fixture(scope="module")
def laboratory() -> Iterator[Laboratory]:
    """Three hosts without agents of their own."""
    lab = Laboratory("agtst")
    lab.up(hosts=3, agents=False)
    try:
        yield lab
    finally:
        lab.down()


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


async def test_a_vm_is_started_shut_down_started_again_and_destroyed(
    laboratory: Laboratory, bench: BenchAggregator
) -> None:
    vm, xml = a_guest(laboratory, "life")
    started = await bench.done("h1", vm, StartVm(xml, 1))
    assert (started.outcome, started.vm and started.vm.state) == (OrderOutcome.DONE, QemuState.RUNNING)
    definition = bench.nodes["h1"].definitions[vm[0]]
    assert "machine='pc-i440fx" in definition.xml
    assert definition.disks[0].identity.startswith("nbd://")
    assert may_run(laboratory, "life") == ["h1"]
    await counting(laboratory, bench, "life")
    ended = await bench.done("h1", vm, ShutdownVm(1, grace_s=20.0))
    assert ended.vm is not None
    assert (ended.outcome, ended.vm.released, ended.vm.end) == (OrderOutcome.DONE, True, EndReason.ORDERED)
    assert may_run(laboratory, "life") == []
    assert (await bench.done("h1", vm, StartVm(xml, 2))).outcome is OrderOutcome.DONE
    late = await bench.done("h1", vm, DestroyVm(1))
    assert late.code == "OLD_RUN"
    assert may_run(laboratory, "life") == ["h1"]
    destroyed = await bench.done("h1", vm, DestroyVm(2))
    assert destroyed.vm is not None
    assert destroyed.vm.released


async def test_a_guest_that_powers_off_or_crashes_is_released_with_its_reason(
    laboratory: Laboratory, bench: BenchAggregator
) -> None:
    vm, xml = a_guest(laboratory, "ends")
    for run, word, end in ((1, "poweroff", EndReason.POWEROFF), (2, "kill", EndReason.CRASHED)):
        assert (await bench.done("h1", vm, StartVm(xml, run))).outcome is OrderOutcome.DONE
        if word == "kill":
            (qemu,) = laboratory.sample().vms["ends"]
            os.kill(qemu.pid, signal.SIGKILL)
        else:
            await counting(laboratory, bench, "ends")
            laboratory.order_guest("ends", word)
        ended = await bench.wait(lambda: (v := bench.nodes["h1"].vms[vm[0]]).released and v)
        assert (ended.run, ended.end) == (run, end)  # type: ignore[union-attr]


async def test_xml_that_libvirt_refuses_fails_with_libvirts_words_and_leaves_nothing(
    laboratory: Laboratory, bench: BenchAggregator
) -> None:
    vm, xml = a_guest(laboratory, "bad")
    failed = await bench.done("h1", vm, StartVm(xml.replace("machine='pc'", "machine='toaster'"), 1))
    assert failed.outcome is OrderOutcome.FAILED
    assert "toaster" in failed.message
    assert failed.vm is not None
    assert failed.vm.released
    assert "bad" not in laboratory.virsh("h1", "list", "--all", "--name").split()


async def test_a_migration_hands_over_on_the_sources_pid_and_the_count_goes_on(
    laboratory: Laboratory, bench: BenchAggregator
) -> None:
    vm, xml = a_guest(laboratory, "move")
    secret = secrets.token_hex(16)
    await bench.done("h1", vm, StartVm(xml, 1))
    assert (await bench.done("h2", vm, ReceiveVm("m1", 1, "h1", 1, secret), epoch=2)).outcome is OrderOutcome.DONE
    moved = await bench.done("h1", vm, migrate(bench, "h2", secret))
    assert moved.vm is not None
    assert (moved.outcome, moved.vm.released, moved.vm.end) == (OrderOutcome.DONE, True, EndReason.MIGRATED)
    await bench.wait(lambda: bench.nodes["h2"].vms[vm[0]].state is QemuState.RUNNING)
    states = [report.state for _at, report in bench.nodes["h2"].history if report.uuid == vm[0]]
    assert QemuState.INCOMING in states
    assert QemuState.ARRIVED in states
    await bench.wait(lambda: any(line.host == "h2" for line in laboratory.guest_log("move")))
    lines = laboratory.guest_log("move")
    assert [line.text for line in lines if line.text.startswith("boot")] == ["boot from 0"]
    gaps = [after.at_s - before.at_s for before, after in pairwise(lines)]
    assert max(gaps) < 5.0  # the figure itself is benchmarks.migration's; here only that there is no restart
    await bench.done("h2", vm, DestroyVm(1), epoch=2)


async def test_the_hand_over_trap_leaves_one_running_copy(laboratory: Laboratory, bench: BenchAggregator) -> None:
    """The target's replies are lost between Finish and its answer: libvirt alone would run the VM twice."""
    vm, xml = a_guest(laboratory, "trap")
    secret = secrets.token_hex(16)
    await bench.done("h1", vm, StartVm(xml, 1))
    await bench.done("h2", vm, ReceiveVm("m1", 1, "h1", 1, secret), epoch=2)
    order = await bench.order("h1", vm, migrate(bench, "h2", secret))
    await bench.wait(lambda: bench.nodes["h2"].vms[vm[0]].state in (QemuState.INCOMING, QemuState.ARRIVED))
    laboratory.cut("h2", LabPlane.MIGRATION.value)
    seen: list[list[str]] = []

    def decided() -> bool:
        seen.append(may_run(laboratory, "trap"))
        return bench.nodes["h1"].final(order) is not None

    await bench.wait(decided, 120.0)
    laboratory.heal("h2", LabPlane.MIGRATION.value)
    assert max(map(len, seen)) <= 1
    report = bench.nodes["h1"].final(order)
    assert report is not None
    if report.outcome is OrderOutcome.FAILED:
        assert may_run(laboratory, "trap") == ["h1"]
        discarded = await bench.done("h2", vm, DiscardIncoming("m1"), epoch=2)
        assert discarded.vm is not None
        assert discarded.vm.released
        await bench.done("h1", vm, DestroyVm(1))
    else:
        await bench.wait(lambda: may_run(laboratory, "trap") == ["h2"])
        await bench.done("h2", vm, DestroyVm(1), epoch=2)


async def test_a_target_agent_that_was_dead_is_told_by_order(laboratory: Laboratory, bench: BenchAggregator) -> None:
    vm, xml = a_guest(laboratory, "deaf")
    secret = secrets.token_hex(16)
    await bench.done("h1", vm, StartVm(xml, 1))
    await bench.done("h2", vm, ReceiveVm("m1", 1, "h1", 1, secret), epoch=2)
    order = migrate(bench, "h2", "another secret than the target's")
    assert (await bench.done("h1", vm, order)).outcome is OrderOutcome.DONE
    await bench.wait(lambda: bench.nodes["h2"].vms[vm[0]].state is QemuState.ARRIVED)
    assert may_run(laboratory, "deaf") == []
    stop_agent(laboratory.host("h2"))
    start_agent(laboratory, laboratory.host("h2"))
    sessions = len(bench.nodes["h2"].sessions)
    await bench.wait(lambda: len(bench.nodes["h2"].sessions) > sessions)
    await bench.session("h2")
    assert bench.nodes["h2"].vms[vm[0]].state is QemuState.ARRIVED
    assert (await bench.done("h2", vm, ResumeVm("m1", 1), epoch=2)).outcome is OrderOutcome.DONE
    assert may_run(laboratory, "deaf") == ["h2"]
    await bench.done("h2", vm, DestroyVm(1), epoch=2)


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["agent", "libvirtd"])
async def test_a_kill_during_a_start_ends_in_something_true(
    laboratory: Laboratory, bench: BenchAggregator, victim: str
) -> None:
    """Killed at ten different moments, the agent always comes to say what the process table says."""
    host = laboratory.host("h1")
    for run in range(1, 11):
        vm, xml = a_guest(laboratory, f"kill-{victim}")
        order = await bench.order("h1", vm, StartVm(xml, run), epoch=run)
        await asyncio.sleep(0.04 * run)
        pid = host.pid_of(victim)
        kill(pid)
        if victim == "agent":
            start_agent(laboratory, host)
        else:
            host.start_libvirtd()
        report = await bench.wait(partial(_known_end, bench, order, vm[0]), 60.0)
        running = may_run(laboratory, vm[1])
        assert running == (["h1"] if report == "Running" else [])
        await bench.done("h1", vm, DestroyVm(run), epoch=run)


def _known_end(bench: BenchAggregator, order: str, uuid: str) -> str:
    """What the node says about the VM once it says it for sure, in a session that stands."""
    told = bench.nodes["h1"]
    if not told.full or told.full[-1].session != told.sessions[-1] or told.full[-1].in_hand:
        newest = told.final(order)
        if newest is None or newest.session != told.sessions[-1]:
            return ""
    vm = told.vms.get(uuid)
    if vm is None or vm.busy:
        return "" if vm is not None else "Absent"
    if vm.state is QemuState.RUNNING:
        return "Running"
    return "Gone" if vm.state is QemuState.GONE and (vm.released or vm.epoch == 0) else ""


@pytest.mark.slow
async def test_agents_and_libvirtd_killed_during_migrations_never_run_a_vm_twice(
    laboratory: Laboratory, bench: BenchAggregator
) -> None:
    victims = [("agent", "h1"), ("agent", "h2"), ("libvirtd", "h1"), ("libvirtd", "h2")]
    for number, (victim, where) in enumerate(victims):
        vm, xml = a_guest(laboratory, f"mk{number}")
        secret = secrets.token_hex(16)
        await bench.done("h1", vm, StartVm(xml, 1))
        await bench.done("h2", vm, ReceiveVm("m1", 1, "h1", 1, secret), epoch=2)
        order = await bench.order("h1", vm, migrate(bench, "h2", secret))
        await asyncio.sleep(0.35)
        host = laboratory.host(where)
        pid = host.pid_of(victim)
        kill(pid)
        if victim == "agent":
            start_agent(laboratory, host)
        else:
            host.start_libvirtd()
        seen: list[list[str]] = []

        def decided(order: str = order, name: str = vm[1], seen: list[list[str]] = seen) -> bool:
            seen.append(may_run(laboratory, name))
            return bench.nodes["h1"].final(order) is not None

        await bench.wait(decided, 120.0)
        assert max(map(len, seen)) <= 1
        final = bench.nodes["h1"].final(order)
        assert final is not None
        if final.outcome is OrderOutcome.DONE:
            await bench.session("h2")
            await bench.wait(lambda name=vm[1]: may_run(laboratory, name) == ["h2"], 60.0)  # type: ignore[misc]
            await bench.done("h2", vm, DestroyVm(1), epoch=2)
        else:
            assert may_run(laboratory, vm[1]) == ["h1"]
            await bench.done("h1", vm, DestroyVm(1))
            await bench.done("h2", vm, DestroyVm(1), epoch=2)


async def test_libvirtd_dies_and_comes_back_without_touching_a_guest(
    laboratory: Laboratory, bench: BenchAggregator
) -> None:
    vm, xml = a_guest(laboratory, "stays")
    await bench.done("h1", vm, StartVm(xml, 1))
    host = laboratory.host("h1")
    pid = host.pid_of("libvirtd")
    kill(pid)
    await bench.wait(lambda: bench.nodes["h1"].vms[vm[0]].state is QemuState.UNKNOWN)
    assert not bench.nodes["h1"].vms[vm[0]].released
    refused = await bench.done("h1", vm, StartVm(xml, 2), epoch=2)
    assert refused.outcome is OrderOutcome.FAILED
    host.start_libvirtd()
    await bench.wait(lambda: bench.nodes["h1"].vms[vm[0]].state is QemuState.RUNNING)
    boots = [line for line in laboratory.guest_log("stays") if line.text.startswith("boot")]
    assert len(boots) == 1
    await bench.done("h1", vm, DestroyVm(1))


async def test_an_aggregator_that_falls_silent_is_left_and_met_again(
    laboratory: Laboratory, bench: BenchAggregator
) -> None:
    vm, xml = a_guest(laboratory, "calm")
    await bench.done("h1", vm, StartVm(xml, 1))
    before = len(bench.nodes["h1"].sessions)
    bench.answers_beats = False
    await bench.wait(lambda: len(bench.nodes["h1"].sessions) > before, 30.0)
    bench.answers_beats = True
    told = await bench.session("h1")
    numbers = [session.number for session in told.sessions]
    assert numbers == sorted(set(numbers))
    assert told.vms[vm[0]].state is QemuState.RUNNING
    await bench.done("h1", vm, DestroyVm(1))


async def test_a_definition_that_changes_without_an_event_is_reported(
    laboratory: Laboratory, bench: BenchAggregator
) -> None:
    vm, xml = a_guest(laboratory, "drift")
    await bench.done("h1", vm, StartVm(xml, 1))
    before = bench.nodes["h1"].definitions[vm[0]].hash
    laboratory.virsh("h1", "setmem", "drift", "8M", "--config")
    await bench.wait(lambda: bench.nodes["h1"].definitions[vm[0]].hash != before)
    await bench.done("h1", vm, DestroyVm(1))


async def test_a_probe_tells_a_living_host_from_a_frozen_daemon(laboratory: Laboratory, bench: BenchAggregator) -> None:
    h2 = laboratory.host("h2")
    addresses = []
    for plane in (Plane.CONTROL, Plane.MIGRATION):
        address = laboratory.layout.address("h2", LabPlane(plane.value))
        addresses += [ProbeAddress(plane, "agent", address, 8422), ProbeAddress(plane, "libvirt", address, 16509)]
    channel = bench.nodes["h1"].socket
    assert channel is not None
    await _send(channel, ProbeRequest("p1", "h2", tuple(addresses)))
    first = await bench.wait(lambda: bench.nodes["h1"].probes[0])
    assert [result.answered for result in first.results] == [True] * 4
    frozen = [h2.pid_of("agent"), h2.pid_of("libvirtd")]
    for pid in frozen:
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
    try:
        await _send(channel, ProbeRequest("p2", "h2", tuple(addresses)))
        second = await bench.wait(lambda: bench.nodes["h1"].probes[1])
    finally:
        for pid in frozen:
            assert pid is not None
            os.kill(pid, signal.SIGCONT)
    assert [result.answered for result in second.results] == [False] * 4


async def test_a_ledger_that_vanishes_on_the_same_boot_puts_the_node_into_quarantine(
    laboratory: Laboratory, bench: BenchAggregator
) -> None:
    host = laboratory.host("h3")
    vm, xml = a_guest(laboratory, "amnesia")
    stop_agent(host)
    (host.dir / "agent" / "ledger").unlink()
    sessions = len(bench.nodes["h3"].sessions)
    start_agent(laboratory, host)
    await bench.wait(lambda: len(bench.nodes["h3"].sessions) > sessions)
    told = await bench.session("h3")
    assert told.hello is not None
    assert told.hello.ledger is LedgerState.LOST
    assert (await bench.done("h3", vm, StartVm(xml, 1))).code == "LEDGER_LOST"
