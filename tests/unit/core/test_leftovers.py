"""S8: a definition is undefined because its VM was deleted and its node knew it, never because it is unknown."""

from __future__ import annotations

import pytest
from msgspec import structs

from aggregator.core import events as ev
from aggregator.core.events import NodeState
from fleet.messages import UndefineVm
from fleet.model import OrderOutcome, QemuState, VmReport
from tests.unit.core.fleet import Fleet
from tests.unit.core.test_node_failure import fleet_with_vms

LEFT = VmReport("uuid-v1", "v1", QemuState.GONE, epoch=1, run=1, released=True, definition_hash="h")


def deleted_while_away(hash_: str = "h") -> Fleet:
    """n1 ran v1 and lost its power; v1 went on elsewhere and was deleted while n1 was off."""
    fleet = fleet_with_vms()
    fleet.settle(fleet.reported("n1", structs.replace(fleet.qemus["n1", "uuid-v1"], definition_hash=hash_)))
    fleet.kill_power("n1")
    fleet.run_until(fleet.is_in("n1", NodeState.FENCED))
    fleet.run(3)
    fleet.settle(ev.VmDeleteRequested(at=fleet.now, name="v1"))
    fleet.run(3)
    assert "v1" not in fleet.state.vms
    return fleet


def comes_back(fleet: Fleet, *reports: VmReport) -> None:
    """n1 boots and reports these."""
    fleet.reboot("n1", *reports)
    fleet.run(1)


def undefined(fleet: Fleet) -> list[tuple[str, str]]:
    """Return (node, uuid) of the orders to undefine that speak of no known VM."""
    orders = [event for event in fleet.happened if isinstance(event, ev.OrderIssued) and not event.vm]
    return [(o.node, o.order.uuid) for o in orders if isinstance(o.order.body, UndefineVm)]


def test_what_a_node_that_was_away_still_defines_is_undefined_when_it_returns() -> None:
    fleet = deleted_while_away()
    comes_back(fleet, LEFT)
    assert undefined(fleet) == [("n1", "uuid-v1")]
    assert fleet.state.leftovers == {}
    assert fleet.state.orders == {}
    fleet.connect("n1")  # the journal says that it is done, whatever is defined there by then
    assert len(undefined(fleet)) == 1


@pytest.mark.parametrize(
    "report",
    [
        structs.replace(LEFT, uuid="uuid-of-nobody"),
        structs.replace(LEFT, state=QemuState.RUNNING, released=False),
        structs.replace(LEFT, state=QemuState.UNKNOWN, released=False),
        structs.replace(LEFT, epoch=9),  # a later one than that of the VM that was deleted
        structs.replace(LEFT, definition_hash=""),
    ],
)
def test_nothing_else_is_undefined(report: VmReport) -> None:
    """Unknown, running, of another epoch, or not defined at all."""
    fleet = deleted_while_away()
    comes_back(fleet, report)
    fleet.run(10)
    assert undefined(fleet) == []


def test_a_definition_that_the_node_never_had_is_none_of_ours() -> None:
    """Somebody defined it by hand after it was deleted: the journal does not say that this node knew it."""
    fleet = deleted_while_away(hash_="")
    comes_back(fleet, LEFT)
    assert undefined(fleet) == []


def test_a_vm_that_is_applied_again_keeps_its_definition() -> None:
    fleet = deleted_while_away()
    fleet.apply("v1")
    assert fleet.state.leftovers == {}
    assert fleet.vm("v1").epoch > 2  # and continues the epochs of the one before


def test_a_disarmed_node_keeps_it_until_it_is_armed() -> None:
    fleet = deleted_while_away()
    fleet.settle(ev.Disarmed(at=fleet.now, node="n1"))
    comes_back(fleet, LEFT)
    assert undefined(fleet) == []
    fleet.settle(ev.Armed(at=fleet.now, node="n1"))
    assert len(undefined(fleet)) == 1


def test_it_survives_the_aggregator_and_its_journal() -> None:
    fleet = deleted_while_away()
    fleet.restart()
    fleet.run(6)
    comes_back(fleet, LEFT)
    assert undefined(fleet) == [("n1", "uuid-v1")]


def test_a_node_that_would_not_undefine_a_deleted_vm_does_not_keep_the_name_from_being_free() -> None:
    """It is told once while the VM is deleted, and again later."""
    fleet = fleet_with_vms()
    fleet.settle(fleet.reported("n1", structs.replace(fleet.qemus["n1", "uuid-v1"], definition_hash="h")))
    fleet.refuse_undefine = OrderOutcome.FAILED
    fleet.settle(ev.VmDeleteRequested(at=fleet.now, name="v1"))
    fleet.run(10)
    assert "v1" not in fleet.state.vms
    assert len(fleet.state.leftovers) == 1
