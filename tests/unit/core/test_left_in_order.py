"""The brake and hosts that are shut down in order, one after the other: they are no failures, and hide none."""

from __future__ import annotations

import pytest
from msgspec import structs

from aggregator.core import events as ev
from aggregator.core.events import NodeState
from tests.unit.core.fleet import Fleet


def drained(*nodes: str) -> Fleet:
    """Three nodes; those named are emptied by a person, one after the other, and their hosts shut down."""
    fleet = Fleet()
    fleet.run(2)
    for node in nodes:
        fleet.settle(ev.DrainRequested(at=fleet.now, node=node, who="me"))
        fleet.run(5)
        ends(fleet, node, "goodbye")
        fleet.run_until(lambda node=node: fleet.node(node).state is not NodeState.UP)  # type: ignore[misc]
        fleet.run(2)
    return fleet


def ends(fleet: Fleet, node: str, how: str) -> None:
    fleet.silent.add(node)
    session = fleet.node(node).session
    assert session is not None
    fleet.settle(ev.SessionEnded(at=fleet.now, node=node, session=session, how=how, by_it=True))


def comes_back(fleet: Fleet, node: str) -> None:
    fleet.reboot(node)
    fleet.run(3)
    assert fleet.node(node).state is NodeState.UP
    fleet.settle(ev.DrainCancelled(at=fleet.now, node=node, who="me"))
    fleet.run(2)


def test_hosts_that_are_rebooted_one_after_the_other_are_no_mass_outage() -> None:
    fleet = drained("n1")
    fleet.run(120)  # long enough to be given up
    comes_back(fleet, "n1")
    fleet.settle(ev.DrainRequested(at=fleet.now, node="n2", who="me"))
    fleet.run(5)
    ends(fleet, "n2", "goodbye")
    fleet.run(120)
    assert not fleet.state.brake_closed
    comes_back(fleet, "n2")
    assert not [e for e in fleet.happened if isinstance(e, ev.BrakeChanged)]
    assert not [i for i in fleet.state.incidents.values() if not i.closed]


def test_a_host_that_fails_while_another_is_away_in_order_is_recovered() -> None:
    fleet = drained("n1")
    fleet.run(60)
    fleet.apply("a")
    fleet.run(3)
    lost = fleet.vm("a").owner
    assert lost in {"n2", "n3"}
    fleet.kill_power(lost)
    fleet.run_until(lambda: fleet.vm("a").owner not in {lost, ""}, 60)


@pytest.mark.parametrize("how", ["closed", "timeout", "reset"])
def test_one_that_falls_silent_in_maintenance_without_a_goodbye_counts(how: str) -> None:
    fleet = drained("n1")
    comes_back(fleet, "n1")
    for node in ("n1", "n2"):
        fleet.settle(ev.DrainRequested(at=fleet.now, node=node, who="me"))
        fleet.run(5)
        ends(fleet, node, how)
    fleet.run(10)
    assert fleet.state.brake_closed


def test_one_that_says_goodbye_and_was_not_in_maintenance_counts() -> None:
    fleet = Fleet()
    fleet.run(2)
    for node in ("n1", "n2"):
        ends(fleet, node, "goodbye")
    fleet.run(10)
    assert fleet.state.brake_closed


def test_one_that_goes_with_a_vm_bound_to_it_counts() -> None:
    fleet = Fleet()
    fleet.run(2)
    for node in ("n2", "n3"):
        fleet.cordon(node)
    fleet.apply("a")
    fleet.run(3)
    assert fleet.vm("a").owner == "n1"
    fleet.settle(ev.DrainRequested(at=fleet.now, node="n1", who="me"))
    ends(fleet, "n1", "goodbye")
    fleet.cut_off("n2")
    fleet.run(10)
    assert fleet.state.brake_closed


def test_what_is_known_of_it_survives_the_aggregator() -> None:
    fleet = drained("n1")
    before = fleet.node("n1")
    again = fleet.replayed().nodes["n1"]
    assert before.left_in_order
    assert structs.asdict(again)["left_in_order"]
