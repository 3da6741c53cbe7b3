"""What a token may: its role, its VMs, its time; what is written down of it; and what guessing costs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from aggregator import attempts
from aggregator.api import auth
from aggregator.api.app import make_app
from tests.unit.api.conftest import Answer, Api
from tests.unit.api.manifests import a_vm
from tests.unit.api.test_doors import all_routes
from tests.unit.api.world import World


async def token_of(api: Api, name: str, role: str, selector: str = "", days: int = 1) -> str:
    body = {"name": name, "role": role, "selector": selector, "days": days}
    made = await api("POST", "/api/v1/tokens", body)
    assert made.status == HTTPStatus.CREATED, made
    return str(made.body["token"])


async def ask(api: Api, token: str, method: str, path: str, body: Any = None) -> Answer:
    return await api(method, path, body, headers={"Authorization": f"Bearer {token}"})


def labelled(name: str, **labels: str) -> dict[str, Any]:
    manifest = a_vm(name)
    manifest["metadata"] = {**manifest["metadata"], "labels": labels}
    return manifest


async def test_a_viewer_reads_everything_and_writes_nothing(api: Api, world: World) -> None:
    token = await token_of(api, "eve", "viewer")
    for path in ("/api/v1/nodes", "/api/v1/vms", "/api/v1/status", "/api/v1/config", "/api/v1/events"):
        assert (await ask(api, token, "GET", path)).status == HTTPStatus.OK, path
    position = world.state.position
    for route in all_routes():
        if route.method != "GET" and not route.is_open:
            answer = await ask(api, token, route.method, route.path.replace("{name}", "n1"), a_vm("n1"))
            assert answer.status == HTTPStatus.FORBIDDEN, route
    assert world.state.position == position


async def test_an_operator_runs_the_fleet_and_does_not_change_who_belongs_to_it(api: Api, world: World) -> None:
    token = await token_of(api, "otto", "operator")
    fenced = {"spec": {"fencing": [{"agent": "fence_dummy", "params": {"ip": "10.9.9.9"}}]}}
    applied = {"apiVersion": "virtward/v1", "kind": "Node", "metadata": {"name": "n1"}, **fenced}
    for method, path, body, status in (
        ("POST", "/api/v1/vms", a_vm("web-9"), HTTPStatus.CREATED),
        ("POST", "/api/v1/nodes/n1:cordon", None, HTTPStatus.OK),
        ("PATCH", "/api/v1/nodes/n1", {"metadata": {"labels": {"rack": "r1"}}}, HTTPStatus.OK),
        ("PATCH", "/api/v1/nodes/n1", fenced, HTTPStatus.FORBIDDEN),
        ("POST", "/api/v1/apply", {"documents": [a_vm("web-8"), applied]}, HTTPStatus.FORBIDDEN),
        ("PUT", "/api/v1/nodes/n77", {"apiVersion": "virtward/v1", "kind": "Node", "metadata": {"name": "n77"}}, 403),
        ("POST", "/api/v1/nodes/n1:token", None, HTTPStatus.FORBIDDEN),
        ("POST", "/api/v1/nodes/n1:revoke", None, HTTPStatus.FORBIDDEN),
        ("PATCH", "/api/v1/config", {"suspectAfter": "4s"}, HTTPStatus.FORBIDDEN),
        ("DELETE", "/api/v1/nodes/n1", None, HTTPStatus.FORBIDDEN),
        ("GET", "/api/v1/tokens", None, HTTPStatus.FORBIDDEN),
        ("POST", "/api/v1/tokens", {"name": "x", "role": "admin"}, HTTPStatus.FORBIDDEN),
    ):
        answer = await ask(api, token, method, path, body)
        assert answer.status == status, (method, path, answer)
    assert "web-8" not in world.state.vms  # all or nothing
    fencing = world.state.nodes["n1"].spec.fencing
    assert "10.9.9.9" not in str(fencing)
    assert list(world.state.tokens) == ["otto"]
    assert "n77" not in world.state.nodes


async def test_a_limited_token_sees_and_touches_its_own_vms_alone(api: Api, world: World) -> None:
    for name, app in (("mine", "web"), ("theirs", "db")):
        assert (await api("POST", "/api/v1/vms", labelled(name, app=app))).status == HTTPStatus.CREATED
    token = await token_of(api, "web-team", "operator", "app=web")
    listed = await ask(api, token, "GET", "/api/v1/vms")
    assert [vm["metadata"]["name"] for vm in listed.body["items"]] == ["mine"]
    for method, path, body, status in (
        ("GET", "/api/v1/vms/mine", None, 200),
        ("GET", "/api/v1/vms/theirs", None, 404),
        ("POST", "/api/v1/vms/mine:stop", None, 200),
        ("POST", "/api/v1/vms/theirs:stop", None, 404),
        ("POST", "/api/v1/vms/theirs:start", None, 404),  # nothing to do there, and nothing to be seen
        ("PUT", "/api/v1/vms/theirs", labelled("theirs", app="web"), 404),
        ("DELETE", "/api/v1/vms/theirs", None, 404),
        ("PATCH", "/api/v1/vms/theirs", {"metadata": {"labels": {"app": "web"}}}, 404),  # to take it over
        ("PATCH", "/api/v1/vms/mine", {"metadata": {"labels": {"app": "db"}}}, 403),  # to push it out
        ("POST", "/api/v1/vms", labelled("new", app="web"), 201),
        ("POST", "/api/v1/vms", labelled("other", app="db"), 403),
        ("POST", "/api/v1/apply", {"documents": [labelled("new2", app="web"), labelled("other", app="db")]}, 403),
        ("POST", "/api/v1/apply", {"documents": [labelled("theirs", app="web")]}, 403),
        ("POST", "/api/v1/apply", {"documents": [labelled("new3", app="web")]}, 200),
        ("GET", "/api/v1/nodes", None, 403),
        ("GET", "/api/v1/events", None, 403),
        ("GET", "/page/stream", None, 403),
        ("POST", "/api/v1/nodes/n1:cordon", None, 403),
    ):
        answer = await ask(api, token, method, path, body)
        assert answer.status == status, (method, path, answer)
    assert world.state.vms["theirs"].labels == {"app": "db"}
    assert "new2" not in world.state.vms


async def test_a_token_ends_by_revocation_and_by_time(api: Api, world: World) -> None:
    token, late = await token_of(api, "a", "viewer"), await token_of(api, "b", "viewer", days=1)
    assert (await ask(api, token, "GET", "/api/v1/vms")).status == HTTPStatus.OK
    assert (await api("DELETE", "/api/v1/tokens/a")).status == HTTPStatus.OK
    assert (await api("DELETE", "/api/v1/tokens/a")).status == HTTPStatus.NOT_FOUND
    assert (await ask(api, token, "GET", "/api/v1/vms")).status == HTTPStatus.UNAUTHORIZED
    world.core.now += 2 * 86400.0
    assert (await ask(api, late, "GET", "/api/v1/vms")).status == HTTPStatus.UNAUTHORIZED


async def test_a_tokens_secret_is_shown_once_and_never_again(api: Api, world: World) -> None:
    token = await token_of(api, "ann", "operator")
    dry = await api("POST", "/api/v1/tokens?dryRun=1", {"name": "dry", "role": "viewer"})
    assert (dry.body["token"], "dry" in world.state.tokens) == ("", False)
    for path in ("/api/v1/tokens", "/api/v1/events", "/api/v1/status", "/metrics"):
        text = str((await api("GET", path)).body)
        assert token not in text, path
        assert world.state.tokens["ann"].token_sha256 not in text, path


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"name": "admin", "role": "viewer"}, "name: 'admin'"),
        ({"name": "a b", "role": "viewer"}, "name: 'a b'"),
        ({"name": "a", "role": "root"}, "role: must be one of viewer, operator, admin"),
        ({"name": "a", "role": "viewer", "days": 0}, "days: must be"),
        ({"name": "a", "role": "viewer", "days": True}, "days: must be"),
        ({"name": "a", "role": "viewer", "selector": "a=b=c"}, "selector: "),
        ({"name": "a", "role": "admin", "selector": "app=web"}, "selector: an admin's token"),
        ({"name": "a", "role": "viewer", "scope": "x"}, "this verb has no option 'scope'"),
    ],
)
async def test_what_no_token_is(api: Api, world: World, body: dict[str, object], word: str) -> None:
    answer = await api("POST", "/api/v1/tokens", body)
    assert answer.status == HTTPStatus.BAD_REQUEST
    assert answer.detail.startswith(word)
    assert not world.state.tokens


async def test_guessing_locks_an_address_out_and_not_who_came_in_before(api: Api) -> None:
    good = await token_of(api, "fresh", "viewer")  # never shown from here before the lock
    for _ in range(attempts.FAILURES_MAX):
        assert (await ask(api, "guess", "GET", "/api/v1/vms")).status == HTTPStatus.UNAUTHORIZED
    locked = await ask(api, "guess", "GET", "/api/v1/vms")
    assert (locked.status, "Retry-After" in locked.headers) == (HTTPStatus.TOO_MANY_REQUESTS, True)
    assert (await ask(api, good, "GET", "/api/v1/vms")).status == HTTPStatus.TOO_MANY_REQUESTS
    assert (await api("POST", "/login", "token=guess", open=True)).status == HTTPStatus.TOO_MANY_REQUESTS
    assert (await api("GET", "/api/v1/vms")).status == HTTPStatus.OK


async def test_a_token_that_writes_too_fast_is_told_to_wait(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "WRITES_AT_ONCE_MAX", 3.0)
    monkeypatch.setattr(auth, "WRITES_A_SECOND_MAX", 0.0)
    answers = [(await api("POST", "/api/v1/nodes/n1:cordon")).status for _ in range(5)]
    assert answers == [200, 200, 200, 429, 429]
    assert (await api("GET", "/api/v1/nodes")).status == HTTPStatus.OK


async def test_a_key_of_one_caller_gives_nobody_else_its_answer(api: Api) -> None:
    token = await token_of(api, "second", "admin")
    key = {"Idempotency-Key": "k1"}
    first = await api("POST", "/api/v1/nodes/n1:token", headers=key)
    other = await api("POST", "/api/v1/nodes/n1:token", headers={**key, "Authorization": f"Bearer {token}"})
    assert (first.status, other.status) == (200, 200)
    assert first.body["token"] != other.body["token"]


async def test_a_page_session_reads_with_its_tokens_rights_and_ends_with_it(api: Api, world: World) -> None:
    limited, viewer = await token_of(api, "l", "viewer", "app=web"), await token_of(api, "v", "viewer")
    assert (await api("POST", "/login", f"token={limited}", open=True)).status == HTTPStatus.FORBIDDEN
    foreign = {"Origin": "http://evil.example"}
    refused = await api("POST", "/login", f"token={viewer}", open=True, headers=foreign)
    assert refused.status == HTTPStatus.FORBIDDEN
    assert (await api("POST", "/login", f"token={viewer}", open=True)).status == HTTPStatus.SEE_OTHER
    assert (await api("GET", "/api/v1/vms", open=True)).status == HTTPStatus.OK
    position = world.state.position
    forged = await api("POST", "/api/v1/nodes/n1:cordon", open=True, headers=foreign)
    assert forged.status == HTTPStatus.FORBIDDEN
    assert world.state.position == position
    assert (await api("POST", "/logout", open=True, headers=foreign)).status == HTTPStatus.FORBIDDEN
    await api("DELETE", "/api/v1/tokens/v")
    assert (await api("GET", "/api/v1/vms", open=True)).status == HTTPStatus.UNAUTHORIZED


@pytest.fixture
async def audited(world: World, tmp_path: Path) -> AsyncIterator[Api]:
    runner = web.AppRunner(make_app(world, tmp_path / "audit.jsonl"), shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    async with aiohttp.ClientSession() as session:
        yield Api(world, f"http://{host}:{port}", session)
    await runner.cleanup()


async def test_every_write_is_on_record_with_who_what_whence_and_whether_it_was_real(
    audited: Api, tmp_path: Path
) -> None:
    token = await token_of(audited, "eve", "viewer")
    await audited("POST", "/api/v1/nodes/n1:cordon?dryRun=1")
    await audited("POST", "/api/v1/nodes/n1:cordon")
    await ask(audited, token, "POST", "/api/v1/nodes/n1:uncordon")
    await ask(audited, "s3kr1t-guess", "DELETE", "/api/v1/nodes/n1")
    await audited("GET", "/api/v1/nodes")
    file = tmp_path / "audit.jsonl"
    text = file.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [(one["who"], one["method"], one["path"], one["dry"], one["status"]) for one in lines] == [
        ("admin", "POST", "/api/v1/tokens", False, 201),
        ("admin", "POST", "/api/v1/nodes/n1:cordon", True, 200),
        ("admin", "POST", "/api/v1/nodes/n1:cordon", False, 200),
        ("eve", "POST", "/api/v1/nodes/n1:uncordon", False, 403),
        ("", "DELETE", "/api/v1/nodes/n1", False, 401),
    ]
    assert {one["source"] for one in lines} == {"127.0.0.1"}
    assert file.stat().st_mode & 0o077 == 0
    assert token not in text
    assert "s3kr1t-guess" not in text


async def test_writes_side_by_side_are_each_on_record(audited: Api, tmp_path: Path) -> None:
    await asyncio.gather(*(audited("POST", "/api/v1/nodes/n1:cordon") for _ in range(40)))
    lines = (tmp_path / "audit.jsonl").read_text().splitlines()
    assert len([json.loads(line) for line in lines]) == 40
