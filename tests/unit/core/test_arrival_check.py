"""The target of a migration is asked once more beside the order to accept the copy."""

from __future__ import annotations

import pytest
from msgspec import structs

from aggregator.core import events as ev
from aggregator.core.actions import SendArrivalCheck
from aggregator.core.arrival_check import ANSWER_S_MAX, FINDINGS_MAX, MESSAGE_CHARACTERS_MAX, arrival_checked
from aggregator.core.events import MigrationPhase, VmPhase
from fleet.messages import DiscardIncoming, MigrateVm, MoveChecked
from fleet.model import Definition, Disk, Finding
from tests.unit.core.fleet import LABORATORY, Fleet
from tests.unit.core.test_moves import issued, running_on

DISK = Disk("vda", "nfs://san/vol/v", shared=True)


def moving(config: dict[str, object] | None = None, protocol: int | None = None) -> Fleet:
    """Return a fleet in which v, whose definition is known, has just been told to move from n1 to n2."""
    fleet = Fleet(config=config)
    running_on(fleet, "v", "n1")
    session = fleet.node("n1").session
    assert session is not None
    known = Definition("uuid-v", "v", "<domain/>", "hash", (DISK,))
    fleet.settle(
        ev.VmsReported(at=fleet.now, node="n1", session=session, generation=2, vms=(), definitions=(known,)),
    )
    if protocol is not None:
        fleet.node("n2").protocol = protocol
    fleet.settle(ev.MigrationRequested(at=fleet.now, vm="v", target="n2"))
    return fleet


def answered(fleet: Fleet, *findings: Finding, node: str = "n2") -> None:
    fleet.settle(arrival_checked(MoveChecked("mig-1", findings), node, fleet.now))


def no(check: str) -> Finding:
    return Finding(check, ok=False, message="it is not here")


def questions(fleet: Fleet) -> list[SendArrivalCheck]:
    return [action for action in fleet.actions if isinstance(action, SendArrivalCheck)]


def test_nothing_is_copied_before_the_target_has_answered() -> None:
    fleet = moving()
    (asked,) = questions(fleet)
    assert (asked.node, asked.question.check_id, asked.question.disks) == ("n2", "mig-1", (DISK,))
    fleet.run(1)
    assert issued(fleet, MigrateVm) == []
    answered(fleet, Finding("Storage", ok=True))
    assert issued(fleet, MigrateVm) == ["n1"]
    fleet.run(1)
    assert fleet.vm("v").owner == "n2"


def test_a_target_that_refuses_ends_the_move_before_it_has_begun() -> None:
    fleet = moving()
    answered(fleet, Finding("Ports", ok=True), no("Storage"))
    fleet.run(1)
    migration = fleet.state.migrations["mig-1"]
    assert (migration.phase, migration.reason) == (MigrationPhase.FAILED, "n2 refuses it: Storage: it is not here")
    assert (issued(fleet, MigrateVm), issued(fleet, DiscardIncoming)) == ([], ["n2"])
    vm = fleet.vm("v")
    assert (vm.owner, vm.phase, vm.migration, [b.node for b in vm.bindings]) == ("n1", VmPhase.RUNNING, "", ["n1"])


def test_no_answer_is_no_refusal() -> None:
    fleet = moving()
    fleet.run(ANSWER_S_MAX - 0.5)
    assert issued(fleet, MigrateVm) == []
    fleet.run(1)
    assert issued(fleet, MigrateVm) == ["n1"]


def test_a_restart_while_the_answer_is_awaited_leaves_nothing_behind() -> None:
    fleet = moving()
    fleet.restart()
    for name in ("n1", "n2", "n3"):
        fleet.connect(name)
    fleet.run_until(lambda: fleet.vm("v").migration == "", 30)
    vm = fleet.vm("v")
    assert (vm.run, vm.phase, [b.node for b in vm.bindings]) == (1, VmPhase.RUNNING, [vm.owner])


def test_only_the_target_is_believed() -> None:
    fleet = moving()
    answered(fleet, no("Storage"), node="n3")
    answered(fleet)
    assert issued(fleet, MigrateVm) == ["n1"]


def test_an_agent_that_does_not_know_the_question_is_not_asked() -> None:
    fleet = moving(protocol=1)
    assert questions(fleet) == []
    assert issued(fleet, MigrateVm) == ["n1"]


@pytest.mark.parametrize(
    ("check", "overcommit", "begins"),
    [("Memory", 1.0, False), ("Memory", 1.5, True), ("Libvirt", 1.0, True), ("Ports", 1.5, False)],
)
def test_what_is_meant_to_be_short_or_only_silent_refuses_nothing(
    check: str, overcommit: float, *, begins: bool
) -> None:
    fleet = moving({**LABORATORY, "overcommit": {"memory": overcommit}})
    answered(fleet, no(check))
    assert bool(issued(fleet, MigrateVm)) is begins


def test_what_an_agent_says_is_journalled_in_bounds() -> None:
    long = structs.replace(no("Storage"), message="x" * 9999)
    fact = arrival_checked(MoveChecked("mig-1", (long,) * 999), "n2", 1.0)
    assert len(fact.findings) == FINDINGS_MAX
    assert len(fact.findings[0].message) == MESSAGE_CHARACTERS_MAX
