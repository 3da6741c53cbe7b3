"""A lost store: what agents keep makes the VMs known again, and nothing is done before all have spoken."""

from __future__ import annotations

from msgspec import structs

from aggregator.core import events as ev
from aggregator.core.actions import SendOrder
from aggregator.core.events import VmPhase
from aggregator.core.fold import fold
from aggregator.core.journal_form import encode_event
from aggregator.core.kept import pack, unpack
from aggregator.core.reconcile import unaccounted
from aggregator.core.state import State
from aggregator.core.welcome import members_of
from fleet.messages import KEPT_BYTES_MAX, KeptVm, SetIsolation
from fleet.model import Leadership, QemuState
from tests.unit.core.fleet import Fleet
from tests.unit.core.test_node_failure import fleet_with_vms
from tests.unit.core.test_reconcile import deeds as all_deeds

NODES = ("n1", "n2", "n3")


def deeds(fleet: Fleet) -> list[str]:
    """Return what was ordered or switched, but for what agents do without a lease: nobody knows what they were told."""
    return [each for each in all_deeds(fleet) if each != "SetIsolation"]


class Ledgers:
    """What the agents of a fleet keep; the aggregator's store is gone."""

    def __init__(self, fleet: Fleet, named: tuple[str, ...] = NODES) -> None:
        self.fleet = fleet
        self.members = members_of(fleet.state)
        self.kept: dict[str, list[KeptVm]] = {name: [] for name in NODES}
        for vm in fleet.state.vms.values():
            self.kept[vm.owner].append(KeptVm(vm.uuid, vm.name, vm.epoch, vm.run, pack(vm)))
        fleet.now += 60
        fleet.state, fleet.journal = State(), []
        begun = ev.RebuildBegun(at=fleet.now, members=named)
        fold(fleet.state, begun)
        fleet.journal.append(encode_event(begun))
        leader = Leadership(1_700_000_000, "i9", 1)
        fleet.settle(ev.AggregatorStarted(at=fleet.now, leader=leader, secret="s" * 32))
        fleet.actions.clear()

    def speak(self, *names: str) -> None:
        """Have agents come back and tell what they keep, one VM at a time."""
        for name in names:
            self.fleet.connect(name)
            session = self.fleet.node(name).session
            assert session is not None
            for vm in self.kept[name]:
                told = ev.VmsKeptTold(at=self.fleet.now, node=name, session=session, vms=(vm,), more=True)
                self.fleet.settle(told)
            self.fleet.settle(
                ev.VmsKeptTold(at=self.fleet.now, node=name, session=session, vms=(), members=self.members)
            )


def test_nothing_is_known_or_done_before_the_last_member_has_spoken_and_then_all_is_as_it_was() -> None:
    fleet = fleet_with_vms()
    before = {vm.name: (vm.owner, vm.epoch, vm.run, vm.spec, vm.disks) for vm in fleet.state.vms.values()}
    ledgers = Ledgers(fleet)
    ledgers.speak("n1", "n2")
    fleet.run(200)
    assert (fleet.state.vms, deeds(fleet), unaccounted(fleet.state)) == ({}, [], ["n3"])
    assert "n3" in fleet.state.incidents[fleet.state.store_incident].way_out
    ledgers.speak("n3")
    fleet.run(5)
    after = {vm.name: (vm.owner, vm.epoch, vm.run, vm.spec, vm.disks) for vm in fleet.state.vms.values()}
    assert after == before
    assert all(vm.phase is VmPhase.RUNNING for vm in fleet.state.vms.values())
    assert (fleet.state.behind, fleet.state.disarmed, deeds(fleet)) == ("", {}, [])
    assert fleet.replayed().vms.keys() == fleet.state.vms.keys()


def test_a_member_that_never_comes_back_is_vouched_for_by_name() -> None:
    """Its VMs are not known to anybody; those of the others are theirs again."""
    fleet = fleet_with_vms()
    lost = [vm.name for vm in fleet.state.vms.values() if vm.owner == "n3"]
    ledgers = Ledgers(fleet)
    ledgers.speak("n1", "n2")
    fleet.run(60)
    assert fleet.state.vms == {}
    fleet.settle(ev.OffConfirmed(at=fleet.now, name="n3", who="ops"))
    fleet.run(10)
    assert fleet.state.behind == ""
    assert sorted(fleet.state.vms) == sorted({"v1", "v2", "v3"} - set(lost))
    assert all(vm.phase is VmPhase.RUNNING for vm in fleet.state.vms.values())


def test_a_member_that_was_not_named_and_that_another_one_knows_is_waited_for() -> None:
    """Whoever began the rebuild forgot n3, where v1 runs; n1 kept it from before it failed over."""
    fleet = fleet_with_vms()
    assert members_of(fleet.state) == NODES
    ledgers = Ledgers(fleet, named=("n1", "n2"))
    assert members_of(fleet.state) == ()
    ledgers.speak("n1", "n2")
    fleet.run(60)
    assert (fleet.state.vms, unaccounted(fleet.state)) == ({}, ["n3"])
    ledgers.speak("n3")
    fleet.run(5)
    assert sorted(fleet.state.vms) == ["v1", "v2", "v3"]
    assert (fleet.state.behind, members_of(fleet.state)) == ("", NODES)


def test_a_vm_that_nobody_runs_waits_for_a_person_for_it_may_have_been_deleted() -> None:
    fleet = fleet_with_vms()
    owner = fleet.vm("v1").owner
    ledgers = Ledgers(fleet)
    report = fleet.qemus[owner, "uuid-v1"]
    fleet.qemus[owner, "uuid-v1"] = structs.replace(report, state=QemuState.GONE, released=True)
    ledgers.speak(*NODES)
    fleet.run(30)
    assert fleet.vm("v1").phase is not VmPhase.RUNNING
    assert deeds(fleet) == []
    fleet.settle(ev.Armed(at=fleet.now, vm="v1", who="ops"))
    fleet.run(10)
    assert fleet.vm("v1").phase is VmPhase.RUNNING
    assert fleet.vm("v1").epoch > report.epoch


def test_of_two_nodes_that_keep_a_vm_the_one_with_the_higher_epoch_counts() -> None:
    """n1 was away when v1 was moved and changed: what it keeps is old."""
    fleet = fleet_with_vms()
    vm = fleet.vm("v1")
    other = next(name for name in NODES if name != vm.owner)
    ledgers = Ledgers(fleet)
    old = structs.replace(vm, labels={"tier": "old"})
    ledgers.kept[other].append(KeptVm(vm.uuid, vm.name, vm.epoch - 1, vm.run, pack(old)))
    ledgers.speak(*NODES)
    fleet.run(5)
    assert (fleet.vm("v1").labels, fleet.vm("v1").owner) == (vm.labels, vm.owner)


def test_bytes_that_no_aggregator_packed_cost_that_vm_alone() -> None:
    fleet = fleet_with_vms()
    owner = fleet.vm("v1").owner
    ledgers = Ledgers(fleet)
    broken = [structs.replace(each, kept=each.kept[:-9]) for each in ledgers.kept[owner] if each.name == "v1"]
    ledgers.kept[owner] = broken + [each for each in ledgers.kept[owner] if each.name != "v1"]
    ledgers.speak(*NODES)
    fleet.run(5)
    assert sorted(fleet.state.vms) == ["v2", "v3"]
    assert any("v1 could not be read" in line.reason for line in fleet.state.history)


def test_a_changed_vm_is_given_to_keep_once() -> None:
    """Only the owner of the run is told, and the order says what the VM is now."""
    fleet = fleet_with_vms()
    fleet.actions.clear()
    fleet.apply("v1", tier="gold")
    fleet.run(5)
    orders = [a.order for a in fleet.actions if isinstance(a, SendOrder) and isinstance(a.order.body, SetIsolation)]
    assert [order.name for order in orders] == ["v1"]
    body = orders[0].body
    assert isinstance(body, SetIsolation)
    form = unpack(body.kept)
    assert form is not None
    assert (form.name, form.labels["tier"]) == ("v1", "gold")
    fleet.run(30)
    assert len([a for a in fleet.actions if isinstance(a, SendOrder)]) == 1


def test_what_does_not_fit_a_ledger_is_not_kept() -> None:
    fleet = fleet_with_vms(vms=1)
    vm = fleet.vm("v1")
    wide = structs.replace(vm, annotations={f"{n}": f"{n * 7919 % 1_000_003:x}" * 3 for n in range(3000)})
    assert 0 < len(pack(vm)) <= KEPT_BYTES_MAX
    assert pack(wide) == b""
