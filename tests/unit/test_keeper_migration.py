"""A migration as the source's agent sees it: what it does, and does not, however facts are ordered."""

from __future__ import annotations

import pytest
from msgspec import structs

from agent.keeper_types import (
    AbortJob,
    Migrate,
    MigrationMoved,
    PeerAnswered,
    TellPeer,
    VmReleased,
)
from fleet.messages import (
    CancelMigration,
    MigrationProgress,
    ReleasedReceipt,
)
from fleet.model import EndReason, QemuState
from tests.unit.keeper_harness import (
    UUID,
    a_vm,
    deeds,
    only_call,
    reports,
    sent_of,
    vm_reports,
)
from tests.unit.keeper_pair import MIGRATE, NOTICE, PEER, a_source, tells


def test_the_pid_of_the_finished_source_releases_it_and_tells_the_peer_before_the_call_returns() -> None:
    source = a_source()
    assert isinstance(only_call(source.order(MIGRATE)).deed, Migrate)
    source.changed(a_vm(QemuState.FINISHED))
    gone = source.gone()
    kinds = [type(getattr(e, "record", e)) for e in gone]
    assert kinds.index(VmReleased) < kinds.index(TellPeer)
    assert tells(gone)[0] == TellPeer(PEER, NOTICE)
    assert reports(gone)[-1].outcome == "Done"
    assert vm_reports(gone)[-1].end is EndReason.MIGRATED


def test_with_tls_the_target_must_show_the_certificate_of_the_node_that_the_order_names() -> None:
    deed = only_call(a_source(tls=True).order(MIGRATE)).deed
    assert isinstance(deed, Migrate)
    assert (deed.tls, deed.tls_name) == (True, MIGRATE.target)
    plain = only_call(a_source().order(MIGRATE)).deed
    assert isinstance(plain, Migrate)
    assert (plain.tls, plain.tls_name) == (False, "")


def test_with_tls_no_guest_leaves_for_a_target_that_names_an_open_port() -> None:
    """The target says itself how its libvirt is reached, and may lie."""
    source = a_source(tls=True)
    told = source.order(structs.replace(MIGRATE, peer_uri="qemu+tcp://10.0.1.2/system"))
    assert deeds(told) == []
    assert (reports(told)[-1].outcome, reports(told)[-1].code) == ("Failed", "NOT_ENCRYPTED")


def test_a_source_whose_end_is_not_clear_waits_for_libvirts_word() -> None:
    source = a_source()
    source.order(MIGRATE)
    gone = source.gone()
    assert tells(gone) == []
    told = source.changed(a_vm(QemuState.GONE, end=EndReason.MIGRATED, defined=False))
    assert tells(told)[0].notice == NOTICE


def test_a_guest_that_powers_off_during_its_migration_is_no_hand_over() -> None:
    source = a_source()
    source.order(MIGRATE)
    gone = source.gone(end=EndReason.POWEROFF)
    assert tells(gone) == []
    assert reports(gone)[-1].code == "ENDED"
    assert vm_reports(gone)[-1].released


@pytest.mark.parametrize("end", [EndReason.CRASHED, EndReason.NOT_ENDED])
def test_a_guest_that_ran_on_here_and_crashed_is_no_hand_over(end: EndReason) -> None:
    """Its disk may be newer than the copy's memory: whoever resumed the copy now would destroy it."""
    source = a_source()
    source.order(MIGRATE)
    source.changed(a_vm(QemuState.FINISHED))
    source.changed(a_vm(QemuState.RUNNING))  # "migration canceled": libvirt let it run on
    effects = source.gone(end=end)
    effects += source.tick(3.0)
    assert tells(effects) == []
    assert vm_reports(effects)[-1].end is EndReason.CRASHED
    assert vm_reports(effects)[-1].released


def test_the_peer_is_told_again_until_it_answers() -> None:
    source = a_source()
    source.order(MIGRATE)
    source.changed(a_vm(QemuState.FINISHED))
    source.gone()
    source.step(PeerAnswered(UUID, "m1", None, "no route"))
    assert len(tells(source.tick(0.6))) == 1
    source.step(PeerAnswered(UUID, "m1", ReleasedReceipt(UUID, True, QemuState.ARRIVED)))
    assert tells(source.tick(5.0)) == []


def test_telling_the_peer_ends_after_its_limit() -> None:
    source = a_source()
    source.order(MIGRATE)
    source.changed(a_vm(QemuState.FINISHED))
    source.gone()
    told = 0
    for _ in range(200):
        source.step(PeerAnswered(UUID, "m1", None))
        told += len(tells(source.tick(0.6)))
    assert 30 < told < 130
    assert tells(source.tick(10.0)) == []


def test_a_migration_that_fails_while_the_guest_goes_on_here_is_failed_with_its_state() -> None:
    source = a_source()
    call = only_call(source.order(MIGRATE))
    assert reports(source.returned(call, "OPERATION_FAILED", message="no route to host")) == []
    ended = reports(source.listed(a_vm(QemuState.RUNNING)))[-1]
    assert (ended.outcome, ended.code) == ("Failed", "OPERATION_FAILED")
    assert ended.vm is not None
    assert (ended.vm.state, ended.vm.released) == (QemuState.RUNNING, False)


def test_a_call_that_failed_beside_a_finished_source_is_not_decided_yet() -> None:
    """The hand-over trap: libvirt will either confirm or let the source go on, nobody else may guess."""
    source = a_source()
    call = only_call(source.order(MIGRATE))
    source.changed(a_vm(QemuState.FINISHED))
    source.returned(call, "OPERATION_FAILED")
    assert reports(source.listed(a_vm(QemuState.FINISHED))) == []
    assert reports(source.listed(a_vm(QemuState.RUNNING)))[-1].outcome == "Failed"


def test_a_call_that_failed_although_the_source_is_gone_is_a_hand_over() -> None:
    source = a_source()
    call = only_call(source.order(MIGRATE))
    source.changed(a_vm(QemuState.FINISHED))
    source.gone()
    assert reports(source.returned(call, "OPERATION_FAILED")) == []
    again = reports(source.order(MIGRATE, order_id="o2"))[-1]
    assert again.outcome == "Done"


def test_cancel_and_time_out_abort_the_job() -> None:
    source = a_source()
    call = only_call(source.order(MIGRATE))
    cancel = only_call(source.order(CancelMigration("m1")))
    assert cancel.deed == AbortJob()
    source.returned(cancel)
    source.returned(call, "OPERATION_ABORTED")
    source.listed(a_vm(QemuState.RUNNING))
    source.order(structs.replace(MIGRATE, migration="m2"))
    assert AbortJob() in deeds(source.tick(61.0))


def test_an_agent_killed_before_it_told_the_peer_tells_it_after_its_restart() -> None:
    source = a_source()
    source.order(MIGRATE)
    source.restart()
    told = source.connect(a_vm(QemuState.GONE, defined=False))
    assert tells(source.effects)[-1].notice == NOTICE
    assert vm_reports(told)[-1].released


def test_an_agent_killed_during_a_migration_waits_while_libvirt_goes_on_with_it() -> None:
    source = a_source()
    source.order(MIGRATE)
    source.restart()
    busy = source.connect(a_vm(QemuState.RUNNING, busy="migration"))
    assert reports(busy) == []
    ended = reports(source.listed(a_vm(QemuState.RUNNING)))[-1]
    assert (ended.outcome, ended.code) == ("Failed", "INTERRUPTED")


def test_progress_is_told_once_a_second() -> None:
    source = a_source()
    source.order(MIGRATE)
    told = [source.step(MigrationMoved(UUID, percent), 0.3) for percent in (10, 20, 30, 40, 50)]
    assert [len(sent_of(effects, MigrationProgress)) for effects in told] == [1, 0, 0, 0, 1]
