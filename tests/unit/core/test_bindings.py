"""What frees a VM from a node, and what must not: stories of the pure core."""

from __future__ import annotations

from msgspec import structs

from aggregator.core import events as ev
from aggregator.core.actions import SendOrder
from aggregator.core.events import VmPhase
from aggregator.core.objects import VmSpec
from fleet.messages import ReceiveVm, StartVm
from fleet.model import EndReason, LedgerState, OrderOutcome, QemuState, VmReport
from tests.unit.core.fleet import Fleet
from tests.unit.core.test_node_failure import fleet_with_vms


def only_order(fleet: Fleet, kind: type) -> SendOrder:
    """Return the newest order of a kind."""
    return [a for a in fleet.actions if isinstance(a, SendOrder) and isinstance(a.order.body, kind)][-1]


def test_a_start_that_never_left_this_process_binds_nobody() -> None:
    """The decision was too old to be sent: its node is asked anew, and the start decided anew."""
    fleet = Fleet()
    fleet.deaf |= {"n1", "n2", "n3"}
    fleet.apply("v")
    order = only_order(fleet, StartVm).order
    fleet.deaf.clear()
    fleet.settle(ev.OrderDropped(at=fleet.now, order_id=order.order_id, why="its decision is 1.2 s old"))
    fleet.run(8)
    assert (fleet.vm("v").phase, fleet.vm("v").run, fleet.vm("v").failed_starts) == (VmPhase.RUNNING, 2, 0)


def test_the_end_of_a_foreign_copy_frees_no_order_that_came_after_it() -> None:
    """n2 releases what it had at epoch 1; the copy it was told to receive at epoch 3 stays bound."""
    fleet = Fleet(2)
    fleet.apply("v", VmSpec(node_selector={"virtward/hostname": "n1"}))
    fleet.run(2)
    fleet.apply("v")
    vm = fleet.vm("v")
    stray = VmReport(vm.uuid, "v", QemuState.PAUSED, epoch=1, run=1, managed=True)
    fleet.settle(fleet.reported("n2", stray))
    fleet.deaf.add("n2")
    fleet.settle(ev.MigrationRequested(at=fleet.now, vm="v", target="n2"))
    epoch = only_order(fleet, ReceiveVm).order.epoch
    gone = structs.replace(stray, state=QemuState.GONE, released=True, end=EndReason.DESTROYED)
    fleet.settle(fleet.reported("n2", gone))
    assert [(b.node, b.epoch) for b in vm.bindings] == [("n1", 1), ("n2", epoch)]


def test_another_boot_frees_its_vms_although_its_ledger_is_lost() -> None:
    """What ran in the last boot runs no more, whatever became of a file; the node itself takes no orders."""
    fleet = fleet_with_vms()
    held = [vm.name for vm in fleet.state.vms.values() if vm.owner == "n1"]
    fleet.ledgers["n1"] = LedgerState.LOST
    fleet.reboot("n1")
    fleet.run(5)
    assert held
    assert {fleet.vm(name).owner for name in held} <= {"n2", "n3"}
    assert all(fleet.vm(name).phase is VmPhase.RUNNING for name in held)


def test_a_lost_ledger_is_not_asked_over_and_over() -> None:
    """The same boot, and it no longer knows what it promised: the VM stays bound, and no session is closed for it."""
    fleet = fleet_with_vms()
    vm = next(vm for vm in fleet.state.vms.values() if vm.owner == "n1")
    fleet.qemus.pop(("n1", vm.uuid))
    fleet.ledgers["n1"] = LedgerState.LOST
    fleet.connect("n1")
    fleet.run(30)
    assert fleet.sessions["n1"] == 2
    assert [b.node for b in vm.bindings] == ["n1"]


def test_a_refused_start_is_free_although_a_delta_follows_the_full_state() -> None:
    """The new session's full state does not name the VM, and a delta in the same turn says that it is gone.

    Its ledger knows nothing of the start, which was ordered in an older session: it never begins.
    """
    fleet = Fleet()
    fleet.refuse["v"] = OrderOutcome.REFUSED
    fleet.apply("v")
    node = fleet.vm("v").owner
    for other in {"n1", "n2", "n3"} - {node}:
        fleet.cordon(other)
    assert fleet.vm("v").bindings
    del fleet.refuse["v"]
    fleet.now += 1
    opened = [event for event in fleet.happened if isinstance(event, ev.SessionOpened) and event.node == node][-1]
    session = structs.replace(opened.session, number=opened.session.number + 1)
    gone = VmReport(fleet.vm("v").uuid, "", QemuState.GONE)
    fleet.settle(
        structs.replace(opened, at=fleet.now, session=session),
        ev.VmsReported(at=fleet.now, node=node, session=session, generation=2, vms=(gone,)),
    )
    assert fleet.vm("v").bindings == []
    fleet.run(8)
    assert (fleet.vm("v").phase, fleet.vm("v").run) == (VmPhase.RUNNING, 2)
