"""What would happen if nodes were lost, over HTTP: asked, answered, and nothing is changed."""

from __future__ import annotations

import pytest

from tests.unit.api.conftest import Api
from tests.unit.api.manifests import a_vm
from tests.unit.api.world import World


async def test_what_would_happen_is_answered_and_nothing_is_changed(api: Api, world: World) -> None:
    await api("PUT", "/api/v1/vms/web-1", a_vm())
    world.run(2)
    owner, before = world.state.vms["web-1"].owner, world.state.position
    found = (await api("GET", f"/api/v1/whatif?fail={owner}")).body
    assert found["failed"] == [owner]
    assert [(fate["vm"], fate["lostOn"]) for fate in found["vms"]] == [("web-1", owner)]
    assert found["vms"][0]["node"] in {"n1", "n2", "n3"} - {owner}
    assert found["estimate"]["hungS"] > found["estimate"]["powerLostS"] > 3
    assert world.state.position == before


@pytest.mark.parametrize(
    ("query", "status", "sentence"),
    [("", 400, "fail: name the nodes"), ("?fail=,", 400, "fail: name the nodes"), ("?fail=n9", 404, "no node n9")],
)
async def test_a_loss_of_nothing_or_of_an_unknown_node_is_refused(
    api: Api, query: str, status: int, sentence: str
) -> None:
    found = await api("GET", f"/api/v1/whatif{query}")
    assert found.status == status
    assert sentence in found.detail


async def test_the_standing_report_names_each_part(api: Api, world: World) -> None:
    await api("PUT", "/api/v1/vms/web-1", a_vm())
    world.run(2)
    found = (await api("GET", "/api/v1/readiness")).body
    assert sorted(part["name"] for part in found["parts"]) == ["n1", "n2", "n3"]
    assert sum(part["vms"] for part in found["parts"]) == 1
    assert (await api("GET", "/api/v1/status")).body["uncoveredLosses"] == []
    assert 'virtward_losses_uncovered{part="node"} 0.0' in (await api("GET", "/metrics", open=True)).body
    world.reported = False
    assert (await api("GET", "/api/v1/readiness")).status == 503
    assert (await api("GET", "/api/v1/status")).body["uncoveredLosses"] is None
    assert "virtward_losses_uncovered" not in (await api("GET", "/metrics", open=True)).body
