"""S8: which copy of a VM that runs twice is ended, and which is left to a person."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec import structs

from aggregator.core import events as ev
from aggregator.core.events import NodeState, VmPhase, VmVerb
from aggregator.core.explain import explain_vm
from aggregator.core.state import IncidentRecord
from fleet.messages import DestroyVm
from fleet.model import EndReason, LedgerState, QemuState
from tests.unit.core.fleet import Fleet
from tests.unit.core.test_node_failure import fleet_with_vms


def wrongly_confirmed() -> Fleet:
    """n1 hangs, a person says that it is off, and v1 runs elsewhere; n1's agent has not spoken since."""
    fleet = fleet_with_vms()
    fleet.silent.add("n1")
    fleet.heard["n1"] = False
    fleet.run_until(fleet.is_in("n1", NodeState.SUSPECT))
    fleet.settle(ev.OffConfirmed(at=fleet.now, name="n1", who="anna"))
    assert fleet.vm("v1").owner not in ("", "n1")
    fleet.run(5)
    return fleet


def returns(fleet: Fleet, **changes: object) -> None:
    """n1 goes on with the copy that it had, changed as the test says."""
    uuid = fleet.vm("v1").uuid
    fleet.qemus["n1", uuid] = structs.replace(fleet.qemus["n1", uuid], **changes)
    fleet.silent.discard("n1")
    fleet.connect("n1")


def destroyed(fleet: Fleet) -> list[tuple[str, int, int]]:
    """Return (node, epoch, run) of every destroy order of v1."""
    orders = [event for event in fleet.happened if isinstance(event, ev.OrderIssued) and event.vm == "v1"]
    return [(o.node, o.order.epoch, o.order.body.run) for o in orders if isinstance(o.order.body, DestroyVm)]


def incident(fleet: Fleet) -> IncidentRecord:
    """Return the newest incident about v1 alone."""
    return [i for i in fleet.state.incidents.values() if i.vm == "v1"][-1]


def test_the_older_copy_is_destroyed_by_its_own_epoch_and_run() -> None:
    """The owner's node shows its own copy, so the other one goes, in the name of the run that it is."""
    fleet = wrongly_confirmed()
    owner = fleet.vm("v1").owner
    returns(fleet)
    assert destroyed(fleet) == [("n1", 1, 1)]
    assert fleet.qemus[owner, fleet.vm("v1").uuid].state is QemuState.RUNNING
    assert [binding.node for binding in fleet.vm("v1").bindings] == [owner]
    assert fleet.node("n1").state is NodeState.FENCED  # it is left by another boot only


def test_the_incident_stays_until_somebody_restarts_the_guest() -> None:
    """Both wrote to its disk: that is not mended by ending one of them."""
    fleet = wrongly_confirmed()
    returns(fleet)
    fleet.run(600, 1)
    found = incident(fleet)
    assert not found.closed
    assert f"ran twice: on n1 and {fleet.vm('v1').owner}" in found.stuck
    assert "perhaps since" in found.stuck
    assert "check the guest's disk" in found.way_out
    assert found.stuck in explain_vm(fleet.state, fleet.vm("v1"), ()).text
    fleet.settle(ev.VmCommanded(at=fleet.now, name="v1", verb=VmVerb.RESTART))
    fleet.run(2)
    assert found.closed


def is_paused(fleet: Fleet) -> None:
    vm = fleet.vm("v1")
    report = structs.replace(fleet.qemus[vm.owner, vm.uuid], state=QemuState.PAUSED)
    fleet.settle(fleet.reported(vm.owner, report))


def is_silent(fleet: Fleet) -> None:
    fleet.silent.add(fleet.vm("v1").owner)
    fleet.run(4)


def is_disarmed(fleet: Fleet) -> None:
    fleet.settle(ev.Disarmed(at=fleet.now, vm="v1", who="anna"))


def doubts_itself(fleet: Fleet) -> None:
    fleet.settle(ev.SelfDoubted(at=fleet.now, kind="lag"))


def nothing(_fleet: Fleet) -> None:
    """All is as it is."""


def has_lost_its_ledger(fleet: Fleet) -> None:
    fleet.ledgers["n1"] = LedgerState.LOST


@pytest.mark.parametrize(
    ("before", "epoch", "words"),
    [
        (nothing, 2, "epoch 2, which is not lower than epoch 2"),
        (nothing, 3, "epoch 3, which is not lower than epoch 2"),
        (nothing, 0, "it has no epoch"),
        (is_disarmed, 1, "VM v1 is disarmed"),
        (doubts_itself, 1, "doubts itself"),
        (has_lost_its_ledger, 1, "has lost its ledger"),
    ],
)
def test_what_is_not_known_to_be_older_is_left_to_a_person(
    before: Callable[[Fleet], None], epoch: int, words: str
) -> None:
    fleet = wrongly_confirmed()
    before(fleet)
    returns(fleet, epoch=epoch)
    fleet.run(2)
    assert destroyed(fleet) == []
    assert words in incident(fleet).stuck
    assert "virsh destroy v1" in incident(fleet).way_out


@pytest.mark.parametrize("owner_does", [is_paused, is_silent])
def test_no_copy_is_ended_unless_the_owners_own_one_is_seen_running(owner_does: Callable[[Fleet], None]) -> None:
    fleet = wrongly_confirmed()
    owner_does(fleet)
    returns(fleet)
    fleet.run(3)
    assert destroyed(fleet) == []
    assert {binding.node for binding in fleet.vm("v1").bindings} == {"n1", fleet.vm("v1").owner}


def test_a_doubt_that_passes_lets_the_older_copy_be_ended() -> None:
    fleet = wrongly_confirmed()
    doubts_itself(fleet)
    returns(fleet)
    fleet.run(10)
    assert destroyed(fleet) == [("n1", 1, 1)]


def test_an_older_copy_that_is_paused_is_ended_too() -> None:
    """Nothing would ever release it, and whoever unpauses it breaks the disk."""
    fleet = wrongly_confirmed()
    returns(fleet, state=QemuState.PAUSED)
    assert destroyed(fleet) == [("n1", 1, 1)]


def test_it_is_said_once_while_it_lasts_and_again_when_it_comes_back() -> None:
    fleet = wrongly_confirmed()
    returns(fleet, epoch=2)
    fleet.run(30)
    returns(fleet, state=QemuState.GONE, released=True)
    fleet.run(5)
    returns(fleet, state=QemuState.RUNNING, released=False)
    said = [line for line in fleet.story() if line.startswith("SecondRun")]
    assert said == ["SecondRunSeen v1", "SecondRunEnded v1", "SecondRunSeen v1"]


def test_a_run_that_ended_beside_another_copy_is_not_shown_as_running() -> None:
    """The owner's own QEMU is gone; nobody knows what the copy elsewhere is, and v1 stays bound to it."""
    fleet = wrongly_confirmed()
    returns(fleet, epoch=2)
    owner = fleet.vm("v1").owner
    fleet.ends("v1", EndReason.CRASHED)
    vm = fleet.vm("v1")
    assert (vm.phase, vm.phase_reason) == (VmPhase.UNKNOWN, f"its run on {owner} has ended, and it may run on n1")
    assert not [event for event in fleet.happened if isinstance(event, ev.StartDecided) and event.run > 2]
