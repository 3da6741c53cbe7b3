"""The second wall on a real libvirtd: nobody starts or moves a managed VM but virtward, and only those are stopped."""

from __future__ import annotations

import asyncio
import secrets

import pytest

from fleet.messages import DestroyVm, ReceiveVm, StartVm
from fleet.model import OrderOutcome, QemuState
from lab.errors import LaboratoryError
from lab.laboratory import Laboratory
from tests.agent_bench import BenchAggregator
from tests.laboratory.agent_steps import a_guest, may_run, migrate, stop_agent
from tests.laboratory.lab_steps import counts_on, define, peer_uri, wait_for
from tests.laboratory.lab_steps import start as start_by_hand

pytestmark = [pytest.mark.laboratory, pytest.mark.timeout(300)]

REFUSED = "virtward: {name} is managed and"
MOVE = ("migrate", "--live", "--p2p", "--tls", "--persistent", "--undefinesource")


async def by_hand(laboratory: Laboratory, host: str, *words: str) -> str:
    """Run virsh beside the bench's aggregator; return what it complained about, empty if it worked."""
    try:
        await asyncio.to_thread(laboratory.virsh, host, *words)
    except LaboratoryError as error:
        return str(error)
    return ""


def is_shut_off(laboratory: Laboratory, host: str, vm: str) -> bool:
    """Say whether libvirt has noticed, too, that the QEMU is gone."""
    return laboratory.virsh(host, "domstate", vm).strip() == "shut off"


async def test_a_managed_vm_is_started_by_order_and_never_by_hand(
    laboratory: Laboratory, bench: BenchAggregator
) -> None:
    vm, xml = a_guest(laboratory, "ours")
    assert (await bench.done("h1", vm, StartVm(xml, 1))).outcome is OrderOutcome.DONE
    assert f'uuid="{vm[0]}"' in bench.nodes["h1"].definitions[vm[0]].xml  # the mark goes where the definition goes
    await bench.done("h1", vm, DestroyVm(1))
    await asyncio.to_thread(wait_for, lambda: is_shut_off(laboratory, "h1", "ours"), "libvirt to see it shut off")
    assert REFUSED.format(name="ours") in await by_hand(laboratory, "h1", "start", "ours")
    assert may_run(laboratory, "ours") == []
    assert (await bench.done("h1", vm, StartVm(xml, 2))).outcome is OrderOutcome.DONE
    assert may_run(laboratory, "ours") == ["h1"]
    await bench.done("h1", vm, DestroyVm(2))


async def test_a_managed_vm_is_moved_by_order_and_never_by_hand(laboratory: Laboratory, bench: BenchAggregator) -> None:
    vm, xml = a_guest(laboratory, "goes")
    await bench.done("h1", vm, StartVm(xml, 1))
    target = peer_uri(laboratory, "h2")
    assert REFUSED.format(name="goes") in await by_hand(laboratory, "h1", *MOVE, "goes", target)
    assert may_run(laboratory, "goes") == ["h1"]
    secret = secrets.token_hex(16)
    await bench.done("h2", vm, ReceiveVm("m1", 1, "h1", 1, secret), epoch=2)
    assert (await bench.done("h1", vm, migrate(bench, "h2", secret))).outcome is OrderOutcome.DONE
    await bench.wait(lambda: bench.nodes["h2"].vms[vm[0]].state is QemuState.RUNNING)
    assert may_run(laboratory, "goes") == ["h2"]
    await bench.done("h2", vm, DestroyVm(1), epoch=2)


async def test_a_saved_managed_vm_is_not_restored_by_hand(laboratory: Laboratory, bench: BenchAggregator) -> None:
    vm, xml = a_guest(laboratory, "saved")
    await bench.done("h1", vm, StartVm(xml, 1))
    image = f"{laboratory.layout.host_private('h1')}/saved.image"
    assert await by_hand(laboratory, "h1", "save", "saved", image) == ""
    await bench.wait(lambda: bench.nodes["h1"].vms[vm[0]].released)
    assert REFUSED.format(name="saved") in await by_hand(laboratory, "h1", "restore", image)
    assert may_run(laboratory, "saved") == []


async def test_a_vm_that_is_not_ours_is_nobodys_business(laboratory: Laboratory, bench: BenchAggregator) -> None:
    await asyncio.to_thread(start_by_hand, laboratory, "h1", "theirs")
    assert await by_hand(laboratory, "h1", *MOVE, "theirs", peer_uri(laboratory, "h2")) == ""
    assert may_run(laboratory, "theirs") == ["h2"]
    await asyncio.to_thread(counts_on, laboratory, "theirs")


async def test_no_managed_vm_starts_with_its_host_before_the_agent_is_there(
    laboratory: Laboratory, bench: BenchAggregator
) -> None:
    """Autostart was set by hand, and its definition carries no mark any more: the list on the host's disk knows it."""
    vm, xml = a_guest(laboratory, "early")
    await bench.done("h3", vm, StartVm(xml, 1))
    await bench.done("h3", vm, DestroyVm(1))
    host = laboratory.host("h3")
    await asyncio.to_thread(define, laboratory, "h3", "early")
    assert await by_hand(laboratory, "h3", "autostart", "early") == ""
    stop_agent(host)
    laboratory.power("h3", "off")
    laboratory.power("h3", "on")
    stop_agent(host)
    log = laboratory.layout.host_dir("h3") / "log-libvirt" / "libvirtd.log"
    await bench.wait(lambda: REFUSED.format(name="early") in log.read_text(encoding="utf-8", errors="replace"))
    assert may_run(laboratory, "early") == []
