"""Drains in turn keep the fleet N+1: a domain is emptied only where another node could be lost meanwhile."""

from __future__ import annotations

from aggregator.core import events as ev
from aggregator.core.drain import VERDICT_FRESH_S
from aggregator.core.objects import VmSpec
from aggregator.core.turns import answer_turns, ask_turns
from aggregator.core.views_drain import drain_view
from tests.unit.core.fleet import GIB, Fleet


def spread(memory_gib: int) -> Fleet:
    """Return three nodes of 8 GiB with a VM of that memory on each."""
    fleet = Fleet()
    for number in (1, 2, 3):
        others = [name for name in fleet.state.nodes if name != f"n{number}"]
        for other in others:
            fleet.cordon(other)
        name, memory = f"v{number}", memory_gib * GIB
        applied = ev.VmApplied(
            at=fleet.now, name=name, uuid=f"uuid-{name}", spec=VmSpec(), labels={}, cpu_m=1000, memory_bytes=memory
        )
        fleet.settle(applied)
        fleet.run(1)
        for other in others:
            fleet.cordon(other, on=False)
        assert fleet.vm(name).owner == f"n{number}"
    return fleet


def wanted(fleet: Fleet, node: str) -> None:
    fleet.settle(ev.DrainRequested(at=fleet.now, node=node, job="j", domain=node, keeps_spare=True))


def judge(fleet: Fleet) -> None:
    """Do what the aggregator does on a thread of its own."""
    questions = ask_turns(fleet.state, fleet.now)
    assert questions is not None
    fleet.settle(*answer_turns(questions, fleet.now))


def waits_for(fleet: Fleet, node: str) -> str:
    return drain_view(fleet.state, fleet.state.drains[node]).status.waits_for


def test_a_turn_begins_when_every_other_node_could_be_lost_meanwhile() -> None:
    fleet = spread(2)
    wanted(fleet, "n1")
    fleet.run(5)
    assert "is being thought through" in waits_for(fleet, "n1")
    judge(fleet)
    fleet.run_until(lambda: fleet.state.drains["n1"].state == "Done", 30)


def test_a_turn_waits_while_a_loss_could_not_be_borne_and_names_it() -> None:
    fleet = spread(3)  # two nodes take all three, one does not
    wanted(fleet, "n1")
    judge(fleet)
    fleet.run(5)
    words = waits_for(fleet, "n1")
    assert "while n1 is empty the loss of n2 could not be borne" in words
    assert "virtward drain NODE --cancel" in words
    assert not fleet.node("n1").drain
    fleet.settle(ev.DrainCancelled(at=fleet.now, node="n1"), ev.DrainRequested(at=fleet.now, node="n1"))
    assert fleet.state.drains["n1"].state != "Waiting"


def test_what_could_not_be_borne_before_holds_nothing_up() -> None:
    fleet = spread(5)  # no node takes two of them: neither loss can be borne now, nor the drain be done
    wanted(fleet, "n1")
    judge(fleet)
    assert fleet.state.drains["n1"].state == "Running"


def test_a_verdict_does_not_last() -> None:
    fleet = spread(3)
    wanted(fleet, "n1")
    judge(fleet)
    fleet.run(VERDICT_FRESH_S + 1)
    assert "is being thought through" in waits_for(fleet, "n1")


def test_nothing_is_thought_through_while_the_turn_waits_for_others_or_none_does() -> None:
    fleet = spread(2)
    assert ask_turns(fleet.state, fleet.now) is None
    wanted(fleet, "n1")
    judge(fleet)
    wanted(fleet, "n2")
    assert ask_turns(fleet.state, fleet.now) is None
