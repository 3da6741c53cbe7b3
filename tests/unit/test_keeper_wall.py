"""Which permits the keeper hands out, and that each is there before its deed and gone before its promise."""

from __future__ import annotations

from agent.keeper_types import Call, CallReturned, Create, Effect, Persist, Send, Undefine, VmReleased
from agent.wall import START_S_MAX, Forbid, LetGo, Permit, RaiseWall, WallEffect, Way
from fleet.messages import Delta, DestroyVm, DiscardIncoming, OrderReport, StartVm, UndefineVm
from fleet.model import OrderOutcome, QemuState
from tests.unit.keeper_harness import UUID, Node, a_vm, calls, deeds, only_call, reports


def wall(effects: list[Effect]) -> list[WallEffect]:
    return [e for e in effects if isinstance(e, WallEffect)]


def place(effects: list[Effect], kind: type[Effect]) -> int:
    return next(i for i, e in enumerate(effects) if isinstance(e, kind))


def test_a_start_is_permitted_right_before_its_call_and_forbidden_when_its_order_has_ended() -> None:
    node = Node()
    node.connect()
    ordered = node.order(StartVm("<domain/>", 1), epoch=4)
    assert wall(ordered) == [Forbid(UUID)]  # managed from here on, also after a reboot
    created = node.returned(only_call(ordered))
    (permit,) = wall(created)
    assert permit == Permit(UUID, Way.START, 4, node.now + START_S_MAX)
    assert place(created, Persist) < created.index(permit) < place(created, Call)
    node.changed(a_vm(QemuState.RUNNING))
    ended = node.returned(only_call(created))
    assert wall(ended) == [Forbid(UUID)]
    assert ended.index(Forbid(UUID)) < place(ended, Send)


def test_a_start_that_failed_is_forbidden_before_anybody_is_told() -> None:
    node = Node()
    node.connect()
    create = only_call(node.returned(only_call(node.order(StartVm("<domain/>", 1)))))
    node.returned(create, "LIBVIRT_HOOK_SCRIPT_FAILED")
    effects = node.listed(a_vm(QemuState.GONE))
    (persisted,) = (e for e in effects if isinstance(e, Persist) and isinstance(e.record, VmReleased))
    told = next(e for e in effects if isinstance(e, Send) and isinstance(e.message, OrderReport | Delta))
    assert effects.index(persisted) < effects.index(Forbid(UUID)) < effects.index(told)


def test_a_create_of_unknown_end_is_forbidden_before_the_barrier() -> None:
    node = Node()
    node.connect()
    create = only_call(node.returned(only_call(node.order(StartVm("<domain/>", 1)))))
    node.returned(create, "RESULT_UNKNOWN")
    effects = node.listed(a_vm(QemuState.GONE))
    assert deeds(effects) == [Undefine()]
    assert effects.index(Forbid(UUID)) < effects.index(calls(effects)[0])


def test_after_a_restart_of_the_agent_nothing_that_it_called_may_begin() -> None:
    node = Node()
    node.connect()
    effects = node.returned(only_call(node.order(StartVm("<domain/>", 1))))
    assert deeds(effects) == [Create()]
    node.restart()
    assert wall(node.connect(a_vm(QemuState.GONE)))[:1] == []
    assert [e for e in node.effects if isinstance(e, RaiseWall)][-1] == RaiseWall((UUID,))
    later = [e for e in node.effects[node.effects.index(RaiseWall((UUID,))) :] if isinstance(e, Permit)]
    assert later == []


def test_a_copy_is_permitted_before_the_source_can_hear_of_it() -> None:
    node = Node("h2")
    node.connect()
    effects = node.permit(epoch=2)
    (permit,) = wall(effects)
    assert isinstance(permit, Permit)
    assert (permit.way, permit.epoch) == (Way.INCOMING, 2)
    assert effects.index(permit) < place(effects, Send)
    discarded = node.order(DiscardIncoming("m1"), epoch=2) + node.listed()
    assert wall(discarded) == [Forbid(UUID)]


def test_the_permit_of_a_copy_survives_the_agent_and_not_the_boot() -> None:
    node = Node("h2")
    node.connect()
    node.permit(epoch=2)
    node.restart()
    node.connect()
    assert [type(e) for e in wall(node.effects)] == [RaiseWall, Permit, RaiseWall, Permit]
    node.boot_id = "boot-2"
    node.restart()
    node.connect()
    assert wall(node.effects)[-1] == RaiseWall((UUID,))


def test_a_vm_that_was_undefined_is_let_go_for_good() -> None:
    node = Node()
    node.connect()
    node.start()
    destroy = only_call(node.order(DestroyVm(1)))
    node.gone()
    node.returned(destroy)
    undefine = only_call(node.order(UndefineVm("deleted")))
    ended = node.returned(undefine)
    assert reports(ended)[-1].outcome is OrderOutcome.DONE
    assert wall(ended) == [LetGo(UUID)]
    node.restart()
    node.connect()
    assert wall(node.effects)[-1] == RaiseWall(())
    assert wall(node.order(StartVm("<domain/>", 2), epoch=2)) == [Forbid(UUID)]


def test_a_late_return_of_an_older_create_changes_no_permit() -> None:
    node = Node()
    node.connect()
    create = only_call(node.returned(only_call(node.order(StartVm("<domain/>", 1)))))
    node.changed(a_vm(QemuState.RUNNING))
    node.returned(create)
    assert wall(node.step(CallReturned(create.call_id, ok=False, code="LATE"))) == []
