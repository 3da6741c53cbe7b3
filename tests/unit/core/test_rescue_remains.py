"""What remains on a node whose agent is gone: freed by a fence only where nothing is left that may run."""

from __future__ import annotations

from aggregator.core.events import NodeState
from aggregator.core.objects import VmSpec
from fleet.model import EvictionStrategy, QemuState, VmReport
from tests.unit.core.fleet import LABORATORY, Fleet

RESCUE_S, REMAINS_S = 30, 30


def with_an_unanswered_start(config: dict[str, object] | None = None, *, beside: bool = False) -> Fleet:
    """Return a fleet whose n1 lost its agent as x was ordered to start there.

    beside: with a VM that runs there and is not to be moved.
    """
    fleet = Fleet(config={**LABORATORY, "rescueAfter": f"{RESCUE_S}s", **(config or {})})
    fleet.run(8)  # its device is known to be its own
    for other in ("n2", "n3"):
        fleet.cordon(other)
    if beside:
        fleet.apply("stays", VmSpec(eviction_strategy=EvictionStrategy.NONE))
        fleet.run(1)
    fleet.deaf.add("n1")
    fleet.apply("x")
    assert fleet.vm("x").owner == "n1"
    for other in ("n2", "n3"):
        fleet.cordon(other, on=False)
    fleet.silent.add("n1")
    fleet.answers_at["n1"] = ("libvirt", "ssh")
    fleet.run_until(fleet.is_in("n1", NodeState.AGENT_LOST))
    return fleet


def test_a_vm_that_the_node_alone_keeps_down_is_freed_by_a_fence() -> None:
    fleet = with_an_unanswered_start()
    fleet.run(RESCUE_S + REMAINS_S - 5)
    assert fleet.asked("off") == []
    fleet.run_until(lambda: fleet.asked("off") == ["n1"], 15)
    assert "nothing is known to run there" in fleet.node("n1").state_reason
    fleet.answers_at.clear()  # it is off
    fleet.run_until(fleet.is_in("n1", NodeState.FENCED), 60)
    fleet.run(2)
    assert fleet.asked("off") == ["n1"]
    assert fleet.vm("x").owner in {"n2", "n3"}


def test_nothing_is_fenced_while_a_vm_may_run_there() -> None:
    fleet = with_an_unanswered_start(beside=True)
    fleet.run(300)
    assert (fleet.asked("off"), fleet.node("n1").state) == ([], NodeState.AGENT_LOST)
    assert fleet.vm("stays").owner == "n1"


def test_nothing_is_fenced_while_a_guest_of_somebody_else_runs_there() -> None:
    """It is none of ours to restart, and the host lives."""
    fleet = with_an_unanswered_start()
    fleet.state.foreign["n1"] = {"uuid-s": VmReport("uuid-s", "s", QemuState.RUNNING)}
    fleet.run(300)
    assert (fleet.asked("off"), fleet.node("n1").state) == ([], NodeState.AGENT_LOST)


def test_nothing_is_fenced_where_the_owner_wants_it_left() -> None:
    fleet = with_an_unanswered_start({"agentLost": "leave"})
    fleet.run(300)
    assert (fleet.asked("off"), fleet.node("n1").state) == ([], NodeState.AGENT_LOST)


def test_an_agent_that_is_back_in_time_says_itself_what_runs() -> None:
    fleet = with_an_unanswered_start()
    fleet.run(RESCUE_S + REMAINS_S - 5)
    fleet.silent.discard("n1")
    fleet.deaf.discard("n1")
    fleet.connect("n1")
    fleet.run(30)
    assert (fleet.asked("off"), fleet.node("n1").state) == ([], NodeState.UP)
