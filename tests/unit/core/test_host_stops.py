"""A host that is shut down: emptied in time, its guests' ends no wish of theirs, and open again when it is back."""

from __future__ import annotations

from msgspec import structs

from aggregator.core import events as ev
from aggregator.core.events import RunOutcome, VmPhase
from aggregator.core.fold_moves import WHO_STOPS_HOSTS
from aggregator.core.objects import VmSpec
from fleet.model import EndReason, EvictionStrategy, OrderOutcome, RunStrategy
from tests.unit.core.fleet import Fleet


def running_on(node: str, *names: str, spec: VmSpec | None = None) -> Fleet:
    """A fleet whose VMs run on one node that they may leave."""
    fleet = Fleet()
    others = [name for name in fleet.state.nodes if name != node]
    for other in others:
        fleet.cordon(other)
    for name in names:
        fleet.apply(name, spec)
    fleet.run(2)
    for other in others:
        fleet.cordon(other, on=False)
    assert {fleet.vm(name).owner for name in names} == {node}
    return fleet


def says(fleet: Fleet, node: str, stopping_s: float) -> None:
    record = fleet.node(node)
    assert record.session is not None
    assert record.facts is not None
    facts = structs.replace(record.facts, stopping_s=stopping_s)
    fleet.settle(ev.VmsReported(at=fleet.now, node=node, session=record.session, generation=9, vms=(), facts=facts))


def test_a_host_that_is_shut_down_is_drained_and_takes_vms_again_when_it_is_back() -> None:
    fleet = running_on("n1", "a", "b")
    says(fleet, "n1", 300.0)
    drain = fleet.state.drains["n1"]
    assert (drain.who, drain.force, drain.deadline) == (WHO_STOPS_HOSTS, True, fleet.now + 300.0)
    fleet.run_until(lambda: not [vm for vm in ("a", "b") if fleet.vm(vm).owner == "n1"], 60)
    assert fleet.node("n1").drain == "n1"
    says(fleet, "n1", 0.0)
    fleet.run(2)
    assert (fleet.node("n1").drain, fleet.node("n1").host_stopping) == ("", False)


def test_a_vm_that_cannot_move_is_shut_down_and_started_elsewhere() -> None:
    fleet = running_on("n1", "a", spec=VmSpec(eviction_strategy=EvictionStrategy.NONE))
    says(fleet, "n1", 300.0)
    fleet.run_until(lambda: fleet.vm("a").phase is VmPhase.RUNNING and fleet.vm("a").owner != "n1", 60)


def test_a_guest_that_powers_off_with_its_host_was_evicted_whatever_it_looks_like() -> None:
    fleet = running_on("n1", "a", spec=VmSpec(run_strategy=RunStrategy.RERUN_ON_FAILURE))
    fleet.refuse_migrate = OrderOutcome.FAILED
    says(fleet, "n1", 300.0)
    assert fleet.vm("a").owner == "n1"
    fleet.ends("a", EndReason.POWEROFF)
    ended = [e for e in fleet.happened if isinstance(e, ev.RunEnded)]
    assert ended[-1].outcome is RunOutcome.EVICTED
    fleet.run_until(lambda: fleet.vm("a").phase is VmPhase.RUNNING and fleet.vm("a").owner != "n1", 60)


def test_a_drain_of_a_person_is_left_as_it_is() -> None:
    fleet = running_on("n1", "a")
    fleet.settle(ev.DrainRequested(at=fleet.now, node="n1", who="me"))
    says(fleet, "n1", 300.0)
    assert fleet.state.drains["n1"].who == "me"
    fleet.run(30)
    says(fleet, "n1", 0.0)
    fleet.run(2)
    assert fleet.node("n1").drain == "n1"


def test_it_is_begun_once() -> None:
    fleet = running_on("n1", "a")
    says(fleet, "n1", 300.0)
    fleet.settle(ev.DrainCancelled(at=fleet.now, node="n1", who="me"))
    says(fleet, "n1", 300.0)
    fleet.run(5)
    assert fleet.node("n1").drain == ""
