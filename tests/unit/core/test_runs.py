"""Run strategies, start failures and orders that never began: stories of the pure core."""

from __future__ import annotations

import pytest

from aggregator.core import events as ev
from aggregator.core.actions import SendOrder
from aggregator.core.events import RunOutcome, VmPhase, VmVerb
from aggregator.core.objects import VmSpec
from fleet.messages import OrderInHand, StartVm, UndefineVm
from fleet.model import EndReason, OrderOutcome, RunStrategy
from tests.unit.core.fleet import Fleet

TABLE = [
    (RunStrategy.ALWAYS, EndReason.POWEROFF, True),
    (RunStrategy.ALWAYS, EndReason.CRASHED, True),
    (RunStrategy.ALWAYS, EndReason.DESTROYED, True),
    (RunStrategy.RERUN_ON_FAILURE, EndReason.POWEROFF, False),
    (RunStrategy.RERUN_ON_FAILURE, EndReason.CRASHED, True),
    (RunStrategy.RERUN_ON_FAILURE, EndReason.DESTROYED, False),
    (RunStrategy.MANUAL, EndReason.CRASHED, False),
    (RunStrategy.ONCE, EndReason.CRASHED, False),
]


@pytest.mark.parametrize(("strategy", "end", "again"), TABLE)
def test_what_follows_the_end_of_a_run(strategy: RunStrategy, end: EndReason, *, again: bool) -> None:
    """The table of product.md, run strategies."""
    fleet = Fleet()
    fleet.apply("v", VmSpec(run_strategy=strategy))
    if strategy is RunStrategy.MANUAL:
        assert fleet.vm("v").phase is VmPhase.STOPPED
        fleet.settle(ev.VmCommanded(at=fleet.now, name="v", verb=VmVerb.START))
    fleet.run(2)
    assert fleet.vm("v").run == 1
    fleet.ends("v", end)
    fleet.run(30)
    assert fleet.vm("v").run == (2 if again else 1)
    expected = RunOutcome.FAILED if end is EndReason.CRASHED else RunOutcome.SUCCEEDED
    assert fleet.vm("v").outcome is expected


def test_a_halted_vm_is_stopped_and_stays_down() -> None:
    """Switching to Halted ends the run; switching back starts one."""
    fleet = Fleet()
    fleet.apply("v")
    fleet.run(2)
    fleet.apply("v", VmSpec(run_strategy=RunStrategy.HALTED))
    fleet.run(2)
    assert (fleet.vm("v").phase, fleet.vm("v").run_open) == (VmPhase.STOPPED, False)
    fleet.apply("v")
    fleet.run(2)
    assert fleet.vm("v").phase is VmPhase.RUNNING


def test_restart_is_a_stop_and_a_start() -> None:
    """One run ends as Stopped, the next begins."""
    fleet = Fleet()
    fleet.apply("v")
    fleet.run(2)
    fleet.settle(ev.VmCommanded(at=fleet.now, name="v", verb=VmVerb.RESTART))
    fleet.run(2)
    assert (fleet.vm("v").run, fleet.vm("v").phase) == (2, VmPhase.RUNNING)
    assert fleet.vm("v").outcome is RunOutcome.STOPPED


def test_starts_that_fail_are_held_longer_each_time() -> None:
    """10·n² seconds, at most 300 (product.md), and `start` ends the hold."""
    fleet = Fleet()
    fleet.refuse["v"] = OrderOutcome.FAILED
    fleet.apply("v")
    fleet.run(200)
    vm = fleet.vm("v")
    assert vm.run == 4  # at 0, 10, 50 and 140 s
    assert vm.phase is VmPhase.CRASH_LOOP_BACK_OFF
    assert vm.bindings == []
    fleet.refuse.clear()
    fleet.settle(ev.VmCommanded(at=fleet.now, name="v", verb=VmVerb.START))
    fleet.run(2)
    assert fleet.vm("v").phase is VmPhase.RUNNING


def test_a_run_that_crashes_over_and_over_is_held() -> None:
    """Five restarts in thirty minutes, then CrashLoopBackOff until the window passes."""
    fleet = Fleet()
    fleet.apply("v")
    for _ in range(6):
        fleet.run(2)
        fleet.ends("v", EndReason.CRASHED)
    fleet.run(2)
    assert fleet.vm("v").phase is VmPhase.CRASH_LOOP_BACK_OFF
    assert "crashed 6 times" in fleet.vm("v").phase_reason
    fleet.run(1800, 1)
    assert fleet.vm("v").phase is VmPhase.RUNNING


def test_a_refused_start_counts_as_no_run_and_is_tried_again() -> None:
    """Refused means nothing was begun; but only the node's next session proves that nothing will be."""
    fleet = Fleet()
    fleet.refuse["v"] = OrderOutcome.REFUSED
    fleet.apply("v")
    fleet.run(3)
    assert (fleet.vm("v").failed_starts, len(fleet.vm("v").bindings)) == (0, 1)
    fleet.refuse.clear()
    fleet.run(10)
    assert any(kind.startswith("SessionDoubted") for kind in fleet.story())
    assert fleet.vm("v").phase is VmPhase.RUNNING
    assert (fleet.vm("v").failed_starts, fleet.vm("v").restart_count) == (0, 0)


def test_an_order_that_is_never_answered_is_asked_after_in_a_new_session() -> None:
    """Its node beats and says nothing of it: what it has in hand it tells there, and what was lost is ordered anew."""
    fleet = Fleet(nodes=1)
    fleet.deaf.add("n1")
    fleet.apply("v")
    fleet.run(14)
    assert fleet.vm("v").phase is VmPhase.STARTING
    assert not any(kind.startswith("SessionDoubted") for kind in fleet.story())
    fleet.deaf.clear()
    fleet.run(4)
    assert any(kind.startswith("SessionDoubted") for kind in fleet.story())
    assert (fleet.vm("v").phase, fleet.vm("v").run, fleet.vm("v").restart_count) == (VmPhase.RUNNING, 2, 0)


def test_an_order_that_was_accepted_may_take_its_time() -> None:
    """Whoever says that it has it is not asked anew, however long the deed takes."""
    fleet = Fleet(nodes=1)
    fleet.deaf.add("n1")
    fleet.apply("v")
    fleet.run(1)
    fleet.accepts("n1")
    fleet.run(100)
    assert not any(kind.startswith("SessionDoubted") for kind in fleet.story())


def test_a_vm_that_shall_run_once_is_started_again_if_its_start_never_began() -> None:
    """Once means one run, not one order; after the run it stays down."""
    fleet = Fleet()
    fleet.refuse["v"] = OrderOutcome.REFUSED
    fleet.apply("v", VmSpec(run_strategy=RunStrategy.ONCE))
    fleet.run(3)
    fleet.refuse.clear()
    fleet.run(20)
    assert fleet.vm("v").phase is VmPhase.RUNNING
    run = fleet.vm("v").run
    fleet.ends("v", EndReason.POWEROFF)
    fleet.run(20)
    assert (fleet.vm("v").run, fleet.vm("v").phase) == (run, VmPhase.SUCCEEDED)


def test_an_order_left_behind_in_an_old_session_binds_until_the_node_speaks() -> None:
    """S11: the start may have happened. Only a newer session that shows it did not frees the VM."""
    fleet = Fleet(2)
    fleet.silent.add("n1")
    fleet.deaf.add("n1")
    fleet.cordon("n2")
    fleet.apply("v")
    assert fleet.vm("v").owner == "n1"
    fleet.cordon("n2", on=False)
    fleet.restart()
    fleet.connect("n2")
    fleet.run(4)
    assert [b.node for b in fleet.vm("v").bindings] == ["n1"]
    assert fleet.vm("v").run == 1
    fleet.silent.discard("n1")
    fleet.deaf.discard("n1")
    fleet.connect("n1")
    fleet.run(2)
    assert fleet.vm("v").phase is VmPhase.RUNNING
    assert fleet.vm("v").restart_count == 0


def test_an_order_in_the_agents_hands_is_not_overtaken_by_its_new_session() -> None:
    """The agent came back and says the start is under way: nobody else may start it."""
    fleet = Fleet(2)
    fleet.deaf.add("n1")
    fleet.cordon("n2")
    fleet.apply("v")
    order_id = next(iter(fleet.state.orders))
    order = fleet.state.orders[order_id].order
    assert isinstance(order.body, StartVm)
    fleet.connect("n1", (OrderInHand(order_id, order.uuid, order.epoch, "start"),))
    fleet.cordon("n2", on=False)
    fleet.run(20)
    assert order_id in fleet.state.orders
    assert fleet.vm("v").owner == "n1"


def test_an_incomplete_picture_frees_nothing() -> None:
    """libvirt was not read: what is not listed may be there."""
    fleet = Fleet(2)
    fleet.apply("v")
    fleet.run(2)
    owner = fleet.vm("v").owner
    kept = fleet.qemus.pop((owner, "uuid-v"))
    fleet.connect(owner, complete=False)
    fleet.run(10)
    assert [b.node for b in fleet.vm("v").bindings] == [owner]
    fleet.qemus[owner, "uuid-v"] = kept
    fleet.connect(owner)
    assert fleet.vm("v").run == 1


def test_a_vm_that_no_node_takes_says_why_and_starts_when_one_does() -> None:
    """Per node the rule; tried again as soon as anything changes."""
    fleet = Fleet(2)
    fleet.cordon("n1")
    fleet.apply("v", VmSpec(node_selector={"virtward/hostname": "n1"}))
    assert fleet.vm("v").rejected == {"n1": ("NodeUnschedulable",), "n2": ("NodeAffinity",)}
    assert fleet.vm("v").phase is VmPhase.PENDING
    fleet.cordon("n1", on=False)
    fleet.run(1)
    assert fleet.vm("v").owner == "n1"


def test_a_deleted_vm_is_gone_only_when_nothing_binds_it() -> None:
    """The tombstone waits for its node."""
    fleet = Fleet(2)
    fleet.apply("v")
    fleet.run(2)
    owner = fleet.vm("v").owner
    fleet.deaf.add(owner)
    fleet.settle(ev.VmDeleteRequested(at=fleet.now, name="v"))
    fleet.run(10)
    assert "v" in fleet.state.vms
    fleet.deaf.clear()
    fleet.connect(owner)
    fleet.run(3)
    assert "v" not in fleet.state.vms


def test_a_person_vouches_that_a_vm_is_gone() -> None:
    """confirm-gone frees every binding of one VM and no other's."""
    fleet = Fleet()
    for name in ("v", "w"):
        fleet.apply(name, VmSpec(node_selector={"virtward/hostname": "n1"}))
    fleet.run(2)
    fleet.apply("v")
    fleet.silent.add("n1")
    fleet.heard["n1"] = True
    fleet.run(20)
    fleet.settle(ev.VmGoneConfirmed(at=fleet.now, name="v", who="anna"))
    fleet.run(2)
    assert fleet.vm("v").owner != "n1"
    assert fleet.vm("w").owner == "n1"


def test_a_deleted_vm_is_undefined_where_it_was_before_its_name_is_free() -> None:
    """Else libvirt refuses the next VM of that name there. Nodes that are away are not waited for."""
    fleet = Fleet(3)
    fleet.apply("v", VmSpec(node_selector={"virtward/hostname": "n1"}))
    fleet.run(2)
    fleet.settle(ev.VmDeleteRequested(at=fleet.now, name="v"))
    fleet.run(5)
    undefined = [a.node for a in fleet.actions if isinstance(a, SendOrder) and isinstance(a.order.body, UndefineVm)]
    assert undefined == ["n1"]
    assert "v" not in fleet.state.vms


def test_a_vm_that_comes_back_under_its_uuid_goes_on_with_its_epochs() -> None:
    """Agents hold the epoch of the deleted one; a lower one would be refused, or worse, taken."""
    fleet = Fleet(3)
    fleet.apply("v")
    fleet.run(2)
    fleet.ends("v", EndReason.CRASHED)
    fleet.run(20)
    epoch = fleet.vm("v").epoch
    assert epoch == 2
    fleet.settle(ev.VmDeleteRequested(at=fleet.now, name="v"))
    fleet.run(5)
    assert "v" not in fleet.state.vms
    fleet.apply("v")
    fleet.run(5)
    assert fleet.vm("v").epoch == epoch + 1
