"""The next move for balance, over HTTP: asked, answered, and nothing is changed."""

from __future__ import annotations

from tests.unit.api.conftest import Api
from tests.unit.api.manifests import a_vm
from tests.unit.api.world import World


async def test_the_next_move_is_answered_and_nothing_is_changed(api: Api, world: World) -> None:
    await api("PUT", "/api/v1/vms/web-1", a_vm())
    world.run(2)
    before = world.state.position
    found = (await api("GET", "/api/v1/rebalance")).body
    assert (found["mode"], found["profile"], found["move"]) == ("Suggest", "LowNodeUtilization", None)
    assert found["words"] == "nothing to move"
    assert (await api("GET", "/api/v1/status")).body["rebalance"] == "nothing to move"
    assert world.state.position == before
