"""Drains through the API: paused, resumed, in turn by labels, and what a VM says of the node it has to leave."""

from __future__ import annotations

from tests.unit.api.conftest import Api
from tests.unit.api.manifests import a_vm
from tests.unit.api.world import World


async def pinned(api: Api, world: World) -> str:
    """Apply a VM that only somebody else may move; return its node."""
    await api("POST", "/api/v1/apply", {"documents": [a_vm("web-1", evictionStrategy="External")]})
    world.run(10)
    return world.state.vms["web-1"].owner


async def test_an_external_vm_names_the_node_it_has_to_leave_until_it_may_stay(api: Api, world: World) -> None:
    node = await pinned(api, world)
    await api("POST", f"/api/v1/nodes/{node}:drain", {})
    status = (await api("GET", "/api/v1/vms/web-1")).body["status"]
    assert (status["evacuationNodeName"], "External" in status["evacuationReason"]) == (node, True)
    blocked = (await api("GET", f"/api/v1/drains/{node}")).body["status"]["blocked"]
    assert blocked[0]["wayOut"] == "virtward migrate web-1, or virtward stop web-1"
    await api("POST", f"/api/v1/nodes/{node}:uncordon")
    status = (await api("GET", "/api/v1/vms/web-1")).body["status"]
    assert (status["evacuationNodeName"], status["evacuationReason"]) == ("", "")


async def test_a_drain_is_paused_and_resumed_and_says_so(api: Api, world: World) -> None:
    node = await pinned(api, world)
    assert (await api("POST", f"/api/v1/drains/{node}:pause")).status == 404
    await api("POST", f"/api/v1/nodes/{node}:drain", {})
    for verb, phase in (("pause", "Paused"), ("pause", "Paused"), ("resume", "Running"), ("cancel", "Cancelled")):
        answer = await api("POST", f"/api/v1/drains/{node}:{verb}")
        assert (answer.status, answer.body["status"]["phase"]) == (200, phase)
    late = await api("POST", f"/api/v1/drains/{node}:resume")
    assert (late.status, "ended already (Cancelled)" in late.detail) == (409, True)


async def test_nodes_with_some_labels_are_drained_in_turn(api: Api, world: World) -> None:
    for name, rack in (("n1", "r2"), ("n2", "r1"), ("n3", "r1")):
        labels = {"virtward/rack": rack, "row": "1"}
        await api("PATCH", f"/api/v1/nodes/{name}", {"metadata": {"labels": labels}})
    plan = await api("POST", "/api/v1/drains", {"labelSelector": "row=1", "dryRun": True})
    assert [item["metadata"]["name"] for item in plan.body["items"]] == ["n2", "n3", "n1"]
    assert world.state.drains == {}
    begun = await api("POST", "/api/v1/drains", {"labelSelector": "row=1"})
    assert begun.status == 200
    world.run(5)
    phases = {name: drain.state for name, drain in world.state.drains.items()}
    assert phases == {"n2": "Done", "n3": "Done", "n1": "Waiting"}
    waiting = (await api("GET", "/api/v1/drains/n1")).body["status"]
    assert waiting["waitsFor"] == "n2 is in maintenance; virtward uncordon n2 when it is done"
    paused = await api("POST", "/api/v1/drains/n1:pause")
    assert (paused.status, "has not begun" in paused.detail) == (409, True)


async def test_a_job_is_refused_as_a_whole_where_one_node_is_drained_already(api: Api, world: World) -> None:
    for name in ("n1", "n2"):
        await api("PATCH", f"/api/v1/nodes/{name}", {"metadata": {"labels": {"row": "1"}}})
    await api("POST", "/api/v1/nodes/n2:drain", {})
    answer = await api("POST", "/api/v1/drains", {"labelSelector": "row=1"})
    assert (answer.status, "n2 is being drained already" in answer.detail) == (409, True)
    assert list(world.state.drains) == ["n2"]
    assert (await api("POST", "/api/v1/drains", {"labelSelector": "row=9"})).status == 422
    assert (await api("POST", "/api/v1/drains", {})).status == 400


async def test_a_plan_names_the_wave_of_each_move_the_first_one_too(api: Api, world: World) -> None:
    await api("POST", "/api/v1/apply", {"documents": [a_vm("web-1"), a_vm("web-2", evictionStrategy="None")]})
    world.run(10)
    steps: dict[str, tuple[str, int | None]] = {}
    for node in {vm.owner for vm in world.state.vms.values()}:
        plan = await api("POST", f"/api/v1/nodes/{node}:drain", {"dryRun": True})
        steps |= {step["vm"]: (step["method"], step.get("wave")) for step in plan.body["status"]["plan"]}
    assert steps == {"web-1": ("LiveMigrate", 1), "web-2": ("Restart", None)}
