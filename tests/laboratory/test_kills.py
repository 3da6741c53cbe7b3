"""kill -9 of aggregator, agent and libvirtd between any two steps: nothing runs twice, nothing is lost."""

from __future__ import annotations

import contextlib
import os
import time

import pytest

from cli.document import documents, text
from cli.errors import Failure
from lab.scene import Scene
from tests.laboratory.scenes import SceneMaker

VMS = ("v1", "v2", "v3")
# What is decided in one turn is one transaction: NodeProven, NodeFenced, BindingFreed, StartDecided, OrderIssued of a
# recovery are one step. So each line here is a transaction of its own, taken from the journal of an undisturbed run.
# KIND:N dies when the N-th event of that kind is journalled and nothing is done yet; `after`: its deeds have left.
RECOVERY_STEPS = (
    "NodeSuspect:1",  # the incident too
    "NodeProven:1",  # fenced, VMs freed, placed, ordered; no order has left
    "OrderIssued:1:after",  # the orders have left
    "OrderReported:1",  # the first agent has begun
    "OrderReported:4",
    "OrderClosed:1",  # the first VM runs
    "OrderClosed:2",
    "OrderClosed:3",  # the last one does
)
FENCING_STEPS = ("NodeLost:1", "NodeFencing:1", "NodeFencing:1:after", "NodeProven:1")
"""Where a kill leaves it open whether the node was switched off; `after`: the order is with the fence program."""
DRAIN_STEPS = (
    "DrainRequested:1",  # migrations queued, the first two prepared; no order has left
    "OrderIssued:1:after",  # the targets are asked to receive
    "OrderReported:1",
    "MigrationChanged:3",  # the first migration is ordered
    "MigrationChanged:3:after",
    "BindingFreed:1",  # its source is released, the copy paused, its resume ordered
    "BindingFreed:1:after",
    "DrainChanged:1",
)


def aggregator_dies_at(fleet: Scene, step: str) -> None:
    """Restart the aggregator so that it kills itself right after journalling a step, before any deed."""
    fleet.send("aggregator@1", "KILL")
    fleet.wait(lambda: fleet.laboratory.aggregator.pid is None, "the aggregator to be gone")
    os.environ["VIRTWARD_KILL_AT"] = step
    try:
        fleet.start("aggregator@1")
    finally:
        del os.environ["VIRTWARD_KILL_AT"]
    fleet.wait(lambda: all(fleet.node_state(f"h{n}") == "Up" for n in (1, 2, 3)), "every node to be Up again")
    fleet.wait(lambda: all(fleet.fenceable(f"h{n}") for n in (1, 2, 3)), "every device to be checked again")


def revive_when_dead(fleet: Scene) -> None:
    """Wait for the aggregator to die by its own hand and start it again."""
    fleet.wait(lambda: fleet.laboratory.aggregator.pid is None, "the aggregator to kill itself")
    fleet.start("aggregator@1")


def counts_elsewhere(fleet: Scene, since_s: float, lost: str) -> bool:
    """Return whether every VM has counted since a moment on another host."""
    return set(fleet.witness.counting_since(since_s, not_on=lost)) == set(fleet.names)


def settled(fleet: Scene) -> bool:
    """Return whether every VM counts once and virtward says Running of each."""
    return fleet.all_count_once() and all(fleet.phase(name) == "Running" for name in fleet.names)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("step", RECOVERY_STEPS)
def test_an_aggregator_killed_at_a_step_of_a_recovery_ends_it_right(scene: SceneMaker, step: str) -> None:
    """Killed between the journal and the deed, started again: it asks, then acts; the VMs count elsewhere once."""
    fleet = scene(*VMS)
    fleet.apply(*VMS, host="h1")
    aggregator_dies_at(fleet, step)
    fleet.laboratory.power("h1", "off")
    cut_s = time.time()
    revive_when_dead(fleet)
    fleet.wait(lambda: counts_elsewhere(fleet, cut_s, "h1"), "the VMs to count elsewhere")
    fleet.wait(lambda: settled(fleet), "all to be settled")
    assert fleet.faults() == []


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("step", FENCING_STEPS)
def test_an_aggregator_killed_while_it_fences_ends_it_right(scene: SceneMaker, step: str) -> None:
    """A frozen host: the new life asks before it shoots, gets its proof, and the host comes back once."""
    fleet = scene(*VMS)
    fleet.apply(*VMS, host="h1")
    aggregator_dies_at(fleet, step)
    fleet.send("h1", "STOP")
    frozen_s = time.time()
    revive_when_dead(fleet)
    fleet.wait(lambda: counts_elsewhere(fleet, frozen_s, "h1"), "the VMs to count elsewhere")
    fleet.wait(lambda: fleet.node_state("h1") == "Up", "h1 to be powered on and Up again")
    fleet.wait(lambda: settled(fleet), "all to be settled")
    assert all(fleet.starts(name) == 2 for name in VMS)
    assert fleet.faults() == []


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("step", DRAIN_STEPS)
def test_an_aggregator_killed_at_a_step_of_a_drain_ends_it_right(scene: SceneMaker, step: str) -> None:
    """The migrations in flight go on without it, and the drain goes on with it; no guest starts again."""
    fleet = scene(*VMS)
    fleet.apply(*VMS, host="h1")
    aggregator_dies_at(fleet, step)
    with contextlib.suppress(Failure):  # the answer may be lost with the aggregator: that is the point
        fleet.verb("nodes", "h1", "drain")
    revive_when_dead(fleet)
    fleet.wait(lambda: text(fleet.get("drains", "h1"), "status.phase") == "Done", "the drain to be done", 150)
    fleet.wait(lambda: settled(fleet), "all to be settled")
    fleet.wait(lambda: "h1" not in fleet.where().values(), "nothing to run on h1")
    assert all(fleet.starts(name) == 1 for name in VMS)
    assert fleet.faults() == []


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("victim", ["agent@h1", "libvirtd@h1"])
def test_an_agent_or_libvirtd_killed_during_starts_loses_nothing(scene: SceneMaker, victim: str) -> None:
    """Starts in flight are unknown until the node speaks; then every VM runs once."""
    fleet = scene(*VMS)
    for name in VMS:
        fleet.apply_text(fleet.laboratory.vm(name, host="h1"))
    fleet.send(victim, "KILL")
    fleet.wait(lambda: not running(fleet, victim), f"{victim} to be gone")
    fleet.start(victim)
    fleet.wait(lambda: settled(fleet), "all to be settled")
    assert fleet.faults() == []


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("victim", ["agent@h1", "agent@h2", "libvirtd@h1", "libvirtd@h2"])
def test_an_agent_or_libvirtd_killed_during_a_migration_loses_nothing(scene: SceneMaker, victim: str) -> None:
    """Either end, either daemon: afterwards one copy counts and virtward knows where."""
    fleet = scene("v1")
    fleet.apply("v1", host="h1", memory_mib=256, dirty_mib_per_s=20)
    fleet.laboratory.slow("h1", "migration", 400)
    fleet.verb("vms", "v1", "migrate", {"to": "h2"})
    fleet.wait(lambda: copying(fleet), "the copy to be under way")
    fleet.send(victim, "KILL")
    fleet.wait(lambda: not running(fleet, victim), f"{victim} to be gone")
    fleet.start(victim)
    fleet.wait(lambda: settled(fleet), "all to be settled")
    owner = fleet.field("vms", "v1", "status.node")
    fleet.wait(lambda: fleet.where() == {"v1": fleet.field("vms", "v1", "status.node")}, f"{owner} to be the truth")
    assert fleet.faults() == []


def running(fleet: Scene, target: str) -> bool:
    """Return whether a daemon of a host runs."""
    role, _, host = target.partition("@")
    return fleet.laboratory.host(host).pid_of(role) is not None


def copying(fleet: Scene) -> bool:
    """Return whether an incoming half is there."""
    return any(str(q.cpus) == "incoming" for q in fleet.witness.sample.vms.get("v1", []))


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_libvirtd_and_aggregator_die_and_come_back_without_a_guest_noticing(scene: SceneMaker) -> None:
    """Guests count on through both; nothing is fenced, nothing is started."""
    fleet = scene(*VMS)
    fleet.apply(*VMS, host="h1")
    for victim in ("libvirtd@h1", "aggregator@1"):
        fleet.send(victim, "KILL")
        time_up = time.time() + 6
        fleet.wait(lambda end=time_up: time.time() > end and fleet.all_count_once(), "the guests to count on")  # type: ignore[misc]
        fleet.start(victim)
        fleet.wait(lambda: settled(fleet), "all to be settled")
    assert all(fleet.starts(name) == 1 for name in VMS)
    fences = [e for e in documents(fleet.client.get("/api/v1/events"), "items") if text(e, "kind") == "NodeFencing"]
    assert fences == []
    assert fleet.faults() == []


@pytest.mark.timeout(180)
def test_a_frozen_libvirtd_is_told_and_its_going_on_ends_no_agent(scene: SceneMaker) -> None:
    """Calls that hung all return at once when it goes on; the agent beats all the time, and no guest is touched."""
    fleet = scene("v1")
    fleet.apply("v1", host="h1")
    agent = fleet.laboratory.host("h1").pid_of("agent")
    fleet.send("libvirtd@h1", "STOP")
    frozen_at = time.time()
    fleet.wait(lambda: fleet.condition("h1", "LibvirtReady").startswith("False"), "the condition to be False")
    fleet.wait(lambda: time.time() > frozen_at + 14, "calls of every kind to hang")
    assert fleet.node_state("h1") == "Up"
    assert fleet.phase("v1") in ("Running", "Unknown")
    fleet.send("libvirtd@h1", "CONT")
    fleet.wait(lambda: fleet.condition("h1", "LibvirtReady").startswith("True"), "the condition to be True again")
    fleet.wait(lambda: settled(fleet), "all to be settled")
    assert fleet.laboratory.host("h1").pid_of("agent") == agent
    assert fleet.unbroken("v1")
    assert "NodeSuspect" not in fleet.kinds(frozen_at)
    assert fleet.faults() == []
