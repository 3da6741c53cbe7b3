"""When an agent asks its guests, and what their answers come to in its reports."""

from __future__ import annotations

import pytest
from msgspec import structs

from agent.keeper_types import Effect, GuestProbed, ProbeGuest
from fleet.guest_health import GuestHealth, GuestProbe, GuestProbes, ProbeKind, ProbeWay
from fleet.messages import SetProbes, StartVm
from fleet.model import QemuState
from tests.unit.keeper_harness import UUID, Node, a_vm, only_call, vm_reports

PING = GuestProbe(ProbeWay.PING, initial_delay_s=30.0, period_s=10.0, timeout_s=2.0, failure_threshold=3)
READY = GuestProbe(ProbeWay.TCP, port=443, initial_delay_s=1.0, period_s=5.0, success_threshold=2, failure_threshold=2)


def started(probes: GuestProbes) -> Node:
    """A node whose guest has just begun to run."""
    node = Node()
    node.connect()
    define = only_call(node.order(StartVm("<domain/>", 1, probes=probes)))
    create = only_call(node.returned(define))
    node.changed(a_vm(QemuState.RUNNING))
    node.returned(create)
    return node


def asked(effects: list[Effect]) -> list[ProbeGuest]:
    return [e for e in effects if isinstance(e, ProbeGuest)]


def answered(node: Node, question: ProbeGuest, good: bool | None, words: str = "") -> list[Effect]:  # noqa: FBT001
    return node.step(GuestProbed(UUID, question.kind, question.number, good, words))


def health(node: Node) -> GuestHealth:
    return vm_reports(node.effects)[-1].guest


def goes_on(node: Node, seconds: float, good: bool | None = True, words: str = "") -> int:  # noqa: FBT001, FBT002
    """Let time pass, every question answered so; returns how many there were."""
    number = 0
    for _ in range(int(seconds)):
        for question in asked(node.tick(1.0)):
            answered(node, question, good, words)
            number += 1
    return number


def test_a_guest_is_asked_after_its_initial_delay_and_once_a_period() -> None:
    node = started(GuestProbes(liveness=PING))
    assert goes_on(node, 29) == 0
    assert goes_on(node, 30) == 3
    assert health(node) == GuestHealth()


def test_it_has_failed_after_so_many_bad_answers_in_a_row() -> None:
    node = started(GuestProbes(liveness=PING))
    goes_on(node, 35)
    assert goes_on(node, 20, good=False, words="no answer") == 2
    assert health(node).failed == ""
    goes_on(node, 10)  # a good one between them
    assert goes_on(node, 20, good=False, words="no answer") == 2
    assert health(node).failed == ""
    goes_on(node, 10, good=False, words="no answer")
    assert health(node).failed == "no answer"


def test_a_guest_that_cannot_be_asked_has_not_failed() -> None:
    node = started(GuestProbes(liveness=PING))
    assert goes_on(node, 300, good=None, words="libvirtd is silent") > 20
    assert health(node) == GuestHealth()


def test_a_question_without_an_answer_is_given_up_and_asked_again() -> None:
    node = started(GuestProbes(liveness=PING))
    first = [q for _ in range(32) for q in asked(node.tick(1.0))]
    again = [q for _ in range(20) for q in asked(node.tick(1.0))]
    assert len(first) == 1
    assert again
    answered(node, first[0], good=False)  # too late: it speaks of nothing any more
    answered(node, again[-1], good=True)
    assert health(node) == GuestHealth()


def test_a_guest_that_stands_still_is_not_asked_and_an_answer_of_before_says_nothing() -> None:
    node = started(GuestProbes(liveness=structs.replace(PING, failure_threshold=1)))
    question = [q for _ in range(32) for q in asked(node.tick(1.0))][-1]
    node.changed(a_vm(QemuState.PAUSED))
    answered(node, question, good=False, words="paused guests are deaf")
    assert goes_on(node, 60) == 0
    assert health(node) == GuestHealth()
    node.changed(a_vm(QemuState.RUNNING))
    assert goes_on(node, 12) == 1


def test_readiness_begins_as_no_and_turns_by_its_thresholds() -> None:
    node = started(GuestProbes(readiness=READY))
    assert health(node).ready == "False"
    goes_on(node, 4)
    assert health(node).ready == "False"
    goes_on(node, 5)
    assert health(node) == GuestHealth(ready="True")
    goes_on(node, 5, good=False, words="port 443: Connection refused")
    assert health(node).ready == "True"
    goes_on(node, 5, good=False, words="port 443: Connection refused")
    assert health(node) == GuestHealth(ready="False", why="port 443: Connection refused")


def test_changed_probes_act_at_once_and_what_stays_is_kept() -> None:
    node = started(GuestProbes(liveness=PING, readiness=READY))
    goes_on(node, 15)
    assert health(node).ready == "True"
    node.order(SetProbes(1, GuestProbes(readiness=READY)))
    assert health(node).ready == "True"
    assert {q.kind for _ in range(40) for q in asked(node.tick(1.0))} == {ProbeKind.READINESS}
    node.order(SetProbes(1, GuestProbes()))
    assert health(node) == GuestHealth()
    assert goes_on(node, 40) == 0


def test_probes_survive_a_restart_of_the_agent() -> None:
    node = started(GuestProbes(liveness=PING))
    node.restart()
    node.connect(a_vm(QemuState.RUNNING))
    assert goes_on(node, 45) == 2


def test_nobody_is_asked_of_a_run_that_is_over() -> None:
    node = started(GuestProbes(liveness=PING))
    goes_on(node, 35)
    node.gone()
    node.changed(a_vm(QemuState.GONE, ""))
    assert goes_on(node, 60) == 0


@pytest.mark.parametrize("kind", [ProbeKind.LIVENESS, ProbeKind.READINESS])
def test_only_changes_are_told(kind: ProbeKind) -> None:
    probe = structs.replace(PING, initial_delay_s=0.0)
    node = started(GuestProbes(probe) if kind is ProbeKind.LIVENESS else GuestProbes(readiness=probe))
    goes_on(node, 15)
    told = len(vm_reports(node.effects))
    goes_on(node, 120)
    assert len(vm_reports(node.effects)) == told
