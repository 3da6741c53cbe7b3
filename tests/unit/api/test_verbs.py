"""Verbs: the run strategies' table and its 409s, migrations, drains, and what a person may vouch for."""

from __future__ import annotations

import pytest

from aggregator.core.events import NodeState, PowerAnswer, VmPhase
from aggregator.core.state import PowerRead
from fleet.model import EndReason, RunStrategy
from tests.unit.api.conftest import Api
from tests.unit.api.manifests import a_vm
from tests.unit.api.world import World


async def running(api: Api, world: World, strategy: str = "Always", name: str = "web-1", **spec: object) -> str:
    """Create a VM, start it if its strategy does not, and return its node."""
    await api("PUT", f"/api/v1/vms/{name}", a_vm(name, strategy=strategy, **spec))
    if strategy == "Manual":
        await api("POST", f"/api/v1/vms/{name}:start")
    world.run(2)
    assert world.state.vms[name].phase is VmPhase.RUNNING
    return world.state.vms[name].owner


def phase_of(world: World) -> VmPhase:
    """What people see of web-1 now."""
    return world.state.vms["web-1"].phase


STOP = [("Always", "Halted"), ("RerunOnFailure", "RerunOnFailure"), ("Manual", "Manual"), ("Once", "Halted")]


@pytest.mark.parametrize(("strategy", "becomes"), STOP)
async def test_stop_ends_the_run_and_it_stays_down(api: Api, world: World, strategy: str, becomes: str) -> None:
    await running(api, world, strategy)
    assert (await api("POST", "/api/v1/vms/web-1:stop")).status == 200
    world.run(60)
    record = world.state.vms["web-1"]
    assert (record.spec.run_strategy, record.phase, record.run) == (RunStrategy(becomes), VmPhase.STOPPED, 1)
    answer = await api("POST", "/api/v1/vms/web-1:stop")
    assert answer.status == 409
    assert answer.detail in (
        "VM web-1 is ordered to be down already (runStrategy Halted)",
        "VM web-1 does not run (Stopped); to keep it down set spec.runStrategy to Halted",
    )


START = [("Always", "Always"), ("RerunOnFailure", "RerunOnFailure"), ("Manual", "Manual"), ("Halted", "Always")]


@pytest.mark.parametrize(("strategy", "becomes"), START)
async def test_start_begins_a_run(api: Api, world: World, strategy: str, becomes: str) -> None:
    await api("PUT", "/api/v1/vms/web-1", a_vm(strategy=strategy))
    if strategy in ("Always", "RerunOnFailure"):
        world.run(2)
        answer = await api("POST", "/api/v1/vms/web-1:start")
        assert answer.status == 409
        assert "restart it, or wait until it is down" in answer.detail
        world.core.ends("web-1", EndReason.POWEROFF)
        world.run(2)
    if strategy != "Always":
        assert (await api("POST", "/api/v1/vms/web-1:start")).status == 200
    world.run(2)
    record = world.state.vms["web-1"]
    assert (record.phase, record.spec.run_strategy) == (VmPhase.RUNNING, RunStrategy(becomes))


async def test_once_means_once(api: Api, world: World) -> None:
    await running(api, world, "Once")
    world.core.ends("web-1", EndReason.POWEROFF)
    world.run(2)
    answer = await api("POST", "/api/v1/vms/web-1:start")
    assert (answer.status, answer.detail) == (
        409,
        "VM web-1 has run, and runStrategy Once means once; change spec.runStrategy to start it again",
    )


@pytest.mark.parametrize(
    ("strategy", "verb", "sentence"),
    [
        ("Halted", "stop", "VM web-1 is ordered to be down already (runStrategy Halted)"),
        ("Halted", "restart", "VM web-1 has runStrategy Halted, which allows no restart"),
        ("Manual", "restart", "VM web-1 does not run (Stopped); start it"),
        ("Manual", "pause", "VM web-1 is Stopped; only a running VM can be paused"),
        ("Manual", "unpause", "VM web-1 is Stopped; only a paused VM can go on"),
        ("Manual", "migrate", "VM web-1 cannot be live-migrated: it does not run"),
        ("Manual", "confirmGone", "VM web-1 is bound to no node, so there is nothing to vouch for"),
    ],
)
async def test_verbs_that_do_not_fit(api: Api, world: World, strategy: str, verb: str, sentence: str) -> None:
    await api("PUT", "/api/v1/vms/web-1", a_vm(strategy=strategy))
    position = world.state.position
    answer = await api("POST", f"/api/v1/vms/web-1:{verb}")
    assert (answer.status, answer.detail, world.state.position) == (409, sentence, position)


async def test_restart_makes_a_new_run(api: Api, world: World) -> None:
    await running(api, world)
    assert (await api("POST", "/api/v1/vms/web-1:restart")).status == 200
    world.run(5)
    assert (world.state.vms["web-1"].run, world.state.vms["web-1"].phase) == (2, VmPhase.RUNNING)


async def test_pause_and_unpause(api: Api, world: World) -> None:
    await running(api, world)
    await api("POST", "/api/v1/vms/web-1:pause")
    world.run(2)
    assert phase_of(world) is VmPhase.PAUSED
    assert (await api("POST", "/api/v1/vms/web-1:pause")).status == 409
    await api("POST", "/api/v1/vms/web-1:unpause")
    world.run(2)
    assert phase_of(world) is VmPhase.RUNNING


async def test_a_stop_can_be_made_a_hard_one(api: Api, world: World) -> None:
    await running(api, world)
    world.core.deaf.update(("n1", "n2", "n3"))
    await api("POST", "/api/v1/vms/web-1:stop")
    assert (await api("POST", "/api/v1/vms/web-1:stop")).status == 409
    assert (await api("POST", "/api/v1/vms/web-1:stop", {"force": True})).status == 200
    assert world.state.vms["web-1"].stop_force


async def test_an_unknown_option_of_a_verb_is_named(api: Api, world: World) -> None:
    await running(api, world)
    answer = await api("POST", "/api/v1/vms/web-1:stop", {"forse": True})
    assert (answer.status, answer.detail) == (400, "this verb has no option 'forse'; it takes force")
    answer = await api("POST", "/api/v1/vms/web-1:stop", {"force": "yes"})
    assert (answer.status, answer.detail) == (400, "force must be true or false")


async def test_migrate_answers_the_migration_and_moves(api: Api, world: World) -> None:
    source = await running(api, world)
    target = next(name for name in ("n1", "n2", "n3") if name != source)
    answer = await api("POST", "/api/v1/vms/web-1:migrate", {"to": target})
    assert (answer.status, answer.body["kind"]) == (200, "Migration")
    assert answer.body["spec"] == {"vm": "web-1", "source": source, "target": target}
    world.run(10)
    name = answer.body["metadata"]["name"]
    done = (await api("GET", f"/api/v1/migrations/{name}")).body["status"]
    assert (done["phase"], done["percent"], done["target"]) == ("Succeeded", 100.0, target)
    assert done["ended"] >= done["started"] > ""
    cancelled = await api("POST", f"/api/v1/migrations/{name}:cancel")
    assert (cancelled.status, cancelled.detail) == (409, f"migration {name} has ended already (Succeeded)")


async def test_migrate_refuses_targets_that_do_not_fit(api: Api, world: World) -> None:
    source = await running(api, world, nodeSelector={})
    assert (await api("POST", "/api/v1/vms/web-1:migrate", {"to": "n77"})).detail == "there is no node 'n77'"
    assert (await api("POST", "/api/v1/vms/web-1:migrate", {"to": source})).detail == f"VM web-1 is on {source} already"
    other = next(name for name in ("n1", "n2", "n3") if name != source)
    await api("POST", f"/api/v1/nodes/{other}:cordon")
    answer = await api("POST", "/api/v1/vms/web-1:migrate", {"to": other})
    assert (answer.status, answer.detail) == (409, f"node {other} does not take VM web-1: NodeUnschedulable")
    world.core.silent.add(other)
    world.run(5)
    answer = await api("POST", "/api/v1/vms/web-1:migrate", {"to": other})
    assert answer.detail.startswith(f"node {other} takes no VMs: ")


async def test_a_drain_plans_empties_and_ends_with_uncordon(api: Api, world: World) -> None:
    node = await running(api, world)
    plan = await api("POST", f"/api/v1/nodes/{node}:drain", {"dryRun": True, "deadlineSeconds": 600})
    assert plan.body["status"]["phase"] == "Planned"
    step = plan.body["status"]["plan"][0]
    assert (step["vm"], step["method"]) == ("web-1", "LiveMigrate")
    assert step["to"] in {"n1", "n2", "n3"} - {node}
    assert world.state.drains == {}
    begun = await api("POST", f"/api/v1/nodes/{node}:drain", {})
    assert (begun.body["metadata"]["name"], begun.body["status"]["total"]) == (node, 1)
    world.run(15)
    done = (await api("GET", f"/api/v1/drains/{node}")).body["status"]
    assert (done["phase"], done["done"], done["blocked"]) == ("Done", 1, [])
    shown = (await api("GET", f"/api/v1/nodes/{node}")).body["status"]
    assert [taint["key"] for taint in shown["taints"]] == ["virtward/maintenance"]
    assert {c["type"]: c["status"] for c in shown["conditions"]}["Maintenance"] == "True"
    ended = await api("POST", f"/api/v1/drains/{node}:cancel")
    assert (ended.status, "has ended already (Done)" in ended.detail) == (409, True)
    opened = await api("POST", f"/api/v1/nodes/{node}:uncordon", {"bringBack": True})
    assert opened.body["status"]["taints"] == []
    world.run(15)
    assert world.state.vms["web-1"].owner == node


async def test_a_drain_says_what_blocks_it(api: Api, world: World) -> None:
    node = await running(api, world, evictionStrategy="External")
    plan = await api("POST", f"/api/v1/nodes/{node}:drain?dryRun=1", {})
    assert plan.body["status"]["blocked"][0]["vm"] == "web-1"
    forced = await api("POST", f"/api/v1/nodes/{node}:drain?dryRun=1", {"force": True})
    assert [step["method"] for step in forced.body["status"]["plan"]] == ["Restart"]
    await api("POST", f"/api/v1/nodes/{node}:drain", {})
    world.run(2)
    blocked = (await api("GET", f"/api/v1/drains/{node}")).body["status"]["blocked"]
    assert [item["vm"] for item in blocked] == ["web-1"]
    assert "External" in blocked[0]["reason"]
    assert (await api("POST", f"/api/v1/drains/{node}:cancel")).body["status"]["phase"] == "Cancelled"


async def test_nobody_vouches_for_a_node_that_lives(api: Api, world: World) -> None:
    position = world.state.position
    answer = await api("POST", "/api/v1/nodes/n1:fence", {"confirmOff": True})
    assert answer.status == 409
    assert "node n1 does not look off: its agent was heard" in answer.detail
    assert "type its name again" in answer.detail
    wrong = await api("POST", "/api/v1/nodes/n1:fence", {"confirmOff": True, "typedName": "n2"})
    assert (wrong.status, world.state.position) == (409, position)


async def test_a_device_that_says_on_stands_against_a_word(api: Api, world: World) -> None:
    world.core.silent.add("n1")
    world.core.off_answer["n1"] = PowerAnswer.ERROR
    world.core.run_until(lambda: any(r.answer is PowerAnswer.ON for r in _reads(world)))
    answer = await api("POST", "/api/v1/nodes/n1:fence", {"confirmOff": True})
    assert (answer.status, "its fence device (rung 1) said On" in answer.detail) == (409, True)


def _reads(world: World) -> list[PowerRead]:
    suspicion = world.state.nodes["n1"].suspicion
    return list(suspicion.reads) if suspicion else []


async def test_a_persons_word_brings_the_vms_back(api: Api, world: World) -> None:
    """The fence device answers nothing but errors, so a person is the last rung."""
    node = await running(api, world)
    world.core.silent.add(node)
    world.core.power[node] = PowerAnswer.ERROR
    world.core.off_answer[node] = PowerAnswer.ERROR
    world.core.run_until(lambda: world.state.nodes[node].state in (NodeState.LOST, NodeState.FENCING))
    world.run(60)
    stuck = (await api("GET", "/api/v1/explain/vms/web-1")).body["text"]
    assert f"It is bound to {node}" in stuck
    assert f"virtward fence {node} --confirm-off" in stuck
    answer = await api("POST", f"/api/v1/nodes/{node}:fence", {"confirmOff": True, "typedName": node})
    assert answer.status == 200
    world.run(10)
    record = world.state.vms["web-1"]
    assert (record.phase, record.run, record.owner != node) == (VmPhase.RUNNING, 2, True)
    incident = (await api("GET", "/api/v1/incidents")).body["items"][0]
    assert incident["spec"]["node"] == node
    assert any("Operator" in step["detail"] for step in incident["status"]["steps"])
    again = await api("POST", f"/api/v1/nodes/{node}:fence", {"confirmOff": True})
    assert (again.status, "is proven inert already (Operator" in again.detail) == (409, True)


async def test_fencing_needs_a_device_and_a_fleet_that_acts(api: Api, world: World) -> None:
    await api("PATCH", "/api/v1/nodes/n1", {"spec": {"fencing": None}})
    answer = await api("POST", "/api/v1/nodes/n1:fence", {})
    assert (answer.status, "no fence device in spec.fencing" in answer.detail) == (409, True)
    await api("PATCH", "/api/v1/config", {"mode": "Observe"})
    answer = await api("POST", "/api/v1/nodes/n2:fence", {})
    assert "only observes" in answer.detail


async def test_a_node_that_speaks_is_not_fenced_and_no_order_lies_in_wait(api: Api, world: World) -> None:
    answer = await api("POST", "/api/v1/nodes/n1:fence", {})
    assert (answer.status, "node n1 is Up, and a node that speaks is not fenced" in answer.detail) == (409, True)
    assert not world.state.nodes["n1"].fence_wanted
    world.state.nodes["n1"].state = NodeState.LOST
    assert (await api("POST", "/api/v1/nodes/n1:fence", {})).status == 200


async def test_an_ended_drain_offers_no_uncordon(api: Api, world: World) -> None:
    await api("POST", "/api/v1/nodes/n1:drain", {})
    world.run(2)
    assert "virtward uncordon n1" in (await api("GET", "/api/v1/explain/nodes/n1")).body["text"]
    await api("POST", "/api/v1/nodes/n1:uncordon", {})
    assert "virtward uncordon n1" not in (await api("GET", "/api/v1/explain/nodes/n1")).body["text"]


async def test_a_vm_that_is_seen_running_is_not_gone(api: Api, world: World) -> None:
    node = await running(api, world)
    answer = await api("POST", "/api/v1/vms/web-1:confirmGone")
    assert (answer.status, f"{node} reports it Running" in answer.detail) == (409, True)


async def test_approval_is_asked_once(api: Api, world: World) -> None:
    world.state.nodes["n1"].approved = False
    assert (await api("POST", "/api/v1/nodes/n1:approve")).body["status"]["approved"] is True
    position = world.state.position
    await api("POST", "/api/v1/nodes/n1:approve")
    assert world.state.position == position


async def test_a_disarmed_fleet_starts_nothing_by_itself(api: Api, world: World) -> None:
    answer = await api("POST", "/api/v1/disarm", {"forSeconds": 600})
    assert (answer.status, "the fleet is disarmed by admin until" in answer.body["holds"][0]) == (200, True)
    await api("PUT", "/api/v1/vms/web-1", a_vm("web-1"))
    world.run(2)
    assert world.state.vms["web-1"].phase is VmPhase.PENDING
    assert "is disarmed by admin" in (await api("GET", "/api/v1/vms/web-1")).body["status"]["reason"]
    explained = await api("GET", "/api/v1/explain/vms/web-1")
    assert "virtward arm" in explained.body["text"]
    assert (await api("POST", "/api/v1/arm")).body == {"holds": []}
    world.run(2)
    assert phase_of(world) is VmPhase.RUNNING


async def test_a_node_shows_who_disarmed_it_and_until_when(api: Api, world: World) -> None:
    assert (await api("GET", "/api/v1/nodes/n1")).body["status"]["disarmed"] is None
    await api("POST", "/api/v1/disarm", {"node": "n1"})
    held = (await api("GET", "/api/v1/nodes/n1")).body["status"]["disarmed"]
    assert (held.get("until", ""), held["who"]) == ("", "admin")
    await api("POST", "/api/v1/disarm", {"node": "n1", "forSeconds": 600})
    assert (await api("GET", "/api/v1/nodes/n1")).body["status"]["disarmed"]["until"].endswith("Z")
    await api("POST", "/api/v1/arm", {"node": "n1"})
    assert (await api("GET", "/api/v1/nodes/n1")).body["status"]["disarmed"] is None


async def test_a_node_shows_another_agent_start_once_its_agent_was_restarted(api: Api, world: World) -> None:
    """Who has restarted an agent and asks whether it is well must be able to tell the answer from an old one."""
    before = (await api("GET", "/api/v1/nodes/n1")).body["status"]["agentStart"]
    assert before == world.state.nodes["n1"].session.agent_start  # type: ignore[union-attr]
    assert before


async def test_a_start_is_obeyed_although_the_vm_is_disarmed(api: Api, world: World) -> None:
    await api("PUT", "/api/v1/vms/web-1", a_vm("web-1", strategy="Manual"))
    await api("POST", "/api/v1/disarm", {"vm": "web-1"})
    await api("POST", "/api/v1/vms/web-1:start")
    world.run(2)
    assert phase_of(world) is VmPhase.RUNNING


async def test_disarming_takes_one_scope_that_exists_and_a_time(api: Api, world: World) -> None:
    position = world.state.position
    assert (await api("POST", "/api/v1/disarm", {"node": "n9"})).status == 404
    assert (await api("POST", "/api/v1/arm", {"vm": "v9"})).status == 404
    assert (await api("POST", "/api/v1/disarm", {"node": "n1", "vm": "web-1"})).status == 400
    assert (await api("POST", "/api/v1/disarm", {"node": "n1", "labelSelector": "rack=r1"})).status == 400
    assert (await api("POST", "/api/v1/disarm", {"labelSelector": "rack = = r1"})).status == 400
    for seconds in (0, -1, True, "2h", 1e12):
        assert (await api("POST", "/api/v1/disarm", {"forSeconds": seconds})).status == 400
    assert (await api("POST", "/api/v1/disarm?dryRun=1", {"node": "n1"})).body["holds"]
    assert (await api("POST", "/api/v1/arm", {"node": "n1"})).status == 200
    assert (world.state.position, world.state.disarmed) == (position, {})


@pytest.mark.parametrize(("verb", "body"), [("uncordon", {}), ("taint", {"taint": "virtward/degraded-"})])
async def test_a_node_that_failed_too_often_is_opened_by_a_person(
    api: Api, world: World, verb: str, body: dict[str, object]
) -> None:
    for at in (1, 2, 3):
        world.state.nodes["n1"].failures.append(world.state.now - at)
    world.state.derived.note_all()  # no fold has told it
    world.run(2)
    taints = (await api("GET", "/api/v1/nodes/n1")).body["status"]["taints"]
    assert [taint["key"] for taint in taints] == ["virtward/degraded"]
    assert (await api("POST", f"/api/v1/nodes/n1:{verb}", body)).status == 200
    assert (await api("GET", "/api/v1/nodes/n1")).body["status"]["taints"] == []
    assert not world.state.nodes["n1"].spec.unschedulable


async def test_a_label_selector_disarms_nodes_and_vms_that_match(api: Api, world: World) -> None:
    """And a VM whose node matches; a label that comes later is in the scope at once."""
    node = await running(api, world)
    labelled = {"labelSelector": "rack in (r1, r2)"}
    answer = await api("POST", "/api/v1/disarm", labelled)
    assert (
        "everything labelled rack in (r1, r2) is disarmed by admin until it is armed again" in answer.body["holds"][0]
    )
    assert "(virtward arm -l 'rack in (r1, r2)')" in answer.body["holds"][0]
    assert "is disarmed" not in (await api("GET", "/api/v1/explain/vms/web-1")).body["text"]
    await api("PATCH", f"/api/v1/nodes/{node}", {"metadata": {"labels": {"rack": "r2"}}})
    for about in (f"nodes/{node}", "vms/web-1"):
        assert "is disarmed by admin" in (await api("GET", f"/api/v1/explain/{about}")).body["text"]
    await api("PATCH", "/api/v1/vms/web-1", {"metadata": {"labels": {"rack": "r1"}}})
    world.core.ends("web-1", EndReason.CRASHED)
    world.run(5)
    assert phase_of(world) is VmPhase.RECOVERING
    assert (await api("POST", "/api/v1/arm", labelled)).body["holds"] == []
    world.run(5)
    assert phase_of(world) is VmPhase.RUNNING
