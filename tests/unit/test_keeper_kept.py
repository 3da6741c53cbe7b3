"""What an agent keeps for an aggregator that may lose its store, and when it tells."""

from __future__ import annotations

from msgspec import structs

from agent.keeper_types import LinkOpened, Tick
from agent.kept import PORTION_BYTES_MAX, tell_kept
from agent.memory import recall, to_records
from agent.records import PromiseKept, Standing
from fleet.messages import (
    KEPT_BYTES_MAX,
    BeatAnswer,
    FullState,
    MigrateVm,
    ReceiveVm,
    SetIsolation,
    StartVm,
    VmsKept,
    Welcome,
)
from fleet.model import EndReason, Isolation, QemuState, SessionKey
from tests.unit.keeper_harness import LEADER, SECRET, UUID, Node, a_vm, only_call, sent_of


def running(kept: bytes = b"as written") -> Node:
    """Return a node that runs the VM and was given this to keep."""
    node = Node()
    node.connect()
    define = only_call(node.order(StartVm("<domain/>", 1, kept=kept)))
    create = only_call(node.returned(define))
    node.changed(a_vm(QemuState.RUNNING))
    node.returned(create)
    return node


def asked(node: Node) -> list[VmsKept]:
    """Return what the node tells an aggregator that has lost its store."""
    node.link += 1
    node.step(LinkOpened(node.link))
    node.hear(Welcome(1, LEADER, node.session, 1.0, (), rebuild=True))
    effects = node.listed(a_vm(QemuState.RUNNING))
    (full,) = sent_of(effects, FullState)
    assert full.complete
    return sent_of(effects, VmsKept)


def test_what_was_given_with_a_start_is_told_to_whom_asks_and_to_nobody_else() -> None:
    node = running()
    node.restart()
    assert sent_of(node.connect(a_vm(QemuState.RUNNING)), VmsKept) == []
    (told,) = asked(node)
    assert [(vm.uuid, vm.epoch, vm.run, vm.kept) for vm in told.vms] == [(UUID, 1, 1, b"as written")]
    assert not told.more


def test_a_newer_form_takes_its_place_and_survives_a_restart_and_a_compaction() -> None:
    node = running()
    node.order(SetIsolation(1, Isolation(), b"newer"))
    node.order(SetIsolation(1, Isolation(after_s=9.0)))
    node.records = to_records(recall(node.records))
    node.restart()
    (told,) = asked(node)
    assert [vm.kept for vm in told.vms] == [b"newer"]


def test_who_belongs_to_the_fleet_is_kept_and_told_as_it_was_told_last() -> None:
    node = running()
    node.link += 1
    node.step(LinkOpened(node.link))
    node.hear(Welcome(1, LEADER, node.session, 1.0, (), members=("h1", "h2")))
    node.listed(a_vm(QemuState.RUNNING))
    node.step(Tick(), 1.1)
    node.hear(BeatAnswer(1, LEADER, members=("h1", "h2", "h3")))
    node.step(Tick(), 1.1)
    node.hear(BeatAnswer(2, LEADER))
    node.records = to_records(recall(node.records))
    node.restart()
    (told,) = asked(node)
    assert told.members == ("h1", "h2", "h3")


def test_a_vm_that_was_moved_away_is_kept_by_its_new_owner_alone() -> None:
    node = running()
    move = MigrateVm("m1", 1, "h2", 2, "qemu://h2", "10.2.0.2", ("10.1.0.2:8422",), SECRET)
    node.order(move)
    node.gone(end=EndReason.MIGRATED)
    (promise,) = recall(node.records).promises.values()
    assert (promise.standing, promise.kept) == (Standing.RELEASED, b"")
    target = Node("h2")
    target.connect()
    target.order(ReceiveVm("m1", 1, "h1", 1, SECRET, kept=b"as written"), epoch=2)
    assert recall(target.records).promises[UUID].kept == b"as written"


def test_a_run_that_ended_here_is_kept_for_its_vm_is_nowhere_else() -> None:
    node = running()
    node.gone(end=EndReason.CRASHED)
    (promise,) = recall(node.records).promises.values()
    assert (promise.standing, promise.kept) == (Standing.RELEASED, b"as written")


def test_what_is_too_large_is_not_kept_and_what_is_much_goes_in_portions() -> None:
    node = running(b"x" * (KEPT_BYTES_MAX + 1))
    assert recall(node.records).promises[UUID].kept == b""
    (promise,) = recall(running(b"y" * KEPT_BYTES_MAX).records).promises.values()
    count = 2 * PORTION_BYTES_MAX // KEPT_BYTES_MAX
    memory = recall(PromiseKept(structs.replace(promise, uuid=f"u{n}")) for n in range(count))
    told = tell_kept(memory, SessionKey("b", "s", 1))
    assert [portion.more for portion in told] == [True, True, False][-len(told) :]
    assert sum(len(portion.vms) for portion in told) == count
    assert all(sum(len(vm.kept) for vm in portion.vms) <= PORTION_BYTES_MAX for portion in told)
