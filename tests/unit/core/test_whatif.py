"""What would become of VMs if nodes were lost, and which losses the fleet could not bear; the state stays as it is."""

from __future__ import annotations

from aggregator.core import events as ev
from aggregator.core.journal_form import encode_state
from aggregator.core.objects import Affinity, LabelSelector, VmAffinity, VmAffinityTerm, VmSpec
from aggregator.core.whatif import answer, answer_all, ask, ask_all
from fleet.model import RunStrategy
from tests.unit.core.fleet import Fleet
from tests.unit.core.test_node_failure import fleet_with_vms

APART = Affinity(
    vm_anti_affinity=VmAffinity(
        required=(
            VmAffinityTerm(topology_key="virtward/hostname", label_selector=LabelSelector(match_labels={"app": "web"})),
        )
    )
)


def always(**changes: object) -> VmSpec:
    return VmSpec(run_strategy=RunStrategy.ALWAYS, **changes)  # type: ignore[arg-type]


def test_what_really_happens_is_what_was_foretold() -> None:
    """The same batch, the same rules: only a little later."""
    fleet = fleet_with_vms()
    before = encode_state(fleet.state)
    found = answer(ask(fleet.state, ["n1"]))
    assert encode_state(fleet.state) == before
    foretold = {fate.vm: fate.node for fate in found.vms}
    assert foretold
    assert {fate.lost_on for fate in found.vms} == {"n1"}
    fleet.kill_power("n1")
    fleet.run(30)
    assert {name: fleet.vm(name).owner for name in foretold} == foretold


def test_a_vm_whose_strategy_keeps_it_down_is_named_with_the_reason() -> None:
    fleet = Fleet()
    fleet.apply("v", VmSpec(run_strategy=RunStrategy.MANUAL))
    fleet.run(2)
    assert not fleet.vm("v").run_open
    fleet.apply("w", always())
    fleet.run(2)
    owner = fleet.vm("w").owner
    fleet.apply("w", VmSpec(run_strategy=RunStrategy.MANUAL))
    (fate,) = answer(ask(fleet.state, [owner])).vms
    assert (fate.vm, fate.node) == ("w", None)
    assert "runStrategy Manual" in fate.why


def test_a_vm_that_no_other_node_takes_is_named_with_the_rules_and_how_many_nodes_each_turns_away() -> None:
    fleet = Fleet()
    for name in ("a", "b", "c"):
        fleet.apply(name, always(affinity=APART), app="web")
    fleet.run(3)
    lost_on = fleet.vm("a").owner
    found = answer(ask(fleet.state, [lost_on]))
    (fate,) = found.vms
    assert fate.node is None
    assert fate.why == "no node takes it (VMAffinity on 2)"
    assert lost_on not in fate.rejected
    report = answer_all(ask_all(fleet.state, fleet.now))
    assert {part.name for part in report.uncovered} == {"n1", "n2", "n3"}


def test_room_is_counted_for_all_of_them_together() -> None:
    """Three VMs of six tenths of a node: two of them never share one."""
    fleet = Fleet()
    whole = fleet.node("n1").facts
    assert whole is not None
    for name in ("a", "b", "c"):
        fleet.apply(name, VmSpec(run_strategy=RunStrategy.HALTED))
        fleet.vm(name).cpu_m = whole.cpu_m * 6 // 10
        fleet.vm(name).spec = always()
        fleet.settle(ev.VmCommanded(at=fleet.now, name=name, verb=ev.VmVerb.START))
        fleet.run(3)
    report = answer_all(ask_all(fleet.state, fleet.now))
    assert all(len(part.unplaced) == 1 for part in report.parts if part.kind == "node")


def test_racks_and_zones_are_parts_too() -> None:
    fleet = Fleet(4)
    for name, rack in (("n1", "r1"), ("n2", "r1"), ("n3", "r2"), ("n4", "r2")):
        fleet.node(name).labels["virtward/rack"] = rack
    fleet.apply("v", always())
    fleet.run(3)
    report = answer_all(ask_all(fleet.state, fleet.now))
    kinds = [(part.kind, part.name, part.nodes) for part in report.parts if part.kind != "node"]
    assert kinds == [("rack", "r1", 2), ("rack", "r2", 2)]
    assert report.uncovered == []


def test_more_nodes_than_the_brake_lets_through_are_said_to_wait() -> None:
    fleet = fleet_with_vms()
    assert answer(ask(fleet.state, ["n1"])).brake == ""
    assert "more than the brake lets through (1)" in answer(ask(fleet.state, ["n1", "n2"])).brake


def test_a_node_that_cannot_be_fenced_takes_a_person() -> None:
    fleet = fleet_with_vms()
    fleet.node("n1").readiness.clear()
    assert all("once a person confirms that n1 is off" in fate.note for fate in answer(ask(fleet.state, ["n1"])).vms)
