"""An aggregator whose store was rolled back: it listens until everybody has spoken."""

from __future__ import annotations

from msgspec import structs

from aggregator.core import events as ev
from aggregator.core.actions import SendOrder
from aggregator.core.events import NodeState, VmPhase
from aggregator.core.reconcile import unaccounted
from fleet.messages import OrderInHand
from fleet.model import Leadership, QemuState, VmReport
from tests.unit.core.fleet import Fleet
from tests.unit.core.test_node_failure import fleet_with_vms


def rolled_back() -> Fleet:
    """Return a fleet that moved v1 to n3 at epoch 4, and lost all that when its store went back."""
    fleet = fleet_with_vms()
    kept = list(fleet.journal)
    owner = fleet.vm("v1").owner
    assert owner == "n1"
    report = fleet.qemus["n1", "uuid-v1"]
    fleet.qemus["n1", "uuid-v1"] = structs.replace(report, state=QemuState.GONE, released=True)
    fleet.qemus["n3", "uuid-v1"] = structs.replace(report, epoch=4, run=2)
    lost = Leadership(1, "i1", fleet.state.position + 500)
    fleet.highest = {"n1": lost, "n2": lost, "n3": lost}
    fleet.now += 60
    fleet.journal = kept
    fleet.restart()
    fleet.actions.clear()
    return fleet


def deeds(fleet: Fleet) -> list[str]:
    """Return what was ordered or switched."""
    orders = [type(a.order.body).__name__ for a in fleet.actions if isinstance(a, SendOrder)]
    return orders + fleet.asked("off") + fleet.asked("on")


def test_a_rolled_back_store_starts_and_fences_nobody_until_every_member_has_reported() -> None:
    """n1 says v1 is gone there; who else holds it is known only when n3 has spoken, at the highest epoch."""
    fleet = rolled_back()
    fleet.silent.add("n3")
    for name in ("n1", "n2"):
        fleet.connect(name)
    fleet.apply("new")
    fleet.run(200)
    assert deeds(fleet) == []
    assert fleet.node("n3").state is NodeState.UNSEEN
    incident = fleet.state.incidents[fleet.state.store_incident]
    assert "n3" in incident.stuck
    assert "--confirm-off" in incident.way_out
    fleet.silent.discard("n3")
    fleet.connect("n3")
    fleet.run(5)
    vm = fleet.vm("v1")
    assert (vm.owner, vm.epoch, vm.run, vm.phase) == ("n3", 4, 2, VmPhase.RUNNING)
    assert fleet.vm("new").phase is VmPhase.RUNNING
    assert fleet.state.behind == ""
    assert incident.closed or fleet.state.incidents[incident.name].closed


def test_a_store_with_another_mark_is_behind_before_any_agent_has_said_so() -> None:
    """The only node that obeyed what was lost may be the last to speak; what was started there runs."""
    fleet = fleet_with_vms()
    for mark, lost_events, behind in (("a", 0, False), ("a", 0, False), ("b", 0, True), ("b", 7, True)):
        fleet.state.behind = ""
        leader = Leadership(2, f"i{fleet.state.position}", fleet.state.position)
        fleet.settle(ev.AggregatorStarted(at=fleet.now, leader=leader, store_mark=mark, lost_events=lost_events))
        assert bool(fleet.state.behind) is behind
    assert fleet.state.store_incident


def test_epochs_go_on_well_above_what_was_told_for_who_is_off_cannot_tell() -> None:
    """n3 may have obeyed an epoch that no other node knows of, and is proven off (made-up story 1868)."""
    fleet = rolled_back()
    fleet.silent.add("n3")
    for name in ("n1", "n2"):
        fleet.connect(name)
    fleet.run(5)
    fleet.settle(ev.OffConfirmed(at=fleet.now, name="n3", who="anna"))
    fleet.run(5)
    assert fleet.state.behind == ""
    assert fleet.vm("v1").epoch > 1000


def test_the_orders_that_follow_are_above_every_term_that_was_obeyed() -> None:
    """Else no agent would take them: the term rises above the highest one that was met."""
    fleet = rolled_back()
    fleet.highest = {name: Leadership(7, "other", 3) for name in ("n1", "n2", "n3")}
    for name in ("n1", "n2", "n3"):
        fleet.connect(name)
    fleet.apply("new")
    fleet.run(5)
    terms = [a.order.leader.term for a in fleet.actions if isinstance(a, SendOrder)]
    assert terms
    assert min(terms) == 8


def test_a_person_ends_it_by_the_name_of_the_node_that_will_not_come_back() -> None:
    """confirm-off stands for its report; then its VMs are started elsewhere."""
    fleet = rolled_back()
    fleet.silent.add("n2")
    for name in ("n1", "n3"):
        fleet.connect(name)
    fleet.run(30)
    assert deeds(fleet) == []
    fleet.settle(ev.OffConfirmed(at=fleet.now, name="n2", who="anna"))
    fleet.run(5)
    assert fleet.state.behind == ""
    assert all(vm.phase is VmPhase.RUNNING for vm in fleet.state.vms.values())


def test_it_stays_reconcile_only_over_another_restart() -> None:
    """The flag is in the journal: a new life has to hear everybody again."""
    fleet = rolled_back()
    fleet.connect("n1")
    assert fleet.state.behind
    fleet.highest.clear()
    fleet.restart()
    fleet.connect("n1")
    fleet.connect("n2")
    fleet.run(30)
    assert fleet.state.behind
    assert deeds(fleet) == []


def test_numbers_and_epochs_that_were_lost_are_not_given_out_again() -> None:
    """Agents remember orders by their ids, and obey no epoch below the one they know."""
    fleet = rolled_back()
    for name in ("n1", "n2", "n3"):
        fleet.connect(name)
    fleet.apply("new")
    fleet.run(5)
    orders = [a.order for a in fleet.actions if isinstance(a, SendOrder)]
    assert orders
    assert min(int(order.order_id.removeprefix("ord-")) for order in orders) > 500


def test_an_order_in_hand_that_the_store_has_lost_is_waited_for() -> None:
    """It may yet start v1 on n2, which reports no QEMU of it now (made-up story 29, when orders hung at the moment)."""
    fleet = rolled_back()
    for name in ("n1", "n2", "n3"):
        fleet.connect(name)
    node = fleet.node("n2")
    node.in_hand = (OrderInHand("ord-9", "uuid-v1", 5, "start"),)
    assert unaccounted(fleet.state) == ["n2"]
    node.in_hand = ()
    assert unaccounted(fleet.state) == []


def test_a_lost_tenure_is_known_by_its_instance_however_long_ago_it_was() -> None:
    """n1 was away for two whole lives, whose journal is longer by now than what n1 has obeyed."""
    fleet = fleet_with_vms()
    lost = Leadership(1, "lost", 2)
    for number in (2, 3):
        fleet.state = fleet.replayed()
        leader = Leadership(number, f"i{number}", fleet.state.position)
        fleet.settle(ev.AggregatorStarted(at=fleet.now, leader=leader))
    fleet.highest = {"n1": Leadership(2, "i2", fleet.state.position - 1)}
    fleet.connect("n1")
    assert fleet.state.behind == ""
    fleet.highest = {"n1": lost}
    fleet.connect("n1")
    assert fleet.state.behind
    assert fleet.state.leader.term == 3


def test_the_leadership_of_the_last_life_is_not_higher() -> None:
    """A plain restart over a whole journal: agents obeyed what is in it."""
    fleet = fleet_with_vms()
    before = Leadership(1, "i1", fleet.state.position)
    fleet.highest = dict.fromkeys(("n1", "n2", "n3"), before)
    fleet.restart()
    for name in ("n1", "n2", "n3"):
        fleet.connect(name)
    assert fleet.state.behind == ""
    assert isinstance(fleet.qemus["n1", "uuid-v1"], VmReport)


def test_a_store_restored_twice_gives_out_nothing_that_was_given_in_between() -> None:
    """What was skipped after the first time is forgotten by the second: only what rises by itself is above it."""
    first = rolled_back()
    for name in ("n1", "n2", "n3"):
        first.connect(name)
    first.run(5)
    given = first.vm("v1").epoch_top
    numbered = dict(first.state.counters)
    again = rolled_back()
    again.highest = {}  # nobody who heard of the first restoring is left to tell
    again.now = first.now + 1
    again.settle(ev.AggregatorStarted(at=again.now, leader=Leadership(2, "i9", 0), store_mark="another", lost_events=1))
    for name in ("n1", "n2", "n3"):
        again.connect(name)
    again.run(5)
    assert not again.state.behind
    assert again.vm("v1").epoch_top > given
    assert all(again.state.counters[kind] > numbered[kind] for kind in ("ord", "mig", "inc"))
