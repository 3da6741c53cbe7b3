"""A migration as both agents see it: what each does, and what neither does however facts are ordered."""

from __future__ import annotations

import pytest
from msgspec import structs

from agent.keeper_types import (
    AbortJob,
    AnswerPeer,
    DestroyIncoming,
    Effect,
    Migrate,
    MigrationMoved,
    NoticeTaken,
    PeerAnswered,
    PeerNoticeReceived,
    Persist,
    Resume,
    RunBegan,
    TellPeer,
    VmReleased,
)
from fleet.messages import (
    CancelMigration,
    DestroyVm,
    DiscardIncoming,
    MigrateVm,
    MigrationProgress,
    ReleasedNotice,
    ReleasedReceipt,
    ResumeVm,
    UnpauseVm,
)
from fleet.model import EndReason, QemuState
from tests.unit.keeper_harness import (
    LEADER,
    SECRET,
    UUID,
    Node,
    a_vm,
    calls,
    deeds,
    only_call,
    persisted,
    reports,
    sent_of,
    vm_reports,
)

PEER = ("10.0.0.2:8422", "10.0.1.2:8422")
MIGRATE = MigrateVm("m1", 1, "h2", 2, "qemu+tls://10.0.1.2/system", "10.0.1.2", PEER, SECRET, timeout_s=60.0)
NOTICE = ReleasedNotice(UUID, "m1", "h1", 1, 2, SECRET, LEADER)


def a_source() -> Node:
    node = Node("h1")
    node.connect()
    node.start()
    return node


def a_target() -> Node:
    node = Node("h2")
    node.connect()
    node.permit()
    return node


def notice(node: Node, what: ReleasedNotice = NOTICE) -> list[Effect]:
    return node.step(PeerNoticeReceived(1, what))


def tells(effects: list[Effect]) -> list[TellPeer]:
    return [e for e in effects if isinstance(e, TellPeer)]


def receipt(effects: list[Effect]) -> ReleasedReceipt:
    (answer,) = [e for e in effects if isinstance(e, AnswerPeer)]
    return answer.receipt


# --- source


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


# --- target


def test_a_permit_is_on_disk_before_it_is_told() -> None:
    target = Node("h2")
    target.connect()
    permitted = target.permit()
    assert isinstance(next(e for e in permitted if isinstance(e, Persist)), Persist)
    assert [r.outcome for r in reports(permitted)] == ["Accepted", "Done"]
    assert calls(permitted) == []


def test_an_arrived_copy_is_resumed_by_the_sources_notice() -> None:
    target = a_target()
    assert vm_reports(target.changed(a_vm(QemuState.INCOMING)))[-1].state is QemuState.INCOMING
    assert vm_reports(target.changed(a_vm(QemuState.PAUSED)))[-1].state is QemuState.ARRIVED
    told = notice(target)
    assert receipt(told).accepted
    kinds = [type(getattr(e, "record", getattr(e, "deed", e))) for e in told]
    assert kinds.index(NoticeTaken) < kinds.index(RunBegan) < kinds.index(Resume)
    assert kinds.index(NoticeTaken) < kinds.index(AnswerPeer)
    running = target.returned(only_call(told))
    assert any(isinstance(r, RunBegan) and r.confirmed for r in persisted(running))
    assert vm_reports(target.changed(a_vm(QemuState.RUNNING)))[-1].epoch == 2


def test_a_notice_before_the_copy_is_complete_waits_for_it() -> None:
    target = a_target()
    target.changed(a_vm(QemuState.INCOMING))
    told = notice(target)
    assert receipt(told).accepted
    assert calls(told) == []
    assert deeds(target.changed(a_vm(QemuState.PAUSED))) == [Resume()]


def test_a_notice_outlives_the_agent() -> None:
    target = a_target()
    target.changed(a_vm(QemuState.INCOMING))
    notice(target)
    target.restart()
    target.connect(a_vm(QemuState.PAUSED))
    assert Resume() in deeds(target.effects[-40:])


def test_an_agent_killed_between_record_and_resume_resumes_after_its_restart() -> None:
    target = a_target()
    target.changed(a_vm(QemuState.PAUSED))
    notice(target)
    assert isinstance(target.records[-1], RunBegan)
    before = len(target.effects)
    target.restart()
    target.connect(a_vm(QemuState.PAUSED))
    assert Resume() in deeds(target.effects[before:])


def test_a_resume_that_fails_is_tried_three_times() -> None:
    target = a_target()
    target.changed(a_vm(QemuState.PAUSED))
    effects = notice(target)
    tries = 0
    while calls(effects) and tries < 9:
        tries += 1
        target.returned(only_call(effects), "FAILED")
        effects = target.tick(1.1)
    assert tries == 3
    effects = target.order(ResumeVm("m1", 1), 2)
    target.returned(only_call(effects))
    assert target.changed(a_vm(QemuState.RUNNING))
    assert reports(target.effects)[-1].outcome == "Done"


@pytest.mark.parametrize(
    "wrong",
    [
        {"handover_secret": "another secret of a hand-o"},
        {"handover_secret": ""},
        {"migration": "m0"},
        {"source": "h3"},
        {"source_epoch": 0},
        {"target_epoch": 3},
        {"uuid": "other"},
    ],
)
def test_a_notice_that_is_not_the_permits_is_refused(wrong: dict[str, object]) -> None:
    target = a_target()
    target.changed(a_vm(QemuState.PAUSED))
    told = notice(target, structs.replace(NOTICE, **wrong))
    assert not receipt(told).accepted
    assert calls(told) == []


def test_an_arrived_copy_is_never_run_by_unpause() -> None:
    target = a_target()
    target.changed(a_vm(QemuState.PAUSED))
    assert reports(target.order(UnpauseVm(1), epoch=2))[-1].code == "AWAITS_HANDOVER"


def test_an_arrived_copy_is_resumed_by_order_once() -> None:
    target = a_target()
    target.changed(a_vm(QemuState.PAUSED))
    call = only_call(target.order(ResumeVm("m1", 1), epoch=2))
    assert call.deed == Resume()
    assert calls(notice(target)) == []
    assert reports(target.returned(call))[-1].outcome == "Done"


def test_a_resume_order_waits_for_the_copy_and_then_gives_up() -> None:
    target = a_target()
    target.changed(a_vm(QemuState.INCOMING))
    assert calls(target.order(ResumeVm("m1", 1), epoch=2)) == []
    assert reports(target.tick(31.0))[-1].code == "NOT_ARRIVED"
    assert calls(target.changed(a_vm(QemuState.PAUSED))) == []


def test_a_copy_that_never_ran_is_discarded_and_released() -> None:
    target = a_target()
    target.changed(a_vm(QemuState.PAUSED))
    assert deeds(target.order(DiscardIncoming("m1"), epoch=2)) == [DestroyIncoming()]
    gone = target.gone(end=EndReason.DESTROYED)
    assert reports(gone)[-1].outcome == "Done"
    released = vm_reports(gone)[-1]
    assert (released.released, released.epoch) == (True, 2)
    assert not receipt(notice(target)).accepted


def test_a_copy_that_may_have_run_is_not_discarded() -> None:
    target = a_target()
    target.changed(a_vm(QemuState.PAUSED))
    notice(target)
    assert reports(target.order(DiscardIncoming("m1"), epoch=2))[-1].code == "HAS_RUN"


def test_a_copy_somebody_else_resumed_is_not_discarded() -> None:
    target = a_target()
    target.changed(a_vm(QemuState.RUNNING))
    assert reports(target.order(DiscardIncoming("m1"), epoch=2))[-1].code == "HAS_RUN"


def test_a_copy_that_dies_while_it_is_incoming_is_released() -> None:
    target = a_target()
    target.changed(a_vm(QemuState.INCOMING))
    gone = target.gone()
    assert vm_reports(gone)[-1].released
    assert not receipt(notice(target)).accepted


def test_a_permit_that_nothing_used_is_closed_by_discard() -> None:
    target = a_target()
    target.order(DiscardIncoming("m1"), epoch=2)
    ended = reports(target.listed())[-1]
    assert ended.vm is not None
    assert (ended.outcome, ended.vm.released) == ("Done", True)


def test_a_second_notice_does_not_resume_twice() -> None:
    target = a_target()
    target.changed(a_vm(QemuState.PAUSED))
    call = only_call(notice(target))
    assert calls(notice(target)) == []
    target.returned(call)
    again = notice(target)
    assert calls(again) == []
    assert receipt(again).accepted


def test_a_node_that_holds_the_vm_takes_no_copy_of_it() -> None:
    source = a_source()
    assert reports(source.permit(epoch=2))[-1].code == "NOT_RELEASED"


def test_there_and_back_again() -> None:
    """The same two nodes hand the VM over and over; every hand-over raises the epoch."""
    one = a_source()
    one.order(MIGRATE)
    one.changed(a_vm(QemuState.FINISHED))
    one.gone()
    one.permit(epoch=3)
    one.changed(a_vm(QemuState.PAUSED, "q2"))
    back = structs.replace(NOTICE, source_epoch=2, target_epoch=3)
    assert deeds(notice(one, back)) == [Resume()]
    one.changed(a_vm(QemuState.RUNNING, "q2"))
    assert deeds(one.order(DestroyVm(1), epoch=3))[0] is not None
    assert vm_reports(one.gone("q2"))[-1].epoch == 3
