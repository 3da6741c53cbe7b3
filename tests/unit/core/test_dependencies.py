"""dependsOn orders the starts of a batch and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from aggregator.core import events as ev
from aggregator.core.events import NodeState, VmPhase, VmVerb
from aggregator.core.explain import explain_vm
from aggregator.core.objects import Dependency, Probe, VmSpec
from aggregator.core.views_vm import hold_text
from fleet.guest_health import GuestHealth
from fleet.model import EndReason, OrderOutcome, RunStrategy
from tests.unit.core.fleet import Fleet

NEED = Dependency(vm="db", timeout="60s")


def site(need: Dependency = NEED, db: VmSpec | None = None) -> Fleet:
    """web and db run on n1, web depends on db; n3 has no part in it."""
    fleet = Fleet(3, {"unseenAtLeast": "5s", "readinessEvery": "5s"})
    for node in ("n2", "n3"):
        fleet.cordon(node)
    fleet.health["db"] = GuestHealth(agent="Connected", ready="True")
    fleet.apply("db", db or VmSpec())
    fleet.apply("web", VmSpec(depends_on=(need,), restart_priority=900))
    fleet.run(10)
    for node in ("n2", "n3"):
        fleet.cordon(node, on=False)
    assert {fleet.vm(name).owner for name in ("web",)} == {"n1"}
    return fleet


def loses(fleet: Fleet, node: str = "n1") -> None:
    """The node's power is gone, and it is proven."""
    fleet.kill_power(node)
    fleet.run_until(fleet.is_in(node, NodeState.FENCED))


def starts(fleet: Fleet, name: str) -> list[ev.StartDecided]:
    """Return the starts of a VM, oldest first."""
    return [event for event in fleet.happened if isinstance(event, ev.StartDecided) and event.vm == name]


def test_a_vm_of_a_batch_waits_for_its_dependency_to_run() -> None:
    """The one it needs cannot start, so it waits, and says for whom and until when."""
    fleet = site()
    fleet.refuse["db"] = OrderOutcome.REFUSED
    loses(fleet)
    fleet.run(2)
    web = fleet.vm("web")
    assert len(starts(fleet, "web")) == 1  # the one at the beginning
    assert web.phase is VmPhase.RECOVERING
    assert web.phase_reason.startswith("waits for db to be Running, until ")
    assert hold_text(fleet.state, web) == web.phase_reason
    assert "Held: waits for db" in explain_vm(fleet.state, web, ()).text
    del fleet.refuse["db"]
    fleet.run_until(lambda: fleet.vm("web").phase is VmPhase.RUNNING, 20)
    assert starts(fleet, "db")[-1].at <= starts(fleet, "web")[-1].at


def test_after_its_time_it_starts_without_and_says_so() -> None:
    fleet = site()
    fleet.refuse["db"] = OrderOutcome.REFUSED
    loses(fleet)
    began = fleet.now
    fleet.run_until(lambda: len(starts(fleet, "web")) > 1, 90)
    assert 55 < fleet.now - began < 65
    assert "db was not Running within 60s" in starts(fleet, "web")[-1].reason


def is_deleted(fleet: Fleet) -> None:
    fleet.settle(ev.VmDeleteRequested(at=fleet.now, name="db"))


def is_stopped(fleet: Fleet) -> None:
    fleet.settle(ev.VmCommanded(at=fleet.now, name="db", verb=VmVerb.STOP))


def is_disarmed(fleet: Fleet) -> None:
    fleet.settle(ev.Disarmed(at=fleet.now, vm="db", who="anna"))


def crashes_again_and_again(fleet: Fleet) -> None:
    for _ in range(6):
        fleet.run_until(lambda: fleet.vm("db").phase is VmPhase.RUNNING)
        fleet.ends("db", EndReason.CRASHED)
    assert fleet.vm("db").phase is VmPhase.CRASH_LOOP_BACK_OFF


@pytest.mark.parametrize(
    ("before", "words"),
    [
        (is_deleted, "db is not known, which counts as met"),
        (is_stopped, "db is not to run, which counts as met"),
        (is_disarmed, "db is held (VM db is disarmed by anna until it is armed again), which counts as met"),
        (crashes_again_and_again, "db is held (crashed 6 times within the restart window), which counts as met"),
    ],
)
def test_what_will_not_run_is_not_waited_for(before: Callable[[Fleet], None], words: str) -> None:
    fleet = site(db=VmSpec(run_strategy=RunStrategy.ALWAYS))
    before(fleet)
    fleet.run(2)
    loses(fleet)
    fleet.run(1)
    assert words in starts(fleet, "web")[-1].reason
    assert len(starts(fleet, "web")) == 2


READY = Probe(tcp_socket={"port": 443})


@pytest.mark.parametrize(
    ("condition", "not_yet", "met", "words"),
    [
        ("GuestAgent", GuestHealth(agent="Disconnected"), GuestHealth(agent="Connected"), "its guest agent connected"),
        ("Ready", GuestHealth(ready="False", why="refused"), GuestHealth(ready="True"), "to be Ready"),
    ],
)
def test_a_guest_that_runs_is_waited_for_until_it_is_what_is_asked(
    condition: str, not_yet: GuestHealth, met: GuestHealth, words: str
) -> None:
    fleet = site(Dependency(vm="db", condition=condition, timeout="60s"), VmSpec(readiness_probe=READY))
    fleet.health["db"] = not_yet
    loses(fleet)
    fleet.run(5)
    assert fleet.vm("db").phase is VmPhase.RUNNING
    assert words in fleet.vm("web").phase_reason
    fleet.says_of_guest("db", met)
    fleet.run_until(lambda: fleet.vm("web").phase is VmPhase.RUNNING, 20)


def test_a_guest_without_a_readiness_probe_is_ready_when_it_runs() -> None:
    fleet = site(Dependency(vm="db", condition="Ready", timeout="60s"))
    loses(fleet)
    fleet.run_until(lambda: fleet.vm("web").phase is VmPhase.RUNNING, 20)


def test_a_guest_that_is_never_ready_is_gone_past_after_the_timeout_and_that_is_said() -> None:
    fleet = site(Dependency(vm="db", condition="Ready", timeout="20s"), VmSpec(readiness_probe=READY))
    fleet.health["db"] = GuestHealth(ready="False")
    loses(fleet)
    fleet.run_until(lambda: len(starts(fleet, "web")) == 2, 30)
    assert "db was not Ready within 20s" in starts(fleet, "web")[-1].reason


def test_a_vm_that_crashed_alone_is_restarted_at_once() -> None:
    fleet = site()
    fleet.settle(ev.VmCommanded(at=fleet.now, name="db", verb=VmVerb.PAUSE))
    fleet.run(1)
    assert fleet.vm("db").phase is VmPhase.PAUSED
    fleet.ends("web", EndReason.CRASHED)
    assert len(starts(fleet, "web")) == 2


def test_a_persons_start_waits_for_nobody() -> None:
    fleet = site()
    fleet.refuse["db"] = OrderOutcome.REFUSED
    loses(fleet)
    fleet.settle(ev.VmCommanded(at=fleet.now, name="web", verb=VmVerb.START))
    assert starts(fleet, "web")[-1].reason == "asked for"


def test_a_dependency_on_a_lost_node_is_not_taken_for_running() -> None:
    """Its node is silent: it may run or not, and web is not started on a guess before its time is over."""
    fleet = Fleet(3)
    fleet.apply("db")
    fleet.apply("web", VmSpec(depends_on=(NEED,)))
    fleet.run(10)
    db, web = fleet.vm("db").owner, fleet.vm("web").owner
    assert db != web
    fleet.silent.add(db)
    fleet.off_answer[db] = ev.PowerAnswer.ERROR
    fleet.run(40)
    assert fleet.node(db).state is NodeState.LOST
    fleet.settle(ev.VmGoneConfirmed(at=fleet.now, name="web"))
    fleet.run(2)
    assert "waits for db to be Running" in fleet.vm("web").phase_reason


def test_the_wait_survives_the_aggregator() -> None:
    """Its time counts from when it began, not from when the aggregator was started."""
    fleet = site()
    fleet.refuse["db"] = OrderOutcome.REFUSED
    loses(fleet)
    began = fleet.now
    fleet.run(30, 1)
    fleet.restart()
    for node in ("n2", "n3"):
        fleet.connect(node)
    fleet.run_until(lambda: len(starts(fleet, "web")) > 1, 60)
    assert fleet.now - began < 70
