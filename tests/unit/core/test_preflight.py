"""What is known of a move before it is made."""

from __future__ import annotations

from msgspec import structs

from aggregator.core import events as ev
from aggregator.core.preflight import MigrationCheck, departure_question, migration_check, way_check
from fleet.messages import MoveChecked
from fleet.model import Finding
from tests.unit.core.fleet import Fleet
from tests.unit.core.test_moves import running_on

FINE = MoveChecked("", (Finding("Ports", ok=True, message="64 of 64 ports are free"),))


def checked(
    fleet: Fleet, target: str, arrival: MoveChecked | None = FINE, departure: MoveChecked | None = FINE
) -> MigrationCheck:
    return migration_check(fleet.state, fleet.vm("v"), target, arrival, departure)


def said(found: MigrationCheck) -> dict[str, str]:
    return {check.name: check.status for check in found.checks}


def has_qemu(fleet: Fleet, name: str, version: str) -> None:
    """A node's agent tells the version of its QEMU."""
    node = fleet.node(name)
    assert node.facts is not None
    assert node.session is not None
    facts = structs.replace(node.facts, versions={"qemu": version})
    fleet.settle(ev.VmsReported(at=fleet.now, node=name, session=node.session, generation=2, vms=(), facts=facts))


def test_a_move_that_nothing_stands_against_is_possible() -> None:
    fleet = Fleet()
    running_on(fleet, "v", "n1")
    has_qemu(fleet, "n1", "7.2.22")
    has_qemu(fleet, "n2", "7.2.9")
    found = checked(fleet, "n2")
    assert found.possible
    assert set(said(found).values()) == {"True"}
    assert {"LiveMigratable", "NodeReady", "Placement", "QEMUVersion", "Ports"} <= said(found).keys()


def test_each_end_may_say_no_and_the_check_names_who() -> None:
    fleet = Fleet()
    running_on(fleet, "v", "n1")
    bad = MoveChecked("", (Finding("Ports", ok=False, message="0 of 64 ports are free"),))
    found = checked(fleet, "n2", arrival=bad)
    assert not found.possible
    assert [c.message for c in found.checks if c.status == "False"] == ["n2: 0 of 64 ports are free"]
    assert not checked(fleet, "n2", departure=bad).possible


def test_an_end_that_does_not_answer_is_unknown_and_no_refusal() -> None:
    fleet = Fleet()
    running_on(fleet, "v", "n1")
    found = checked(fleet, "n2", arrival=None)
    assert found.possible
    assert said(found)["Agent"] == "Unknown"


def test_an_older_qemu_at_the_target_stands_against_it() -> None:
    fleet = Fleet()
    running_on(fleet, "v", "n1")
    has_qemu(fleet, "n1", "8.0.0")
    has_qemu(fleet, "n2", "7.2.22")
    assert said(checked(fleet, "n2"))["QEMUVersion"] == "False"
    has_qemu(fleet, "n2", "10.0.1")
    assert said(checked(fleet, "n2"))["QEMUVersion"] == "True"


def test_rules_nodes_and_the_vm_itself_are_asked() -> None:
    fleet = Fleet()
    running_on(fleet, "v", "n1")
    assert said(checked(fleet, "n1"))["Placement"] == "False"
    fleet.cordon("n2")
    assert "NodeUnschedulable" in next(c.message for c in checked(fleet, "n2").checks if c.name == "Placement")
    report = fleet.vm("v").reports["n1"].report
    fleet.settle(fleet.reported("n1", structs.replace(report, not_migratable="it has a host device")))
    assert said(checked(fleet, "n3"))["LiveMigratable"] == "False"
    fleet.cordon("n3")
    nowhere = checked(fleet, "")
    assert sorted(c.message.partition(":")[0] for c in nowhere.checks if c.name == "Placement") == ["n1", "n2", "n3"]


def test_the_forecast_takes_the_narrower_end_and_what_was_measured() -> None:
    fleet = Fleet()
    running_on(fleet, "v", "n1")
    told = structs.replace(FINE, dirty_bytes_per_s=1 << 20, link_bytes_per_s=1 << 30)
    found = checked(fleet, "n2", departure=told).forecast
    assert found is not None
    assert (found.dirty_bytes_per_s, found.rate_bytes_per_s) == (1 << 20, 1 << 30)
    spec = structs.replace(fleet.node("n2").spec, migration_bandwidth="100Mi")
    fleet.settle(ev.NodeApplied(at=fleet.now, name="n2", labels={}, spec=spec))
    found = checked(fleet, "n2", departure=told).forecast
    assert found is not None
    assert found.rate_bytes_per_s == 100 << 20


def test_the_way_between_two_nodes_is_checked_without_a_vm() -> None:
    fleet = Fleet()
    question = departure_question(None, fleet.node("n2"))
    assert (question.uuid, question.measure_s, question.migration_address) == ("", 0, "10.2.0.2")
    assert way_check(fleet.state, fleet.node("n1"), fleet.node("n2"), FINE, FINE).possible
    fleet.silent.add("n2")
    fleet.run(5)
    assert not way_check(fleet.state, fleet.node("n1"), fleet.node("n2"), None, FINE).possible
