"""A VM that fails while no aggregator answers: begun again once by its agent under a fresh lease, else left alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from agent.deeds import CODE_NOT_FOUND
from agent.keeper_types import (
    Call,
    Create,
    Effect,
    LinkClosed,
    LinkOpened,
    OrderBegun,
    Persist,
    RunBegan,
    Tick,
    VmReleased,
)
from fleet.messages import DestroyVm, SetIsolation, StartVm
from fleet.model import EndReason, Isolation, QemuState
from tests.unit.keeper_harness import Node, a_vm, calls, deeds, only_call, persisted, vm_reports

RESTARTS = Isolation(after_s=6.0, restart=True)
LEFT = Isolation(after_s=6.0, restart=False)


def running(isolation: Isolation = RESTARTS) -> Node:
    """A node with one VM running, whose every beat was answered until now."""
    node = Node()
    node.connect()
    create = only_call(node.returned(only_call(node.order(StartVm("<domain/>", 1, isolation=isolation)))))
    node.changed(a_vm(QemuState.RUNNING))
    node.returned(create)
    node.tick(3.0)
    return node


def forsaken(node: Node, for_s: float = 1.0) -> Node:
    """Let the aggregator die, and some time pass."""
    node.step(LinkClosed(node.link))
    node.step(Tick(), for_s)
    return node


def crashed(node: Node, end: EndReason = EndReason.CRASHED) -> list[Effect]:
    return node.gone(end=end)


def test_a_run_that_failed_is_begun_again_record_first_and_never_released() -> None:
    node = forsaken(running())
    effects = crashed(node)
    assert deeds(effects) == [Create()]  # from what is defined here: a snapshot may have changed it meanwhile
    records = persisted(effects)
    assert [type(record) for record in records] == [OrderBegun, RunBegan]
    (begun,) = [record for record in records if isinstance(record, RunBegan)]
    assert (begun.epoch, begun.run) == (1, 2)
    last = max(i for i, effect in enumerate(effects) if isinstance(effect, Persist))
    assert last < effects.index(next(effect for effect in effects if isinstance(effect, Call)))


def test_the_aggregator_is_told_of_the_new_run_when_it_is_back() -> None:
    node = forsaken(running())
    create = only_call(crashed(node))
    node.changed(a_vm(QemuState.RUNNING, qemu="q2"))
    node.returned(create)
    told = vm_reports(node.connect(a_vm(QemuState.RUNNING, qemu="q2")))
    assert (told[-1].state, told[-1].epoch, told[-1].run, told[-1].released) == (QemuState.RUNNING, 1, 2, False)


def test_a_start_that_fails_is_released_as_any_other() -> None:
    node = forsaken(running())
    create = only_call(crashed(node))
    effects = node.returned(create, CODE_NOT_FOUND)
    effects += node.listed(a_vm(QemuState.GONE))
    (released,) = [record for record in persisted(effects) if isinstance(record, VmReleased)]
    assert (released.epoch, released.run, released.ran) == (1, 2, False)
    assert calls(node.tick(3.0)) == []


def test_it_is_begun_again_once_in_a_session() -> None:
    node = forsaken(running())
    create = only_call(crashed(node))
    node.changed(a_vm(QemuState.RUNNING, qemu="q2"))
    node.returned(create)
    effects = node.gone("q2", EndReason.CRASHED)
    assert calls(effects) == []
    assert [record.run for record in persisted(effects) if isinstance(record, VmReleased)] == [2]


def nothing(_node: Node) -> None:
    """The aggregator answers."""


def without_its_aggregator(node: Node) -> None:
    forsaken(node)


def after_the_lease(node: Node) -> None:
    forsaken(node, 6.0)


def in_a_new_session(node: Node) -> None:
    forsaken(node)
    node.step(LinkOpened(node.link + 1))


def after_a_restart_of_the_agent(node: Node) -> None:
    forsaken(node)
    node.restart()
    node.listed(a_vm(QemuState.RUNNING))


def after_a_boot_of_the_host(node: Node) -> None:
    node.boot_id = "boot-2"
    node.restart()


def while_it_is_ended_by_order(node: Node) -> None:
    node.order(DestroyVm(1))
    forsaken(node)


def after_the_policy_was_changed(node: Node) -> None:
    node.order(SetIsolation(1, LEFT))
    forsaken(node)


def through_a_peer(node: Node) -> None:
    forsaken(node)
    node.step(LinkOpened(node.link + 1, via="h2"))
    node.step(LinkClosed(node.link + 1))


@pytest.mark.parametrize(
    ("before", "end", "isolation"),
    [
        (nothing, EndReason.CRASHED, RESTARTS),
        (without_its_aggregator, EndReason.CRASHED, LEFT),
        (without_its_aggregator, EndReason.POWEROFF, RESTARTS),
        (without_its_aggregator, EndReason.DESTROYED, RESTARTS),
        (after_the_lease, EndReason.CRASHED, RESTARTS),
        (in_a_new_session, EndReason.CRASHED, RESTARTS),
        (after_a_restart_of_the_agent, EndReason.CRASHED, RESTARTS),
        (after_a_boot_of_the_host, EndReason.CRASHED, RESTARTS),
        (while_it_is_ended_by_order, EndReason.CRASHED, RESTARTS),
        (after_the_policy_was_changed, EndReason.CRASHED, RESTARTS),
        (through_a_peer, EndReason.CRASHED, RESTARTS),
    ],
)
def test_it_is_left_to_the_aggregator(before: Callable[[Node], None], end: EndReason, isolation: Isolation) -> None:
    node = running(isolation)
    before(node)
    effects = crashed(node, end) + node.listed(a_vm(QemuState.GONE, end=end)) + node.tick(3.0)
    assert Create() not in deeds(effects)
    assert [record.run for record in persisted(effects) if isinstance(record, VmReleased)] == [1]
