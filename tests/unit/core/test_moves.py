"""Migrations and drains: stories of the pure core."""

from __future__ import annotations

from msgspec import structs

from aggregator.core import events as ev
from aggregator.core.events import MigrationPhase, NodeState, VmPhase
from aggregator.core.objects import Toleration, VmSpec
from fleet.messages import DestroyVm, DiscardIncoming, MigrateVm, ReceiveVm, ResumeVm
from fleet.model import EndReason, EvictionStrategy, OrderOutcome, QemuState
from tests.unit.core.fleet import Fleet


def running_on(fleet: Fleet, name: str, node: str) -> None:
    """Apply a VM and let it run on a node that it may leave again."""
    others = [n for n in fleet.state.nodes if n != node]
    for other in others:
        fleet.cordon(other)
    fleet.apply(name)
    fleet.run(1)
    for other in others:
        fleet.cordon(other, on=False)
    assert fleet.vm(name).owner == node


def issued(fleet: Fleet, kind: type) -> list[str]:
    """Return the nodes that were sent orders of a kind, in order."""
    return [e.node for e in fleet.happened if isinstance(e, ev.OrderIssued) and isinstance(e.order.body, kind)]


def test_a_migration_changes_the_owner_only_after_the_source_is_released() -> None:
    """Permit, copy, Released, owner and epoch, resume: in this order; the run is the same."""
    fleet = Fleet()
    running_on(fleet, "v", "n1")
    fleet.settle(ev.MigrationRequested(at=fleet.now, vm="v", target="n3"))
    fleet.run(2)
    vm, migration = fleet.vm("v"), fleet.state.migrations["mig-1"]
    assert migration.phase is MigrationPhase.SUCCEEDED
    assert (vm.owner, vm.epoch, vm.run, vm.phase) == ("n3", 2, 1, VmPhase.RUNNING)
    assert [b.node for b in vm.bindings] == ["n3"]
    story = fleet.story()
    assert story.index("BindingFreed n1") < story.index("OwnerChanged n3")
    assert (issued(fleet, ReceiveVm), issued(fleet, MigrateVm), issued(fleet, ResumeVm)) == (
        ["n3"],
        ["n1"],
        ["n3"],
    )


def test_while_a_migration_is_in_flight_the_vm_is_bound_to_both_ends() -> None:
    """Neither end may be believed alone."""
    fleet = Fleet()
    running_on(fleet, "v", "n1")
    fleet.deaf.add("n1")
    fleet.settle(ev.MigrationRequested(at=fleet.now, vm="v", target="n2"))
    fleet.run(2)
    assert {b.node for b in fleet.vm("v").bindings} == {"n1", "n2"}
    assert fleet.vm("v").owner == "n1"


def test_a_migration_that_fails_discards_the_copy_and_the_guest_runs_on() -> None:
    """The target's half is removed by order before anything else is tried."""
    fleet = Fleet()
    running_on(fleet, "v", "n1")
    fleet.deaf.add("n1")
    fleet.settle(ev.MigrationRequested(at=fleet.now, vm="v", target="n2"))
    fleet.run(1)
    order = next(r.order for r in fleet.state.orders.values() if isinstance(r.order.body, MigrateVm))
    fleet.settle(
        ev.OrderReported(
            at=fleet.now,
            node="n1",
            session=order.session,
            order_id=order.order_id,
            uuid=order.uuid,
            epoch=order.epoch,
            outcome=OrderOutcome.FAILED,
            message="the network was cut",
        )
    )
    fleet.run(1)
    assert issued(fleet, DiscardIncoming) == ["n2"]
    assert fleet.state.migrations["mig-1"].phase is MigrationPhase.FAILED
    assert "the network was cut" in fleet.state.migrations["mig-1"].reason
    assert (fleet.vm("v").owner, fleet.vm("v").epoch, fleet.vm("v").phase) == ("n1", 1, VmPhase.RUNNING)


def test_a_source_that_crashed_is_not_handed_over_even_if_the_copy_is_complete() -> None:
    """It may have run on after the copy was made: the copy is discarded, the VM starts anew."""
    fleet = Fleet()
    running_on(fleet, "v", "n1")
    fleet.deaf.add("n1")
    fleet.settle(ev.MigrationRequested(at=fleet.now, vm="v", target="n2"))
    fleet.run(1)
    copy = structs.replace(fleet.qemus["n2", "uuid-v"], state=QemuState.ARRIVED)
    fleet.settle(fleet.reported("n2", copy))
    fleet.ends("v", EndReason.CRASHED)
    fleet.run(2)
    assert issued(fleet, ResumeVm) == []
    assert issued(fleet, DiscardIncoming) == ["n2"]
    assert fleet.vm("v").run == 2


def test_a_source_that_loses_power_in_flight_frees_the_vm_only_by_proof() -> None:
    """Both ends stay bound until the source is proven off and the copy is discarded."""
    fleet = Fleet()
    running_on(fleet, "v", "n1")
    fleet.deaf.add("n1")
    fleet.settle(ev.MigrationRequested(at=fleet.now, vm="v", target="n2"))
    fleet.run(1)
    fleet.kill_power("n1")
    fleet.run_until(fleet.is_in("n1", NodeState.FENCED))
    fleet.run(3)
    assert issued(fleet, ResumeVm) == []
    assert fleet.vm("v").run == 2
    assert fleet.vm("v").phase is VmPhase.RUNNING


def test_a_hand_over_that_stands_still_ends_in_a_start_from_the_disk() -> None:
    """The source stood finished longer than libvirt takes to resume or end it: it is ended, the copy discarded."""
    fleet = Fleet()
    running_on(fleet, "v", "n1")
    fleet.deaf.add("n1")
    fleet.settle(ev.MigrationRequested(at=fleet.now, vm="v", target="n2"))
    fleet.run(1)
    copy = structs.replace(fleet.qemus["n2", "uuid-v"], state=QemuState.ARRIVED)
    finished = structs.replace(fleet.qemus["n1", "uuid-v"], state=QemuState.FINISHED)
    fleet.accepts("n1")
    fleet.settle(fleet.reported("n2", copy), fleet.reported("n1", finished))
    fleet.run(35)
    assert issued(fleet, DestroyVm) == []
    fleet.deaf.discard("n1")
    fleet.run(15)
    assert issued(fleet, DestroyVm) == ["n1"]
    assert issued(fleet, ResumeVm) == []
    assert (fleet.vm("v").run, fleet.vm("v").phase) == (2, VmPhase.RUNNING)


def test_a_drain_moves_every_vm_within_the_limits_and_is_done() -> None:
    """Two outbound at a time; no VM is restarted; the taint stays until uncordon."""
    fleet = Fleet()
    for name in ("a", "b", "c"):
        running_on(fleet, name, "n1")
    fleet.settle(ev.DrainRequested(at=fleet.now, node="n1", who="anna"))
    fleet.run(10)
    assert fleet.state.drains["n1"].state == "Done"
    assert all(fleet.vm(n).owner != "n1" and fleet.vm(n).run == 1 for n in "abc")
    assert [t.key for t in fleet.node("n1").taints] == ["virtward/maintenance"]
    fleet.settle(ev.DrainCancelled(at=fleet.now, node="n1"))
    assert fleet.node("n1").taints == ()


def test_a_vm_that_cannot_move_blocks_the_drain_and_says_why_at_once() -> None:
    """LiveMigrate never shuts down."""
    fleet = Fleet()
    running_on(fleet, "v", "n1")
    report = structs.replace(fleet.qemus["n1", "uuid-v"], not_migratable="it has a host device")
    fleet.settle(fleet.reported("n1", report))
    fleet.settle(ev.DrainRequested(at=fleet.now, node="n1"))
    assert "it has a host device" in fleet.state.drains["n1"].blocked["v"]
    assert fleet.vm("v").phase is VmPhase.RUNNING


def test_a_vm_with_eviction_strategy_none_is_shut_down_and_started_elsewhere() -> None:
    """Evicted is not the guest's wish: Always starts again."""
    fleet = Fleet()
    for other in ("n2", "n3"):
        fleet.cordon(other)
    fleet.apply("v", VmSpec(eviction_strategy=EvictionStrategy.NONE))
    fleet.run(1)
    for other in ("n2", "n3"):
        fleet.cordon(other, on=False)
    fleet.settle(ev.DrainRequested(at=fleet.now, node="n1"))
    fleet.run(3)
    assert fleet.vm("v").owner != "n1"
    assert fleet.vm("v").run == 2
    assert issued(fleet, MigrateVm) == []


def test_a_drain_goes_on_over_a_restart_of_the_aggregator() -> None:
    """It is in the state, so it is in the journal."""
    fleet = Fleet()
    for name in ("a", "b", "c"):
        running_on(fleet, name, "n1")
    fleet.deaf.add("n1")
    fleet.settle(ev.DrainRequested(at=fleet.now, node="n1"))
    fleet.run(1)
    fleet.restart()
    fleet.deaf.clear()
    for name in ("n1", "n2", "n3"):
        fleet.connect(name)
    fleet.run_until(lambda: fleet.state.drains["n1"].state == "Done", 90)
    assert all(fleet.vm(n).run == 1 for n in "abc")


def test_a_cancelled_migration_that_has_not_begun_ends_at_once() -> None:
    """Queued behind the limits, called off: nothing was ever sent."""
    fleet = Fleet(config={"migration": {"clusterMax": 1}})
    for name in ("a", "b"):
        running_on(fleet, name, "n1")
    fleet.deaf.add("n1")
    for name in ("a", "b"):
        fleet.settle(ev.MigrationRequested(at=fleet.now, vm=name, target="n2"))
    fleet.settle(ev.MigrationCancelRequested(at=fleet.now, migration="mig-2"))
    fleet.run(1)
    assert fleet.state.migrations["mig-2"].phase is MigrationPhase.CANCELLED
    assert [b.node for b in fleet.vm("b").bindings] == ["n1"]


def test_a_vm_that_tolerates_maintenance_is_not_drained() -> None:
    """product.md, taints: it may be placed there, and it stays."""
    fleet = Fleet()
    tolerant = VmSpec(
        tolerations=(Toleration(key="virtward/maintenance", operator="Exists"),),
        node_selector={"virtward/hostname": "n1"},
    )
    fleet.apply("guard", tolerant)
    fleet.apply("v", VmSpec(node_selector={"virtward/hostname": "n1"}))
    fleet.run(2)
    fleet.apply("v")
    fleet.settle(ev.DrainRequested(at=fleet.now, node="n1"))
    fleet.run(20)
    assert fleet.state.drains["n1"].state == "Done"
    assert fleet.vm("guard").owner == "n1"
    assert fleet.vm("v").owner != "n1"
