"""What a new life of the aggregator may believe of the last one's journal: stories of the pure core."""

from __future__ import annotations

import pytest

from aggregator.core import events as ev
from aggregator.core.actions import AskFence
from aggregator.core.events import MigrationPhase, NodeState, PowerAnswer
from aggregator.core.history import kind_of
from aggregator.core.journal_form import decode_event
from fleet.model import Leadership
from tests.unit.core.fleet import LABORATORY, Fleet
from tests.unit.core.test_node_failure import fleet_with_vms


def hung_and_killed_at(node: str, state: NodeState) -> Fleet:
    """Bring a hung node into a state, its device saying on, and kill the aggregator there for ten minutes."""
    fleet = fleet_with_vms(config={**LABORATORY, "brake": {"offOrdersPerHourMax": 10}})
    fleet.silent.add(node)
    if state is NodeState.FENCING:
        fleet.hanging.add(node)
    else:
        fleet.off_answer[node] = PowerAnswer.ERROR
        fleet.run_until(lambda: f"FenceFailed {node}" in fleet.story(), 60)
    fleet.run_until(fleet.is_in(node, state), 60)
    fleet.actions.clear()
    fleet.hanging.clear()
    fleet.now += 600
    fleet.restart()
    return fleet


@pytest.mark.parametrize("state", [NodeState.FENCING, NodeState.LOST])
def test_a_restarted_aggregator_asks_before_it_switches_anybody_off(state: NodeState) -> None:
    """The journal is ten minutes old: a node that has come back meanwhile is not shot before it can say so."""
    fleet = hung_and_killed_at("n1", state)
    assert fleet.node("n1").state is state
    for name in ("n2", "n3"):
        fleet.connect(name)
    fleet.run(4)
    assert fleet.asked("off") == []
    fleet.silent.discard("n1")
    fleet.connect("n1")
    fleet.run(30)
    assert fleet.asked("off") == []
    assert fleet.node("n1").state is NodeState.UP


@pytest.mark.parametrize("state", [NodeState.FENCING, NodeState.LOST])
def test_a_restarted_aggregator_reads_the_device_of_a_node_it_had_given_up(state: NodeState) -> None:
    """Off by now: the readings of this life are the proof, and no off order is needed for it."""
    fleet = hung_and_killed_at("n1", state)
    fleet.kill_power("n1")
    for name in ("n2", "n3"):
        fleet.connect(name)
    fleet.run_until(fleet.is_in("n1", NodeState.FENCED), 10)
    assert fleet.asked("off") == []


def test_a_fencing_that_was_interrupted_is_taken_up_from_fresh_evidence() -> None:
    """Still silent and still on in this life: the ladder goes on, and its VMs run elsewhere."""
    fleet = hung_and_killed_at("n1", NodeState.FENCING)
    fleet.off_answer.clear()
    for name in ("n2", "n3"):
        fleet.connect(name)
    fleet.run_until(fleet.is_in("n1", NodeState.FENCED), 30)
    fleet.run(2)
    assert {vm.owner for vm in fleet.state.vms.values()} <= {"n2", "n3"}


def test_a_word_that_proved_nothing_in_its_own_life_proves_nothing_in_the_next() -> None:
    """A beat that crossed the operator's confirmation is not journalled; the replay must not forget it."""
    fleet = fleet_with_vms()
    session = fleet.node("n1").session
    assert session is not None
    fleet.settle(
        ev.OffConfirmed(at=fleet.now, name="n1", who="anna"),
        ev.BeatHeard(at=fleet.now + 0.001, node="n1", session=session, sequence=99),
    )
    fleet.now += 1
    assert fleet.node("n1").state is NodeState.UP
    fleet.restart()
    assert fleet.node("n1").state is NodeState.UNSEEN


def test_questions_of_the_last_life_are_not_repeated() -> None:
    """Open intents are unknown and decided anew: nothing but questions leaves in the first second."""
    fleet = hung_and_killed_at("n1", NodeState.FENCING)
    assert [a.question for a in fleet.actions if isinstance(a, AskFence)] in ([], ["status"])
    assert fleet.state.leader == Leadership(2, "i2", fleet.state.leader.position)


def test_a_mass_outage_over_a_restart_convicts_nobody() -> None:
    """Two of three are hung when the aggregator starts: both are silent in this life, so the brake counts both."""
    fleet = fleet_with_vms()
    fleet.now += 600
    fleet.restart()
    fleet.silent |= {"n1", "n2"}
    fleet.connect("n3")
    fleet.run(300)
    assert {fleet.node(name).state for name in ("n1", "n2")} == {NodeState.UNSEEN}
    assert fleet.asked("off") == []
    assert any("mass outage" in i.title and not i.closed for i in fleet.state.incidents.values())


def test_the_brake_forgets_nothing_over_a_restart_with_a_wall_clock_that_was_set_forward() -> None:
    """n1 was shot and is back; however long ago the clock says that was, n2 is the second (story 619)."""
    fleet = fleet_with_vms(config={**LABORATORY, "brake": {"window": "60s", "offOrdersPerHourMax": 10}})
    fleet.silent.add("n1")
    fleet.run_until(fleet.is_in("n1", NodeState.FENCED), 60)
    assert fleet.asked("off") == ["n1"]
    fleet.silent.discard("n1")
    fleet.reboot("n1")
    fleet.run_until(fleet.is_in("n1", NodeState.UP), 60)
    fleet.now += 3600
    fleet.restart()
    fleet.actions.clear()
    for name in ("n1", "n2", "n3"):
        fleet.connect(name)
    fleet.run(5)
    fleet.silent.add("n2")
    fleet.run(20)
    assert fleet.state.brake_closed
    assert fleet.asked("off") == []


def test_a_host_that_peers_hear_now_and_then_is_not_convicted_between_two_questions() -> None:
    """A dead agent on a living host after a restart, with the questions far apart: AgentLost, never Lost."""
    fleet = fleet_with_vms(config={})
    fleet.now += 600
    fleet.restart()
    fleet.silent.add("n1")
    fleet.heard["n1"] = True
    for name in ("n2", "n3"):
        fleet.connect(name)
    fleet.run(400)
    assert fleet.node("n1").state is NodeState.AGENT_LOST
    assert "NodeLost n1" not in fleet.story()
    assert fleet.asked("off") == []


def test_a_power_on_that_was_interrupted_is_asked_for_again() -> None:
    """Killed between the journal and the deed: nobody knows whether the node was switched on, so it is, once more."""
    fleet = fleet_with_vms()
    fleet.silent.add("n1")
    fleet.run_until(lambda: fleet.asked("on") != [], 60)
    last_on = max(index for index, event in enumerate(fleet.journal) if is_power_on(event))
    fleet.journal = fleet.journal[: last_on + 1]
    fleet.actions.clear()
    fleet.restart()
    for name in ("n2", "n3"):
        fleet.connect(name)
    fleet.run(10)
    assert len(fleet.asked("on")) == 1


def is_power_on(data: bytes) -> bool:
    """Return whether a journalled event is the question that powers a node on."""
    event = decode_event(data)
    return isinstance(event, ev.FenceAsked) and event.question == "on"


def test_a_migration_that_waits_in_the_queue_outlives_the_aggregator() -> None:
    """Killed right after a drain was asked for: nothing of the queue fails because nobody has spoken yet."""
    fleet = fleet_with_vms()
    fleet.deaf |= {"n2", "n3"}
    fleet.settle(ev.DrainRequested(at=fleet.now, node="n1", who="anna"))
    kinds = [kind_of(decode_event(event)) for event in fleet.journal]
    fleet.journal = fleet.journal[: kinds.index("MigrationQueued") + 1]
    fleet.deaf.clear()
    fleet.restart()
    fleet.run(2)
    for name in ("n1", "n2", "n3"):
        fleet.connect(name)
        fleet.run(1)
    assert [m.phase for m in fleet.state.migrations.values() if m.phase is MigrationPhase.FAILED] == []
    fleet.run(10)
    assert {vm.owner for vm in fleet.state.vms.values()} <= {"n2", "n3"}
