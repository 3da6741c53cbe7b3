"""Incidents about one VM: twice, paused between two nodes, unknown."""

from __future__ import annotations

from msgspec import structs

from aggregator.core import events as ev
from aggregator.core.events import MigrationPhase
from aggregator.core.state import IncidentRecord
from fleet.model import OrderOutcome, QemuState
from tests.unit.core.fleet import Fleet
from tests.unit.core.test_node_failure import fleet_with_vms


def of_vm(fleet: Fleet, name: str) -> IncidentRecord:
    """Return the newest incident about a VM alone."""
    return [i for i in fleet.state.incidents.values() if i.vm == name][-1]


def test_a_vm_that_runs_twice_is_an_incident_that_stays() -> None:
    """S1 is broken: who, where, and what to do at once; and when it is over, what to do about the disk."""
    fleet = fleet_with_vms()
    vm = fleet.vm("v1")
    report = fleet.qemus[vm.owner, vm.uuid]
    fleet.settle(fleet.reported("n3", report))
    incident = of_vm(fleet, "v1")
    assert "runs twice: on n1 and n3" in incident.title
    assert "virsh destroy v1" in incident.way_out
    fleet.settle(fleet.reported("n3", structs.replace(report, state=QemuState.GONE, released=True)))
    fleet.run(5)
    assert of_vm(fleet, "v1").name == incident.name
    assert not incident.closed
    assert "ran twice: on n1 and n3" in incident.stuck


def test_a_guest_that_stays_paused_at_its_hand_over_is_named_within_five_seconds() -> None:
    """The source is released, nobody resumes the copy: the incident says where and how."""
    fleet = fleet_with_vms()
    fleet.refuse_resume = OrderOutcome.FAILED
    fleet.settle(ev.MigrationRequested(at=fleet.now, vm="v1", target="n3"))
    fleet.run(2)
    assert fleet.state.migrations["mig-1"].phase is MigrationPhase.HANDING_OVER
    fleet.run(4)
    incident = of_vm(fleet, "v1")
    assert "has not resumed it" in incident.title
    assert "virsh resume v1" in incident.way_out
    fleet.refuse_resume = None
    fleet.run(10)
    assert of_vm(fleet, "v1").closed


def test_a_vm_nobody_can_tell_of_for_five_minutes_is_an_incident() -> None:
    """Its libvirt is silent and its node is Up: unknown does not stay unsaid."""
    fleet = fleet_with_vms()
    vm = fleet.vm("v1")
    report = structs.replace(fleet.qemus[vm.owner, vm.uuid], state=QemuState.UNKNOWN)
    fleet.settle(fleet.reported(vm.owner, report))
    fleet.run(290, 1)
    assert not [i for i in fleet.state.incidents.values() if i.vm == "v1"]
    fleet.run(20, 1)
    assert "nobody can tell" in of_vm(fleet, "v1").title
    assert "confirm-gone v1" in of_vm(fleet, "v1").way_out
