"""A migration as the target's agent sees it: a copy runs once, and only when its source is told to be done."""

from __future__ import annotations

import pytest
from msgspec import structs

from agent.keeper_types import (
    AnswerPeer,
    DestroyIncoming,
    NoticeTaken,
    Persist,
    Resume,
    RunBegan,
    VmReleased,
)
from fleet.messages import (
    DestroyVm,
    DiscardIncoming,
    ResumeVm,
    UnpauseVm,
)
from fleet.model import EndReason, QemuState
from tests.unit.keeper_harness import (
    Node,
    a_vm,
    calls,
    deeds,
    only_call,
    persisted,
    reports,
    vm_reports,
)
from tests.unit.keeper_pair import MIGRATE, NOTICE, a_source, a_target, notice, receipt


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


def test_a_permit_of_an_earlier_boot_is_released() -> None:
    """Whatever came by it ended with that boot; else the VM would stay bound to this node for ever."""
    target = a_target()
    target.boot_id = "boot-2"
    before = len(target.effects)
    target.restart()
    target.connect()
    assert any(isinstance(r, VmReleased) and not r.ran for r in persisted(target.effects[before:]))


def test_a_permit_outlives_the_agent_within_its_boot() -> None:
    target = a_target()
    before = len(target.effects)
    target.restart()
    target.connect()
    assert not any(isinstance(r, VmReleased) for r in persisted(target.effects[before:]))


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
