"""Screenshots over HTTP: who gets one, and what is said where there is none."""

from __future__ import annotations

from http import HTTPStatus

from aggregator.core.events import IncidentOpened
from tests.unit.api.conftest import Api
from tests.unit.api.manifests import a_vm
from tests.unit.api.test_rights import ask, labelled, token_of
from tests.unit.api.world import World

PNG = b"\x89PNG\r\n\x1a\n"


async def raw(api: Api, path: str, token: str) -> tuple[int, str, bytes]:
    headers = {"Authorization": f"Bearer {token}"}
    async with api.session.get(api.base + path, headers=headers) as answer:
        return answer.status, answer.content_type, await answer.read()


async def test_an_operator_gets_what_a_guest_shows_and_what_an_incident_kept(api: Api, world: World) -> None:
    assert (await api("POST", "/api/v1/vms", a_vm("web-1"))).status == HTTPStatus.CREATED
    world.core.settle(IncidentOpened(at=world.now(), incident="inc-1", vm="web-1", title="it hung"))
    token = await token_of(api, "otto", "operator")
    world.pictures = {world.state.vms["web-1"].uuid: PNG, "inc-1": PNG + b"then"}
    assert await raw(api, "/api/v1/vms/web-1/screenshot", token) == (HTTPStatus.OK, "image/png", PNG)
    assert await raw(api, "/api/v1/incidents/inc-1/screenshot", token) == (HTTPStatus.OK, "image/png", PNG + b"then")


async def test_where_there_is_none_a_sentence_says_why(api: Api, world: World) -> None:
    await api("POST", "/api/v1/vms", a_vm("web-1"))
    world.core.settle(IncidentOpened(at=world.now(), incident="inc-1", vm="web-1", title="it hung"))
    for path, status, words in (
        ("/api/v1/vms/web-1/screenshot", HTTPStatus.CONFLICT, "its screen is dark"),
        ("/api/v1/vms/web-9/screenshot", HTTPStatus.NOT_FOUND, "web-9"),
        ("/api/v1/incidents/inc-1/screenshot", HTTPStatus.NOT_FOUND, "its screen is dark"),
        ("/api/v1/incidents/..%2Finc-1/screenshot", HTTPStatus.NOT_FOUND, "there is no incident"),
    ):
        answer = await api("GET", path)
        assert answer.status == status, path
        assert words in answer.detail, path


async def test_a_viewer_gets_none_and_a_limited_operator_only_of_its_vms(api: Api, world: World) -> None:
    for name, team in (("web-1", "a"), ("db-1", "b")):
        await api("POST", "/api/v1/vms", labelled(name, team=team))
        world.pictures[world.state.vms[name].uuid] = PNG
    viewer, limited = await token_of(api, "eve", "viewer"), await token_of(api, "otto", "operator", "team=a")
    assert (await ask(api, viewer, "GET", "/api/v1/vms/web-1/screenshot")).status == HTTPStatus.FORBIDDEN
    assert (await ask(api, viewer, "GET", "/api/v1/incidents/x/screenshot")).status == HTTPStatus.FORBIDDEN
    assert (await ask(api, limited, "GET", "/api/v1/vms/db-1/screenshot")).status == HTTPStatus.NOT_FOUND
    assert (await raw(api, "/api/v1/vms/web-1/screenshot", limited))[2] == PNG
