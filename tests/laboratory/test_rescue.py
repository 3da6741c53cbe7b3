"""The agent of a host is gone for good, its host and its guests are not: another agent moves them off, live."""

from __future__ import annotations

import time

import pytest

from lab.witness import gap_between_s
from tests.laboratory.scenes import SceneMaker

VMS = ("v1", "v2", "v3")
GAP_S_MAX = 2.0  # two polls of the source's libvirtd and a resume, on a busy machine


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("how", ["pause", "kill"])
def test_guests_leave_a_host_whose_agent_is_gone_and_their_counts_go_on(scene: SceneMaker, how: str) -> None:
    """Nothing is fenced, nothing starts again; a paused agent that wakes touches nothing."""
    fleet = scene(*VMS)
    fleet.apply(*VMS, host="h2")
    begun_s = time.time()
    fleet.send("agent@h2", "STOP" if how == "pause" else "KILL")
    fleet.wait(lambda: fleet.node_state("h2") == "AgentLost", "h2 to be AgentLost", 40)
    fleet.wait(
        lambda: "h2" not in fleet.where().values() and len(fleet.where()) == len(VMS), "the guests to leave", 120
    )
    fleet.wait(fleet.all_count_once, "every guest to count elsewhere")
    ended_s = time.time()
    for name in VMS:
        assert fleet.starts(name) == 1
        assert gap_between_s(fleet.witness.guests[name].ticks, begun_s, ended_s) <= GAP_S_MAX
    assert fleet.node_state("h2") == "AgentLost"
    assert fleet.first("NodeFencing", "h2", begun_s) is None
    assert fleet.laboratory.fence_deeds() == {}
    if how == "pause":
        fleet.send("agent@h2", "CONT")
    else:
        fleet.start("agent@h2")
    fleet.wait(lambda: fleet.node_state("h2") == "Up", "h2 to be Up", 40)
    later_s = time.time() + 5
    fleet.wait(lambda: time.time() > later_s, "the agent to look around", 30)
    assert fleet.all_count_once()
    assert "h2" not in fleet.where().values()
    assert fleet.laboratory.virsh("h2", "list", "--all", "--name").split() == []
    assert fleet.faults() == []
