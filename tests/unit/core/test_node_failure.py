"""What becomes of a node that falls silent, and of its VMs: stories of the pure core."""

from __future__ import annotations

import pytest
from msgspec import structs

from aggregator.core import events as ev
from aggregator.core.draft import Draft
from aggregator.core.events import NodeState, PowerAnswer, ProofKind, VmPhase
from aggregator.core.explain import explain_node
from aggregator.core.nodes import silent_nodes
from aggregator.core.objects import NodeSpec
from aggregator.core.rest import refresh
from fleet.model import QemuState
from tests.unit.core.fleet import LABORATORY, Fleet


def fleet_with_vms(nodes: int = 3, vms: int = 3, config: dict[str, object] | None = None) -> Fleet:
    """Return a fleet that has run for ten seconds with its VMs spread over it."""
    fleet = Fleet(nodes, config)
    for number in range(1, vms + 1):
        fleet.apply(f"v{number}")
    fleet.run(10)
    assert all(vm.phase is VmPhase.RUNNING for vm in fleet.state.vms.values())
    return fleet


def test_a_node_whose_device_says_off_is_fenced_without_an_off_order() -> None:
    """Power lost, device alive: the answer is the proof, nothing is waited for but two readings."""
    fleet = fleet_with_vms()
    lost = fleet.vm("v1").owner
    fleet.kill_power(lost)
    fleet.run_until(fleet.is_in(lost, NodeState.FENCED), 8)
    assert fleet.node(lost).inert is not None
    assert fleet.asked("off") == []
    fleet.run(1)
    vm = fleet.vm("v1")
    assert (vm.owner != lost, vm.phase, vm.epoch, vm.run) == (True, VmPhase.RUNNING, 2, 2)
    assert "SecondRunSeen v1" not in fleet.story()


def test_a_node_found_off_is_never_powered_on_by_us() -> None:
    """Somebody switched it off; it stays so until somebody switches it on."""
    fleet = fleet_with_vms()
    fleet.kill_power("n1")
    fleet.run_until(fleet.is_in("n1", NodeState.FENCED))
    fleet.run(60)
    assert fleet.asked("on") == []


def test_a_hung_node_is_fenced_by_its_ladder_and_powered_on_once() -> None:
    """Device says on: silent on two planes for lostAfter, then off, proof, restart, and on again."""
    fleet = fleet_with_vms()
    lost = fleet.vm("v1").owner
    fleet.silent.add(lost)
    took = fleet.run_until(fleet.is_in(lost, NodeState.FENCED), 20)
    assert took >= 7
    assert fleet.asked("off") == [lost]
    fleet.run(5)
    assert fleet.vm("v1").owner != lost
    assert fleet.asked("on") == [lost]
    fleet.run(300)
    assert fleet.asked("on") == [lost]
    assert fleet.node(lost).state is NodeState.FENCED
    fleet.reboot(lost)
    assert fleet.node(lost).state is NodeState.UP
    assert fleet.vm("v1").owner != lost


def test_a_node_at_its_power_on_limit_stays_off_and_says_so() -> None:
    """What fails again and again is not powered on for ever; explain names the limit."""
    fleet = fleet_with_vms(config={**LABORATORY, "flap": {"powerOnPerDayMax": 0}})
    lost = fleet.vm("v1").owner
    fleet.silent.add(lost)
    fleet.run_until(fleet.is_in(lost, NodeState.FENCED), 20)
    fleet.run(30)
    assert fleet.asked("off") == [lost]
    assert fleet.asked("on") == []
    text = explain_node(fleet.state, fleet.node(lost), fleet.state.history).text
    assert "not powered on again by itself: it was powered on 0 times within a day" in text


def test_suspicion_is_free_and_reversible() -> None:
    """A beat after four seconds of silence undoes it all: no fence, no move, taint gone."""
    fleet = fleet_with_vms()
    fleet.silent.add("n2")
    fleet.run_until(fleet.is_in("n2", NodeState.SUSPECT))
    assert [t.key for t in fleet.node("n2").taints] == ["virtward/not-ready"]
    fleet.silent.discard("n2")
    fleet.run(2)
    assert fleet.node("n2").state is NodeState.UP
    assert fleet.node("n2").taints == ()
    assert fleet.asked("off") == []


def test_an_agent_that_is_gone_from_a_living_host_fences_nobody() -> None:
    """A peer gets answers: AgentLost. Its VMs run on and stay bound."""
    fleet = fleet_with_vms()
    fleet.silent.add("n1")
    fleet.answers_at["n1"] = ("libvirt",)
    fleet.run_until(fleet.is_in("n1", NodeState.AGENT_LOST), 12)
    fleet.run(120)
    assert fleet.node("n1").state is NodeState.AGENT_LOST
    assert fleet.asked("off") == []
    assert [b.node for b in fleet.vm("v1").bindings] == [fleet.vm("v1").owner]
    del fleet.answers_at["n1"]
    fleet.run_until(fleet.is_in("n1", NodeState.FENCED), 30)


def test_a_node_without_vms_that_would_move_is_never_shot() -> None:
    """Lost, but nobody would gain anything: it stays Lost."""
    fleet = fleet_with_vms(nodes=3, vms=0)
    fleet.silent.add("n1")
    fleet.run_until(fleet.is_in("n1", NodeState.LOST))
    fleet.run(60)
    assert fleet.asked("off") == []


@pytest.mark.parametrize("answer", [PowerAnswer.ERROR, PowerAnswer.TIMEOUT, PowerAnswer.MISSING])
def test_a_ladder_without_proof_keeps_the_vms_down_and_says_what_a_person_can_do(
    answer: PowerAnswer,
) -> None:
    """No proof, no start: two tries, then the incident names the way out, and it works."""
    fleet = fleet_with_vms()
    lost = fleet.vm("v1").owner
    fleet.silent.add(lost)
    fleet.off_answer[lost] = answer
    fleet.run_until(lambda: f"FenceFailed {lost}" in fleet.story(), 40)
    fleet.run(60)
    assert fleet.asked("off") == [lost, lost]
    assert fleet.vm("v1").owner == lost
    assert fleet.vm("v1").phase is VmPhase.UNKNOWN
    incident = fleet.state.incidents[fleet.node(lost).incident]
    assert f"virtward fence {lost} --confirm-off" in incident.way_out
    fleet.settle(ev.OffConfirmed(at=fleet.now, name=lost, who="anna"))
    fleet.run(2)
    inert = fleet.node(lost).inert
    assert inert is not None
    assert inert.proof is ProofKind.OPERATOR
    assert fleet.vm("v1").phase is VmPhase.RUNNING
    assert fleet.vm("v1").owner != lost


def test_a_device_that_says_off_about_a_living_node_is_not_believed_later() -> None:
    """Off while it beats: the wrong device. Its off proves nothing when the node falls silent."""
    fleet = fleet_with_vms()
    fleet.power["n1"] = PowerAnswer.OFF
    fleet.run(12)
    assert "not this node's device" in fleet.node("n1").readiness[0].problem
    fleet.silent.add("n1")
    fleet.run(60)
    assert fleet.node("n1").state is NodeState.LOST
    assert fleet.asked("off") == []


def test_a_readiness_check_that_meets_a_power_cut_does_not_spoil_the_device() -> None:
    """Asked in the three seconds before the silence shows, it says off, and that is true: the proof still counts."""
    for moment in (0.5, 1.5, 2.5, 3.5, 4.5):
        fleet = fleet_with_vms()
        fleet.run(moment)
        fleet.kill_power("n1")
        fleet.run_until(fleet.is_in("n1", NodeState.FENCED), 10)


def test_a_device_whose_address_is_not_the_nodes_own_is_not_ready() -> None:
    """Swapped entries are found by identity before anything dies."""
    fleet = fleet_with_vms()
    one, two = fleet.node("n1").spec, fleet.node("n2").spec
    for name, spec in (("n1", two), ("n2", one)):
        fleet.settle(ev.NodeApplied(at=fleet.now, name=name, labels={}, spec=spec))
    fleet.run(12)
    assert "the node's own controller" in fleet.node("n1").readiness[0].problem
    fleet.silent.add("n1")
    fleet.run(60)
    assert fleet.asked("off") == []
    assert fleet.node("n2").state is NodeState.UP


def test_two_of_three_silent_nodes_close_the_brake() -> None:
    """More than the brake lets through: nobody is convicted, one incident names them."""
    fleet = fleet_with_vms()
    fleet.silent |= {"n1", "n2"}
    fleet.run(60)
    assert {fleet.node(n).state for n in ("n1", "n2")} == {NodeState.SUSPECT}
    assert fleet.asked("off") == []
    assert any("mass outage" in i.title for i in fleet.state.incidents.values())
    fleet.silent.clear()
    fleet.run(5)
    assert {n.state for n in fleet.state.nodes.values()} == {NodeState.UP}


def test_a_device_that_says_already_off_passes_the_closed_brake() -> None:
    """Knowledge needs no brake: both are off, both are fenced, their VMs run on the third."""
    fleet = fleet_with_vms()
    fleet.kill_power("n1")
    fleet.kill_power("n2")
    fleet.run(15)
    assert {fleet.node(n).state for n in ("n1", "n2")} == {NodeState.FENCED}
    assert {vm.owner for vm in fleet.state.vms.values()} == {"n3"}


def test_a_restart_of_the_aggregator_makes_every_silence_start_again() -> None:
    """S7: nodes are Unseen, nobody is judged by time, and a living one is Up when it speaks."""
    fleet = fleet_with_vms(config={**LABORATORY, "unseenAtLeast": "30s"})
    fleet.silent |= {"n1", "n2", "n3"}
    fleet.now += 600
    fleet.restart()
    assert {n.state for n in fleet.state.nodes.values()} == {NodeState.UNSEEN}
    fleet.silent -= {"n2", "n3"}
    fleet.connect("n2")
    fleet.connect("n3")
    fleet.run(28)
    assert fleet.node("n1").state is NodeState.UNSEEN
    assert fleet.asked("off") == []
    fleet.run(20)
    assert fleet.node("n1").state is NodeState.FENCED


def test_a_fenced_node_stays_fenced_over_a_restart_until_another_boot_speaks() -> None:
    """That is evidence, not amnesia."""
    fleet = fleet_with_vms()
    fleet.kill_power("n1")
    fleet.run_until(fleet.is_in("n1", NodeState.FENCED))
    fleet.restart()
    assert fleet.node("n1").state is NodeState.FENCED
    fleet.connect("n2")
    fleet.connect("n3")
    fleet.reboot("n1")
    assert fleet.node("n1").state is NodeState.UP


def test_a_persons_cordon_survives_failure_and_return() -> None:
    """The system's taints come and go; spec.unschedulable is a person's."""
    fleet = fleet_with_vms()
    fleet.cordon("n1")
    fleet.kill_power("n1")
    fleet.run_until(fleet.is_in("n1", NodeState.FENCED))
    assert [(t.key, t.effect) for t in fleet.node("n1").taints] == [
        ("virtward/unreachable", "NoSchedule"),
        ("virtward/unreachable", "NoExecute"),
    ]
    fleet.reboot("n1")
    assert fleet.node("n1").taints == ()
    assert fleet.node("n1").spec.unschedulable


def test_nothing_new_is_placed_on_a_marked_node() -> None:
    """Suspect already keeps new VMs away."""
    fleet = Fleet(2)
    fleet.run(5)
    fleet.silent.add("n1")
    fleet.run_until(fleet.is_in("n1", NodeState.SUSPECT))
    for number in range(4):
        fleet.apply(f"w{number}")
    assert {fleet.vm(f"w{n}").owner for n in range(4)} == {"n2"}


def test_an_aggregator_that_doubts_itself_convicts_nobody_for_one_window() -> None:
    """S9: its own pause is not the nodes' silence."""
    fleet = fleet_with_vms()
    fleet.silent.add("n1")
    fleet.run(6)
    fleet.settle(ev.SelfDoubted(at=fleet.now, kind="lag", detail="0.9 s"))
    fleet.run(7)
    assert fleet.node("n1").state is NodeState.SUSPECT
    fleet.run_until(fleet.is_in("n1", NodeState.FENCED), 20)


def test_agents_that_gave_up_on_a_paused_aggregator_get_the_time_to_come_back() -> None:
    """They come back within the reconnect delay: nobody is suspected and the brake stays open."""
    fleet = fleet_with_vms()
    for name in ("n1", "n2"):
        session = fleet.node(name).session
        assert session is not None
        fleet.silent.add(name)
        fleet.settle(ev.SessionEnded(at=fleet.now, node=name, session=session, how="closed"))
    fleet.now += 20
    fleet.settle(ev.SelfDoubted(at=fleet.now, kind="lag", detail="the loop stood still for 20.0 s"))
    fleet.run(5)
    for name in ("n1", "n2"):
        fleet.silent.discard(name)
        fleet.connect(name)
    fleet.run(5)
    assert "NodeSuspect" not in " ".join(fleet.story())
    assert not fleet.state.brake_closed


def test_the_journal_alone_gives_the_same_state() -> None:
    """Replay is the state, but for what lives only as long as beats do."""
    fleet = fleet_with_vms()
    fleet.kill_power("n1")
    fleet.run(20)
    replayed = fleet.replayed()
    for name, node in fleet.state.nodes.items():
        replayed.nodes[name].last_sign = node.last_sign
    replayed.now = fleet.state.now
    assert replayed == fleet.state


def test_a_swapped_device_is_not_believed_when_another_node_falls_silent_after_our_off() -> None:
    """Our off killed somebody else: the reading does not count, nothing is started."""
    fleet = fleet_with_vms()
    operator = NodeSpec(fencing=tuple(structs.replace(r, identity="Operator") for r in fleet.node("n2").spec.fencing))
    fleet.settle(ev.NodeApplied(at=fleet.now, name="n1", labels={}, spec=operator))
    fleet.run(10)
    victim = fleet.vm("v1").owner
    assert victim == "n1"
    fleet.silent.add("n1")
    fleet.run_until(lambda: "n1" in fleet.asked("off"), 20)
    fleet.silent.add("n2")  # the device behind n1's entry is n2's
    fleet.run(30)
    assert fleet.vm("v1").owner == "n1"
    assert fleet.vm("v1").epoch == 1


def test_a_controller_that_another_node_finds_in_itself_proves_nothing_and_is_not_switched() -> None:
    """The devices of n1 and n2 are swapped as n1 is cut off: n1 cannot tell, n2 can, and is not shot for it."""
    fleet = fleet_with_vms()
    assert fleet.vm("v1").owner == "n1"
    fleet.silent.add("n1")
    node, own = fleet.node("n2"), fleet.node("n1").facts
    assert node.session is not None
    assert node.facts is not None
    assert own is not None
    swapped = structs.replace(node.facts, bmc=own.bmc)
    fleet.settle(
        ev.VmsReported(at=fleet.now, node="n2", session=node.session, generation=2, vms=(), facts=swapped),
    )
    fleet.run(1)
    fleet.silent.add("n2")
    fleet.power["n1"] = PowerAnswer.OFF  # which is n2's power, lost a moment later
    fleet.run(60)
    assert fleet.asked("off") == []
    assert fleet.vm("v1").owner == "n1"
    assert "n2 finds this controller in itself" in fleet.node("n1").readiness[0].problem


def test_an_incident_keeps_what_is_new_and_not_what_repeats() -> None:
    """Ten minutes of the same answers are one line each: what was decided is never pushed out."""
    fleet = fleet_with_vms()
    fleet.silent |= {"n1", "n2"}
    fleet.run(600)
    incident = fleet.state.incidents[fleet.node("n1").incident]
    kinds = [step.what for step in incident.steps]
    assert len(kinds) < 20
    assert {"IncidentOpened", "ProbeAnswered", "FenceAnswered", "IncidentNoted"} <= set(kinds)


def test_a_vm_seen_running_where_nobody_ordered_it_is_bound_there_too() -> None:
    """A report of a QEMU always makes a binding; two running copies are reported at once."""
    fleet = fleet_with_vms()
    vm = fleet.vm("v1")
    other = next(n for n in fleet.state.nodes if n != vm.owner)
    report = structs.replace(fleet.qemus[vm.owner, vm.uuid], state=QemuState.RUNNING, epoch=0)
    fleet.settle(fleet.reported(other, report))
    assert {b.node for b in vm.bindings} == {vm.owner, other}
    assert "SecondRunSeen v1" in [f"{line.kind} {line.vm}" for line in fleet.state.history]


def test_a_node_that_was_shot_while_it_beat_counts_for_the_whole_window() -> None:
    """It never fell silent, and the brake counts its off order all the same after it is back."""
    fleet = fleet_with_vms()
    fleet.node("n1").convicted_at = fleet.now
    fleet.state.derived.note_all()
    refresh(fleet.state)
    assert silent_nodes(Draft(fleet.state, fleet.now + 890)) == ["n1"]
    assert silent_nodes(Draft(fleet.state, fleet.now + 910)) == []
