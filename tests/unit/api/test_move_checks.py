"""A move is checked, and its course foretold, over the API; nothing is begun."""

from __future__ import annotations

from aggregator.core.preflight import ClosedWay
from fleet.messages import CheckArrival, CheckDeparture, MoveChecked
from fleet.model import Finding
from tests.unit.api.conftest import Api
from tests.unit.api.test_verbs import running
from tests.unit.api.world import World


async def test_a_move_is_checked_at_both_ends_and_nothing_is_begun(api: Api, world: World) -> None:
    node = await running(api, world)
    other = next(name for name in ("n1", "n2", "n3") if name != node)
    ports = Finding("Ports", ok=False, message="0 of 64 ports are free")
    world.answers[other, CheckArrival] = MoveChecked("", (ports,))
    world.answers[node, CheckDeparture] = MoveChecked("", dirty_bytes_per_s=0, link_bytes_per_s=1 << 30)
    found = (await api("POST", "/api/v1/vms/web-1:checkMigration", {"to": other})).body
    assert (found["possible"], found["source"], found["target"]) == (False, node, other)
    assert [(c["name"], c["message"]) for c in found["checks"] if c["status"] == "False"] == [
        ("Ports", f"{other}: 0 of 64 ports are free")
    ]
    assert found["forecast"]["verdict"] == "Converges"
    assert {(name, type(question)) for name, question in world.asked} == {
        (other, CheckArrival),
        (node, CheckDeparture),
    }
    assert world.state.migrations == {}
    chosen = (await api("POST", "/api/v1/vms/web-1:checkMigration", {})).body
    assert chosen["target"] in {"n1", "n2", "n3"} - {node}
    way = (await api("POST", f"/api/v1/nodes/{node}:checkMigration", {"to": other})).body
    assert (way["source"], way["target"], "vm" in way) == (node, other, False)
    same = await api("POST", f"/api/v1/nodes/{node}:checkMigration", {"to": node})
    assert (same.status, same.detail) == (409, f"{node} is both ends; name another node")


async def test_a_vm_that_does_not_run_has_nowhere_to_move(api: Api, world: World) -> None:
    await running(api, world)
    await api("POST", "/api/v1/vms/web-1:stop")
    world.run(60)
    found = (await api("POST", "/api/v1/vms/web-1:checkMigration", {})).body
    assert (found["possible"], "forecast" in found, world.asked) == (False, False, [])
    assert [(c["name"], c["message"]) for c in found["checks"]] == [("LiveMigratable", "it does not run (NotRunning)")]


async def test_a_planned_drain_says_how_its_moves_would_go(api: Api, world: World) -> None:
    node = await running(api, world)
    world.answers[node, CheckDeparture] = MoveChecked("", dirty_bytes_per_s=1 << 40, link_bytes_per_s=1 << 20)
    plan = await api("POST", f"/api/v1/nodes/{node}:drain", {"dryRun": True})
    (step,) = plan.body["status"]["plan"]
    assert step["forecast"]["verdict"] == "WillNotConverge"
    assert plan.body["status"]["etaSeconds"] is None
    world.answers[node, CheckDeparture] = MoveChecked("", dirty_bytes_per_s=0, link_bytes_per_s=1 << 30)
    plan = await api("POST", f"/api/v1/nodes/{node}:drain", {"dryRun": True})
    assert plan.body["status"]["plan"][0]["forecast"]["downtimeMs"] >= 250
    assert plan.body["status"]["etaSeconds"] is not None


async def test_the_status_names_ways_that_are_closed(api: Api, world: World) -> None:
    assert (await api("GET", "/api/v1/status")).body["closedWays"] == []
    world.closed = (ClosedWay(source="n1", target="n2", why="Call: no answer", since=world.now()),)
    (way,) = (await api("GET", "/api/v1/status")).body["closedWays"]
    assert (way["source"], way["target"], way["why"]) == ("n1", "n2", "Call: no answer")
