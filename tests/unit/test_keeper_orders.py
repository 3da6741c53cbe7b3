"""What an agent does with orders: stories of starts and endings, and a table of refusals."""

from __future__ import annotations

import pytest

from agent.keeper_types import (
    CODE_UNKNOWN,
    AskShutdown,
    Call,
    Create,
    Define,
    Destroy,
    Note,
    OrderBegun,
    Persist,
    RunBegan,
    Undefine,
    VmReleased,
)
from agent.memory import recall
from fleet.messages import (
    Delta,
    DestroyVm,
    MigrateVm,
    PauseVm,
    ShutdownVm,
    StartVm,
    UndefineVm,
    UnpauseVm,
)
from fleet.model import Definition, EndReason, Leadership, LedgerState, OrderOutcome, QemuState, SessionKey
from tests.unit.keeper_harness import (
    LEADER,
    UUID,
    Node,
    a_vm,
    calls,
    deeds,
    looks,
    only_call,
    persisted,
    reports,
    sent_of,
    vm_reports,
)

DEFINITION = Definition(UUID, "web-1", "<domain>complete</domain>", "hash")


def test_a_start_persists_before_each_deed_and_reports_the_definition_before_the_create() -> None:
    node = Node()
    node.connect()
    begun = node.order(StartVm("<domain/>", 1))
    kinds = [type(e) for e in begun if not isinstance(e, Note)]
    assert kinds.index(Persist) < kinds.index(Call)
    assert isinstance(persisted(begun)[0], OrderBegun)
    assert deeds(begun) == [Define("<domain/>")]
    defined = node.returned(only_call(begun), definition=DEFINITION)
    order = [e for e in defined if isinstance(e, Persist | Call) or e in defined]
    names = [type(getattr(e, "record", None) or getattr(e, "message", None) or e).__name__ for e in order]
    assert names.index("Delta") < names.index("RunBegan") < names.index("Call")
    assert sent_of(defined, Delta)[0].definitions == (DEFINITION,)
    assert deeds(defined) == [Create(force_boot=True)]


def test_a_start_is_done_when_the_vm_is_seen_running() -> None:
    node = Node()
    node.connect()
    define = only_call(node.order(StartVm("<domain/>", 1)))
    create = only_call(node.returned(define))
    returned = node.returned(create)
    assert looks(returned)
    assert reports(returned) == []
    done = reports(node.listed(a_vm(QemuState.RUNNING)))[-1]
    assert (done.outcome, done.vm and done.vm.state, done.vm and done.vm.epoch) == ("Done", "Running", 1)


def test_a_repeated_order_is_answered_from_the_ledger_and_not_done_again() -> None:
    node = Node()
    node.connect()
    node.start()
    again = node.order(StartVm("<domain/>", 1), order_id="o1")
    assert calls(again) == []
    assert [r.outcome for r in reports(again)] == [OrderOutcome.DONE]
    node.restart()
    node.connect(a_vm(QemuState.RUNNING))
    again = node.order(StartVm("<domain/>", 1), order_id="o1")
    assert calls(again) == []
    assert [r.outcome for r in reports(again)] == [OrderOutcome.DONE]


def test_a_create_that_fails_is_released_once_a_look_shows_that_nothing_runs() -> None:
    node = Node()
    node.connect()
    create = only_call(node.returned(only_call(node.order(StartVm("<domain/>", 1)))))
    failed = node.returned(create, "IMAGE_LOCKED", message="locked")
    assert reports(failed) == []
    ended = reports(node.listed(a_vm(QemuState.GONE)))[-1]
    assert (ended.outcome, ended.code) == ("Failed", "IMAGE_LOCKED")
    assert ended.vm is not None
    assert ended.vm.released
    retry = node.order(StartVm("<domain/>", 1))
    assert deeds(retry) == [Define("<domain/>")]


def test_a_create_whose_end_is_unknown_is_released_only_behind_the_barrier() -> None:
    node = Node()
    node.connect()
    create = only_call(node.returned(only_call(node.order(StartVm("<domain/>", 1)))))
    node.returned(create, CODE_UNKNOWN)
    barrier = node.listed(a_vm(QemuState.GONE))
    assert deeds(barrier) == [Undefine()]
    assert reports(barrier) == []
    node.returned(only_call(barrier))
    ended = reports(node.listed())[-1]
    assert (ended.outcome, ended.code) == ("Failed", CODE_UNKNOWN)
    assert ended.vm is not None
    assert ended.vm.released


def test_a_create_whose_end_is_unknown_and_that_succeeded_is_done() -> None:
    node = Node()
    node.connect()
    create = only_call(node.returned(only_call(node.order(StartVm("<domain/>", 1)))))
    node.returned(create, CODE_UNKNOWN)
    assert reports(node.listed(a_vm(QemuState.RUNNING)))[-1].outcome == "Done"


@pytest.mark.parametrize("died_after", ["define called", "create called"])
def test_an_agent_killed_during_a_start_reports_it_in_hand_and_finds_out(died_after: str) -> None:
    node = Node()
    node.connect()
    define = only_call(node.order(StartVm("<domain/>", 1)))
    if died_after == "create called":
        node.returned(define)
    node.restart()
    connected = node.connect()
    if died_after == "define called":
        assert reports(connected)[-1].code == "INTERRUPTED"
        return
    barrier = [c for c in calls(node.effects) if isinstance(c.deed, Undefine)][-1]
    node.returned(barrier)
    ended = reports(node.listed())[-1]
    assert (ended.outcome, ended.code) == ("Failed", "INTERRUPTED")
    assert ended.vm is not None
    assert ended.vm.released


def test_a_shutdown_ends_by_itself_or_by_destroy_when_the_grace_is_over() -> None:
    node = Node()
    node.connect()
    node.start()
    asked = node.order(ShutdownVm(1, grace_s=20.0))
    assert deeds(asked) == [AskShutdown()]
    node.returned(only_call(asked))
    asked_again = node.tick(19.0)
    assert deeds(asked_again) == [AskShutdown()]
    node.returned(only_call(asked_again))
    assert deeds(node.tick(1.1)) == [Destroy()]
    gone = node.gone(end=EndReason.DESTROYED)
    assert any(isinstance(r, VmReleased) and r.end is EndReason.ORDERED for r in persisted(gone))
    assert reports(gone)[-1].outcome == "Done"
    assert vm_reports(gone)[-1].released


def test_a_destroy_that_did_not_end_the_qemu_is_tried_again_then_failed() -> None:
    node = Node()
    node.connect()
    node.start()
    effects = node.order(DestroyVm(1))
    for _ in range(2):
        node.returned(only_call(effects), "FAILED")
        node.listed(a_vm(QemuState.RUNNING))
        effects = node.tick(5.1)
        assert deeds(effects) == [Destroy()]
    node.returned(only_call(effects), "FAILED")
    ended = reports(node.tick(5.1))[-1]
    assert (ended.outcome, ended.code) == ("Failed", "STILL_THERE")
    assert ended.vm is not None
    assert not ended.vm.released


def test_a_destroy_of_a_vm_that_is_not_here_is_released_after_a_fresh_look() -> None:
    node = Node()
    node.connect()
    ordered = node.order(DestroyVm(4), epoch=7)
    assert looks(ordered)
    assert calls(ordered) == []
    ended = reports(node.listed())[-1]
    assert ended.vm is not None
    assert (ended.outcome, ended.vm.released, ended.vm.epoch, ended.vm.run) == ("Done", True, 7, 4)
    late = reports(node.order(StartVm("<domain/>", 4), epoch=6))[-1]
    assert (late.outcome, late.code) == ("Refused", "OLD_EPOCH")


def test_a_destroy_during_a_start_waits_for_its_end_and_wins() -> None:
    node = Node()
    node.connect()
    define = only_call(node.order(StartVm("<domain/>", 1)))
    create = only_call(node.returned(define))
    destroy = node.order(DestroyVm(1))
    assert deeds(destroy) == [Destroy()]
    node.returned(only_call(destroy), "NOT_RUNNING")
    node.returned(create)
    node.listed(a_vm(QemuState.RUNNING))
    again = node.tick(5.1)
    assert deeds(again) == [Destroy()]
    gone = node.gone()
    assert reports(gone)[-1].outcome == "Done"
    assert vm_reports(gone)[-1].released


def test_a_destroy_before_the_create_leaves_the_vm_uncreated() -> None:
    node = Node()
    node.connect()
    define = only_call(node.order(StartVm("<domain/>", 1)))
    node.order(DestroyVm(1))
    defined = node.returned(define)
    assert not any(isinstance(d, Create) for d in deeds(defined))
    assert reports(defined)[0].code == "OVERRULED"


def test_a_qemu_that_dies_by_itself_is_released_with_libvirts_reason() -> None:
    node = Node()
    node.connect()
    node.start()
    assert persisted(node.gone()) == []
    told = node.changed(a_vm(QemuState.GONE, end=EndReason.POWEROFF))
    assert vm_reports(told)[-1].released
    assert vm_reports(told)[-1].end is EndReason.POWEROFF


def test_a_qemu_whose_end_nobody_explains_counts_as_crashed_after_a_second() -> None:
    node = Node()
    node.connect()
    node.start()
    node.gone()
    told = node.tick(1.1)
    assert vm_reports(told)[-1].released
    assert vm_reports(told)[-1].end is EndReason.CRASHED


def test_the_end_of_the_last_qemu_is_not_that_of_one_that_cannot_be_told_yet() -> None:
    """libvirt shows it running before its process is found; the old pid's end comes late. Nothing is released."""
    node = Node()
    node.connect()
    node.start()
    node.changed(a_vm(QemuState.RUNNING, ""))
    effects = node.gone("q0")
    assert not [r for r in node.records if isinstance(r, VmReleased)]
    assert not [vm for vm in vm_reports(effects) if vm.state is QemuState.GONE]


def test_an_old_look_does_not_bring_a_dead_qemu_back() -> None:
    node = Node()
    node.connect()
    node.start()
    node.gone(end=EndReason.CRASHED)
    told = node.listed(a_vm(QemuState.RUNNING, "q1"))
    assert all(report.state is QemuState.GONE for report in vm_reports(told))


def test_a_run_that_was_here_before_the_host_rebooted_is_released_by_the_first_complete_list() -> None:
    node = Node()
    node.connect()
    node.start()
    node.boot_id = "boot-2"
    node.restart()
    assert not any(report.released for report in vm_reports(node.connect(a_vm(QemuState.UNKNOWN))))
    told = node.listed(a_vm(QemuState.GONE))
    assert vm_reports(told)[-1].released


OTHER_SESSION = SessionKey("boot-0", "h1-0", 1)


@pytest.mark.parametrize(
    ("body", "epoch", "other", "code"),
    [
        (StartVm("<domain/>", 9), 5, {"session": OTHER_SESSION}, "OLD_SESSION"),
        (StartVm("<domain/>", 9), 5, {"leader": Leadership(2, "a1", 99)}, "OLD_TERM"),
        (StartVm("<domain/>", 9), 5, {"leader": Leadership(3, "a2", 99)}, "OTHER_LEADER"),
        (StartVm("<domain/>", 9), 4, {}, "OLD_EPOCH"),
        (StartVm("<domain/>", 2), 5, {}, "OLD_RUN"),
        (StartVm("<domain/>", 4), 5, {}, "ALREADY_RUNNING"),
        (DestroyVm(2), 5, {}, "OLD_RUN"),
        (ShutdownVm(2, 1.0), 5, {}, "OLD_RUN"),
        (PauseVm(2), 5, {}, "OLD_RUN"),
        (UndefineVm("not wanted"), 5, {}, "RUNNING"),
        (MigrateVm("m1", 9, "h2", 6, "uri", "address", (), "s"), 5, {}, "UNKNOWN_RUN"),
    ],
)
def test_an_order_that_is_older_than_what_the_node_knows_is_not_begun(
    body: StartVm, epoch: int, other: dict[str, object], code: str
) -> None:
    node = Node()
    node.connect()
    node.start(epoch=5, run=3)
    before = len(node.records)
    refused = node.order(body, epoch, **other)
    assert [r.code for r in reports(refused)] == [code]
    assert calls(refused) == []
    assert len(node.records) == before


def test_a_run_that_has_ended_is_not_started_again() -> None:
    node = Node()
    node.connect()
    node.start()
    node.gone(end=EndReason.CRASHED)
    refused = reports(node.order(StartVm("<domain/>", 1)))[-1]
    assert (refused.outcome, refused.code) == ("Refused", "RUN_IS_OVER")
    assert deeds(node.order(StartVm("<domain/>", 2))) == [Define("<domain/>")]


def test_a_start_is_not_begun_while_libvirt_is_silent() -> None:
    node = Node()
    node.connect()
    node.listed(complete=False)
    refused = reports(node.order(StartVm("<domain/>", 1)))[-1]
    assert (refused.outcome, refused.code) == ("Failed", "CANNOT_TELL")


def test_one_order_at_a_time_for_a_vm() -> None:
    node = Node()
    node.connect()
    node.start()
    node.order(PauseVm(1))
    assert reports(node.order(UnpauseVm(1)))[-1].code == "BUSY"


def test_a_node_that_lost_its_ledger_reports_and_refuses() -> None:
    node = Node()
    node.ledger = LedgerState.LOST
    node.restart()
    full = node.connect(a_vm(QemuState.RUNNING))
    assert vm_reports(full)[-1].state is QemuState.RUNNING
    assert reports(node.order(DestroyVm(1)))[-1].code == "LEDGER_LOST"


def test_run_began_is_on_disk_before_the_create_is_called() -> None:
    node = Node()
    node.connect()
    effects = node.returned(only_call(node.order(StartVm("<domain/>", 1))))
    kinds = [type(getattr(e, "record", e)) for e in effects]
    assert kinds.index(RunBegan) < kinds.index(Call)


def test_another_order_of_a_known_id_is_refused_and_not_answered_for_the_first() -> None:
    """A store that was rolled back gives its ids out anew."""
    node = Node()
    node.connect()
    node.start()
    other = node.order(ShutdownVm(1, 20.0), order_id="o1")
    assert calls(other) == []
    assert [(r.outcome, r.code) for r in reports(other)] == [(OrderOutcome.REFUSED, "REUSED_ID")]


def test_who_obeys_an_order_has_met_its_leader_as_far_as_that_was() -> None:
    """Else a store that has lost the order would not know itself to be behind."""
    node = Node()
    node.connect()
    node.start()
    further = Leadership(LEADER.term, LEADER.instance, 77)
    node.order(ShutdownVm(1, 20.0), leader=further)
    assert recall(node.records).highest == further
