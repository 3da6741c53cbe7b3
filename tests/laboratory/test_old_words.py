"""Words that outlive who said them: an order in a socket, a name that another machine bears. Nothing runs twice."""

from __future__ import annotations

import contextlib
import time

import pytest

from cli.client import Unreachable
from cli.document import documents, text
from cli.errors import Failure
from lab.scene import Scene
from tests.laboratory.scenes import SceneMaker
from tests.laboratory.test_kills import aggregator_dies_at, settled


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("how", ["its reader stands still", "the way to it is cut"])
def test_a_start_order_left_in_a_socket_outlives_its_aggregator(scene: SceneMaker, how: str) -> None:
    """It waits in a buffer, its aggregator dies, the next one lives: it starts the VM once or is refused, never twice.

    Cut one way, the bytes wait in the dead aggregator's own kernel, which goes on sending them.
    """
    fleet = scene("v1")
    fleet.apply("v1", host="h1")
    fleet.verb("vms", "v1", "stop", {"force": True})
    fleet.wait(lambda: fleet.phase("v1") == "Stopped" and fleet.where() == {}, "v1 to be stopped")
    for other in ("h2", "h3"):
        fleet.verb("nodes", other, "cordon")
    aggregator_dies_at(fleet, "OrderIssued:1:after")
    if how == "its reader stands still":
        fleet.send("agent@h1", "STOP")
    else:
        fleet.laboratory.cut("h1", "control", "in")
    ordered_s = time.time()
    with contextlib.suppress(Failure, Unreachable):  # the answer may be lost with the aggregator: that is the point
        fleet.verb("vms", "v1", "start")
    fleet.wait(lambda: fleet.laboratory.aggregator.pid is None, "the aggregator to kill itself")
    assert fleet.where() == {}
    fleet.start("aggregator@1")
    fleet.wait(lambda: fleet.node_state("h2") == "Up", "the next life to hear h2")
    for other in ("h2", "h3"):
        fleet.verb("nodes", other, "uncordon")
    assert fleet.field("vms", "v1", "status.node") == "h1"
    assert fleet.where() == {}
    if how == "its reader stands still":
        fleet.send("agent@h1", "CONT")
    else:
        fleet.laboratory.heal("h1", "control")
    fleet.wait(lambda: settled(fleet), "v1 to run")
    later_s = time.time() + 15  # longer than a kernel waits before it sends old bytes once more
    fleet.wait(lambda: time.time() > later_s and fleet.all_count_once(), "v1 to count on")
    assert fleet.where() == {"v1": "h1"}
    assert fleet.starts("v1") == 2
    assert [h.node for h in fleet.witness.happenings if h.kind == "NodeFenced" and h.at_s > ordered_s] == []
    assert fleet.laboratory.fence_deeds() == {}
    assert fleet.faults() == []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_another_machine_under_a_known_name_is_refused_and_proves_nothing(scene: SceneMaker) -> None:
    """Its hello is no reboot of the machine that ran the VMs: they stay down until that one is back.

    The name's fence device answers nothing meanwhile, so that no other proof can be had.
    """
    fleet = scene("v1")
    fleet.apply("v1", host="h1")
    host = fleet.laboratory.host("h1")
    own, old_boot = host.identity, host.boot_id
    fleet.laboratory.set_bmc("h1", "hangs")
    replaced_s = time.time()
    fleet.laboratory.power("h1", "off")
    host.replace_identity("7c3f0c52-0d6a-4f4e-9a52-1f6f5f3b8e11")
    fleet.laboratory.power("h1", "on")
    assert host.boot_id != old_boot
    log = fleet.laboratory.layout.logs_dir / "agent-h1.log"
    fleet.wait(lambda: "IDENTITY" in log.read_text(), "the other machine to be refused")
    assert "virtward delete node h1" in log.read_text()
    fleet.wait(lambda: "--confirm-off" in told_of_another(fleet), "the way out to be named")
    assert "IdentityRefused" in fleet.kinds(replaced_s)
    later_s = time.time() + 15
    fleet.wait(lambda: time.time() > later_s, "a wrong start")
    assert not {"NodeProven", "BindingFreed", "StartDecided", "NodeUp"} & set(fleet.kinds(replaced_s))
    assert fleet.where() == {}
    fleet.laboratory.power("h1", "off")
    host.replace_identity(own)
    fleet.laboratory.power("h1", "on")
    fleet.wait(lambda: settled(fleet), "v1 to run again")
    freed = fleet.first("BindingFreed", "h1", replaced_s)
    assert freed is not None
    assert "Rebooted" in freed.message
    assert fleet.starts("v1") == 2
    assert fleet.faults() == []


def told_of_another(fleet: Scene) -> str:
    """Return what a person can do about the machine that says that it is h1; empty while nobody was told."""
    found = documents(fleet.client.get("/api/v1/incidents"), "items")
    mine = (i for i in found if text(i, "status.title") == "another machine says that it is h1")
    return next((text(i, "status.wayOut") for i in mine), "")
