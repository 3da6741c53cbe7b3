"""The page: sign-in, what it shows, that it only reads, and that nothing in it can be smuggled in."""

from __future__ import annotations

import asyncio
import json
import re

import pytest

from aggregator.core.events import PowerAnswer
from tests.unit.api.conftest import Api
from tests.unit.api.manifests import a_vm, domain_xml
from tests.unit.api.world import TOKEN, World

LIMIT_S = 30.0


async def sign_in(api: Api) -> None:
    answer = await api("POST", "/login", open=True, data={"token": TOKEN})
    assert (answer.status, answer.headers["Location"]) == (303, "/")
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie


async def test_without_a_session_the_page_is_only_a_form(api: Api, world: World) -> None:
    answer = await api("GET", "/", open=True)
    assert (answer.status, answer.type) == (200, "text/html")
    assert 'name="token"' in answer.body
    assert "n1" not in answer.body
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    wrong = await api("POST", "/login", open=True, data={"token": "guess"})
    assert (wrong.status, "That token is wrong" in wrong.body, "Set-Cookie" in wrong.headers) == (403, True, False)


async def test_a_session_reads_and_never_writes(api: Api, world: World) -> None:
    await sign_in(api)
    assert (await api("GET", "/api/v1/nodes", open=True)).status == 200
    position = world.state.position
    answer = await api("POST", "/api/v1/nodes/n1:cordon", open=True)
    assert (answer.status, world.state.position) == (403, position)
    assert (await api("POST", "/logout", open=True)).status == 303
    assert (await api("GET", "/api/v1/nodes", open=True)).status == 401


async def test_another_sites_form_opens_no_session(api: Api) -> None:
    foreign = ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"})
    for path in ("/login", "/logout"):
        for headers in (*foreign, {"Sec-Fetch-Site": "same-site"}):
            answer = await api("POST", path, open=True, data={"token": TOKEN}, headers=headers)
            assert (answer.status, answer.detail) == (403, "this form was sent by another site's page"), headers
    own = {"Origin": api.base, "Sec-Fetch-Site": "same-origin"}
    assert (await api("POST", "/login", open=True, data={"token": TOKEN}, headers=own)).status == 303


async def test_the_page_shows_a_failure_and_its_way_out(api: Api, world: World) -> None:
    await api("PUT", "/api/v1/vms/web-1", a_vm())
    world.run(2)
    owner = world.state.vms["web-1"].owner
    await sign_in(api)
    calm = (await api("GET", "/", open=True)).body
    assert "All is well" in calm
    assert f'<td data-head="Node"><div>{owner}</div></td>' in calm
    world.core.silent.add(owner)
    world.core.power[owner] = world.core.off_answer[owner] = PowerAnswer.ERROR
    world.core.run_until(lambda: any("--confirm-off" in record.way_out for record in world.state.incidents.values()))
    page = (await api("GET", "/", open=True)).body
    assert "1 incident open" in page
    assert f"virtward fence {owner} --confirm-off" in page
    for name in ("summary", "incidents", "nodes", "vms", "moves", "events"):
        assert f'id="{name}"' in page


async def test_names_and_reasons_are_escaped(api: Api, world: World) -> None:
    name = "<img src=x>"
    xml = domain_xml("placeholder", disk="d").replace("placeholder", "&lt;img src=x&gt;")
    assert (await api("PUT", "/api/v1/vms/%3Cimg%20src=x%3E", a_vm(name, xml=xml))).status == 201
    await sign_in(api)
    page = (await api("GET", "/", open=True)).body
    assert name not in page
    assert "&lt;img src=x&gt;" in page


async def test_sections_are_streamed_when_they_change(api: Api, world: World) -> None:
    await sign_in(api)
    async with api.session.get(api.base + "/page/stream") as response:
        lines = response.content

        async def sections() -> dict[str, str]:
            while True:
                line = await asyncio.wait_for(lines.readline(), LIMIT_S)
                if line.startswith(b"data: "):
                    found: dict[str, str] = json.loads(line[6:])
                    return found

        assert set(await sections()) == {"summary", "incidents", "nodes", "vms", "moves", "events"}
        await api("POST", "/api/v1/nodes/n2:cordon")
        changed = await sections()
        assert "Cordoned" in changed["nodes"]
        assert "vms" not in changed


async def test_the_page_loads_nothing_from_elsewhere(api: Api) -> None:
    await sign_in(api)
    page = (await api("GET", "/", open=True)).body
    for url in re.findall(r'(?:src|href)="([^"]+)"', page):
        assert url.startswith("/static/")
        answer = await api("GET", url, open=True)
        assert answer.status == 200
        assert "http" not in answer.body.replace("http://www.w3.org/2000/svg", "")


@pytest.mark.parametrize("path", ["/page/stream", "/api/v1/status"])
async def test_the_stream_needs_a_session_or_the_token(api: Api, path: str) -> None:
    assert (await api("GET", path, open=True)).status == 401
