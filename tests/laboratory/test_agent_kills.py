"""The real agent on real hosts, with the agent or libvirtd killed in the middle of its orders."""

from __future__ import annotations

import asyncio
import secrets
from functools import partial

import pytest

from fleet.messages import DestroyVm, ReceiveVm, StartVm
from fleet.model import EndReason, OrderOutcome, QemuState
from lab.laboratory import Laboratory
from tests.agent_bench import BenchAggregator
from tests.laboratory.agent_steps import a_guest, kill, may_run, migrate, start_agent

pytestmark = [pytest.mark.laboratory, pytest.mark.slow, pytest.mark.timeout(300)]


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
        sessions = len(bench.nodes["h1"].sessions)
        pid = host.pid_of(victim)
        kill(pid)
        if victim == "agent":
            start_agent(laboratory, host)
            # What the dead agent said last must not be taken for the new one's word.
            await bench.wait(partial(_sessions_above, bench, sessions), 60.0)
        else:
            host.start_libvirtd()
        report = await bench.wait(partial(_known_end, bench, order, vm[0]), 60.0)
        running = may_run(laboratory, vm[1])
        assert running == (["h1"] if report == "Running" else [])
        await bench.done("h1", vm, DestroyVm(run), epoch=run)


def _sessions_above(bench: BenchAggregator, number: int) -> bool:
    """Whether the node's agent has opened one more session than that."""
    return len(bench.nodes["h1"].sessions) > number


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


def moved_away(bench: BenchAggregator, uuid: str) -> bool:
    """Return whether h1 has released the VM as moved: its agent may end the order before anybody can be told."""
    report = bench.nodes["h1"].vms.get(uuid)
    return report is not None and report.released and report.end is EndReason.MIGRATED


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

        def decided(order: str = order, vm: tuple[str, str] = vm, seen: list[list[str]] = seen) -> bool:
            seen.append(may_run(laboratory, vm[1]))
            return bench.nodes["h1"].final(order) is not None or moved_away(bench, vm[0])

        await bench.wait(decided, 120.0)
        assert max(map(len, seen)) <= 1
        final = bench.nodes["h1"].final(order)
        if final is None or final.outcome is OrderOutcome.DONE:
            await bench.session("h2")
            await bench.wait(lambda name=vm[1]: may_run(laboratory, name) == ["h2"], 60.0)  # type: ignore[misc]
            await bench.done("h2", vm, DestroyVm(1), epoch=2)
        else:
            assert may_run(laboratory, vm[1]) == ["h1"]
            await bench.done("h1", vm, DestroyVm(1))
            await bench.done("h2", vm, DestroyVm(1), epoch=2)
