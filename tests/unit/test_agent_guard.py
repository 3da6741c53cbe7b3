"""isolationPolicy: what an agent ends when its beats are not answered, when, and as what it is told."""

from __future__ import annotations

import pytest

from agent.guard import Guard, Verdict, judge
from agent.keeper_types import AskShutdown, Call, Destroy, Effect, LinkClosed, OrderBegun, Persist, Tick, VmReleased
from fleet.messages import BeatAnswer, DestroyVm, MigrateVm, SetIsolation, StartVm
from fleet.model import EndReason, Isolation, IsolationPolicy, OrderOutcome, QemuState
from tests.unit.keeper_harness import (
    LEADER,
    UUID,
    Node,
    a_vm,
    calls,
    deeds,
    only_call,
    persisted,
    reports,
    vm_reports,
)

KEEP, SHUTDOWN, DESTROY = IsolationPolicy
ROWS = [
    (KEEP, 5.9, Verdict.KEEP),
    (KEEP, 6000.0, Verdict.KEEP),
    (SHUTDOWN, 5.9, Verdict.KEEP),
    (SHUTDOWN, 6.0, Verdict.SHUT_DOWN),
    (DESTROY, 5.9, Verdict.KEEP),
    (DESTROY, 6.0, Verdict.DESTROY),
]


@pytest.mark.parametrize(("policy", "alone_s", "verdict"), ROWS)
def test_what_becomes_of_a_vm(policy: IsolationPolicy, alone_s: float, verdict: Verdict) -> None:
    assert judge(Isolation(policy, after_s=6.0), 100.0, 100.0 + alone_s) is verdict


def test_a_lease_counts_from_before_its_beat_was_sent_and_across_sessions() -> None:
    guard = Guard()
    guard.begun(10.0)
    guard.lease.beat_sent(1, 20.0)
    guard.lease.beat_sent(2, 21.0)
    guard.lease.beat_answered(1)
    assert guard.counted_from_s() == 20.0
    guard.session_opened(direct=True)
    guard.lease.beat_answered(2)  # an answer of the old session
    assert guard.counted_from_s() == 20.0


def with_policy(policy: IsolationPolicy, grace_s: float = 30.0) -> Node:
    """A node with one VM running under that policy, whose every beat was answered until now."""
    node = Node()
    node.connect()
    isolation = Isolation(policy, 6.0, grace_s)
    create = only_call(node.returned(only_call(node.order(StartVm("<domain/>", 1, isolation=isolation)))))
    node.changed(a_vm(QemuState.RUNNING))
    node.returned(create)
    node.tick(3.0)
    return node


def alone(node: Node, for_s: float) -> list[Effect]:
    """Let time pass in which nobody answers."""
    effects: list[Effect] = []
    for _ in range(round(for_s)):
        effects += node.step(Tick(), 1.0)
    return effects


def test_a_vm_to_be_destroyed_is_destroyed_at_the_end_of_the_lease_record_first() -> None:
    node = with_policy(DESTROY)
    node.step(LinkClosed(node.link))
    assert calls(alone(node, 5)) == []
    effects = alone(node, 2)
    assert deeds(effects) == [Destroy()]
    (begun,) = [e for e in effects if isinstance(e, Persist)]
    assert isinstance(begun.record, OrderBegun)
    assert effects.index(begun) < effects.index(next(e for e in effects if isinstance(e, Call)))
    ended = node.gone()
    (released,) = [r for r in persisted(ended) if isinstance(r, VmReleased)]
    assert (released.epoch, released.run, released.end) == (1, 1, EndReason.ISOLATED)
    told = vm_reports(node.connect(a_vm(QemuState.GONE)))
    assert (told[-1].released, told[-1].end) == (True, EndReason.ISOLATED)


def test_a_guest_that_may_shut_down_gets_its_grace() -> None:
    node = with_policy(SHUTDOWN, grace_s=20.0)
    node.step(LinkClosed(node.link))
    asked = alone(node, 7)
    assert deeds(asked) == [AskShutdown()]
    node.returned(only_call(asked))
    assert Destroy() not in deeds(alone(node, 15))
    assert Destroy() in deeds(alone(node, 10))


@pytest.mark.parametrize("policy", [KEEP, SHUTDOWN, DESTROY])
def test_nothing_is_ended_while_beats_are_answered(policy: IsolationPolicy) -> None:
    assert calls(with_policy(policy).tick(30.0)) == []


def test_a_restart_of_the_agent_is_no_isolation_and_its_ledger_knows_the_policy() -> None:
    node = with_policy(DESTROY)
    node.now += 20.0
    node.restart()
    assert calls(node.listed(a_vm(QemuState.RUNNING))) == []
    assert deeds(alone(node, 7)) == [Destroy()]


def test_an_ending_that_the_agent_died_in_is_taken_up_again() -> None:
    node = with_policy(DESTROY)
    node.step(LinkClosed(node.link))
    assert deeds(alone(node, 7)) == [Destroy()]
    node.restart()
    node.step(Tick())
    effects = node.listed(a_vm(QemuState.RUNNING))
    assert deeds(effects) == [Destroy()]
    released = [r for r in persisted(node.gone()) if isinstance(r, VmReleased)]
    assert [r.end for r in released] == [EndReason.ISOLATED]


def test_a_migration_in_hand_ends_first() -> None:
    node = with_policy(DESTROY)
    node.order(MigrateVm("m1", 1, "h2", 2, "qemu+tls://h2/system", "10.0.0.2", ("10.0.0.2:1",), "secret of it"))
    node.step(LinkClosed(node.link))
    assert calls(alone(node, 20)) == []


def test_a_policy_can_be_changed_while_the_vm_runs() -> None:
    node = with_policy(KEEP)
    assert reports(node.order(SetIsolation(2, Isolation(DESTROY))))[-1].code == "UNKNOWN_RUN"
    changed = node.order(SetIsolation(1, Isolation(DESTROY)))
    assert reports(changed)[-1].outcome is OrderOutcome.DONE
    node.restart()
    node.listed(a_vm(QemuState.RUNNING))
    assert deeds(alone(node, 7)) == [Destroy()]


def test_an_order_of_the_aggregators_is_taken_when_it_is_back() -> None:
    node = with_policy(DESTROY)
    node.step(LinkClosed(node.link))
    alone(node, 7)
    node.gone()
    node.connect(a_vm(QemuState.GONE))
    node.hear(BeatAnswer(1, LEADER))
    assert reports(node.order(DestroyVm(1)))[-1].outcome is OrderOutcome.DONE
    assert UUID in node.keeper.memory.promises
