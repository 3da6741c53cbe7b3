"""Who may come in, and that every error is a problem document of one sentence."""

from __future__ import annotations

import re

import pytest

from aggregator import attempts
from aggregator.api.app import API_ROUTES
from aggregator.api.app import Api as Application
from aggregator.api.audit import Audit
from aggregator.api.bodies import BODY_BYTES_MAX
from aggregator.api.router import Route, Router
from aggregator.core.state import Credentials
from tests.unit.api.conftest import Api
from tests.unit.api.manifests import a_vm
from tests.unit.api.world import World

OPEN = {("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/metrics"), ("GET", "/"), ("POST", "/login")}
OPEN |= {("POST", "/logout"), ("GET", "/static/{name}")}


def all_routes() -> list[Route]:
    """Every route of the application, the page's and the document's included."""
    return list(Application(World(), Audit(None)).router.routes)


async def test_every_route_but_the_named_ones_needs_the_token(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table itself is walked, so a new route cannot be forgotten here."""
    monkeypatch.setattr(attempts, "FAILURES_MAX", 10_000)
    routes = all_routes()
    assert {(route.method, route.path) for route in routes if route.is_open} == OPEN
    for route in routes:
        path = route.path.replace("{name}", "n1")
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic dGhlLWFkbWluLXRva2Vu"}):
            answer = await api(route.method, path, open=True, headers=headers)
            if route.is_open:
                assert answer.status != 401, route.path
            else:
                assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="virtward"'), route
                assert "token" in answer.detail


async def test_a_wrong_token_changes_nothing(api: Api, world: World) -> None:
    position = world.state.position
    for route in all_routes():
        if route.method != "GET" and not route.is_open:
            await api(route.method, route.path.replace("{name}", "n1"), a_vm("n1"), open=True)
    assert world.state.position == position


async def test_the_document_names_every_route_and_resolves_every_schema(api: Api) -> None:
    answer = await api("GET", "/openapi.json")
    assert answer.status == 200
    for route in all_routes():
        assert route.method.lower() in answer.body["paths"][route.path], route
    used = set(re.findall(r"#/components/schemas/([A-Za-z_]+)", str(answer.body)))
    assert used <= set(answer.body["components"]["schemas"])
    operations = [op["operationId"] for path in answer.body["paths"].values() for op in path.values()]
    assert len(operations) == len(set(operations))


@pytest.mark.parametrize(
    ("method", "path", "status", "sentence"),
    [
        ("GET", "/nowhere", 404, "there is nothing at /nowhere; /openapi.json lists what there is"),
        ("GET", "/api/v1/vms/none", 404, "there is no VM 'none'"),
        ("GET", "/api/v1/nodes/none", 404, "there is no node 'none'"),
        ("GET", "/api/v1/migrations/mig-9", 404, "there is no migration 'mig-9'"),
        ("GET", "/api/v1/drains/n1", 404, "there is no drain 'n1'"),
        ("GET", "/api/v1/incidents/inc-9", 404, "there is no incident 'inc-9'"),
        ("GET", "/api/v1/events/99999", 404, "there is no event '99999'"),
        ("GET", "/api/v1/events/x", 404, "there is no event 'x'"),
        ("GET", "/api/v1/explain/vms/none", 404, "there is no VM 'none'"),
        ("GET", "/a/../b", 404, "there is nothing at /a/../b; /openapi.json lists what there is"),
        ("GET", "/static/none.css", 404, "there is no file 'none.css'"),
        ("POST", "/api/v1/vms/none:start", 404, "there is no VM 'none'"),
        ("POST", "/api/v1/nodes/none:cordon", 404, "there is no node 'none'"),
        ("DELETE", "/api/v1/nodes/none", 404, "there is no node 'none'"),
        ("PATCH", "/api/v1/vms/none", 400, "the body holds 0 documents; this takes one"),
        ("DELETE", "/api/v1/status", 405, "DELETE does not work on /api/v1/status; it takes GET"),
        ("GET", "/api/v1/vms/web-1:start", 405, "GET does not work on /api/v1/vms/web-1:start; it takes POST"),
        ("GET", "/api/v1/vms?watch=maybe", 400, "watch='maybe' is neither 1 nor 0"),
        ("GET", "/api/v1/vms?watch=1&resourceVersion=x", 400, ("resourceVersion='x' is not one of ours; "
         "leave it out to begin with everything")),
        ("GET", "/api/v1/vms?labelSelector=a=b=c", 400, ("labelSelector: 'a=b=c' is no term; "
         "write app=web, app!=web, app in (a,b), app or !app")),
        ("GET", "/api/v1/events?limit=-1", 400, "limit='-1' is no number"),
    ],
)  # fmt: skip
async def test_what_is_not_there(api: Api, method: str, path: str, status: int, sentence: str) -> None:
    answer = await api(method, path)
    assert (answer.status, answer.detail) == (status, sentence)


async def test_an_unknown_verb_names_the_known_ones(api: Api) -> None:
    answer = await api("POST", "/api/v1/vms/web-1:explode")
    assert answer.status == 404
    assert answer.detail.startswith("there is no verb 'explode' here; there are start, stop, ")


async def test_a_method_that_does_not_fit_says_which_do(api: Api) -> None:
    answer = await api("POST", "/api/v1/status", {})
    assert (answer.status, answer.headers["Allow"]) == (405, "GET")


@pytest.mark.parametrize(
    ("body", "kind", "status", "start"),
    [
        (b"{", "application/json", 400, "the body is not JSON"),
        (b"[" * 100_000, "application/json", 400, "the body is nested too deeply"),
        (b"\xff", "application/json", 400, "the body is not JSON"),
        (b"a: [b", "application/yaml", 400, "the YAML is broken: document 1: line 2, column 1: did not find"),
        (b"\xff\xfe\xfa", "application/yaml", 400, "the body is not UTF-8 text (byte 0)"),
        (b"a: 1\na: 2", "application/yaml", 400, "the YAML is broken: document 1: line 2, column 1"),
        (b"x", "image/png", 415, "a body of type 'image/png' is not read"),
        (b'"text"', "application/json", 400, "the body must be an object, not a text"),
        (b"null", "application/json", 400, "the body must be an object, not null"),
        (b" " * 3_000_000, "application/yaml", 400, "a YAML body may have 2 MiB"),
    ],
)
async def test_bodies_that_cannot_be_read(api: Api, body: bytes, kind: str, status: int, start: str) -> None:
    answer = await api("PUT", "/api/v1/vms/web-1", body, headers={"Content-Type": kind})
    assert answer.status == status
    assert answer.detail.startswith(start), answer.detail


async def test_a_body_that_is_too_large_is_413(api: Api) -> None:
    answer = await api("POST", "/api/v1/apply", b"x" * (BODY_BYTES_MAX + 1))
    assert answer.status == 413
    assert "send fewer documents" in answer.detail


async def test_a_fault_of_ours_is_a_sentence_and_a_mark(
    api: Api, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What went wrong is in the log; nobody outside sees it."""
    monkeypatch.setattr(world.state, "vms", None)
    answer = await api("GET", "/api/v1/vms/web-1")
    assert answer.status == 500
    assert re.fullmatch(
        r"the aggregator failed at this request; its log says why, at the mark [0-9a-f]{8}", answer.detail
    )


async def test_writes_wait_while_the_aggregator_does_not_serve(api: Api, world: World) -> None:
    assert (await api("GET", "/readyz", open=True)).status == 200
    world.ready = False
    answer = await api("PUT", "/api/v1/vms/web-1", a_vm())
    assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
    assert answer.detail == "the aggregator takes no writes now: the store is lost; try again"
    assert (await api("GET", "/readyz", open=True)).status == 503
    assert (await api("GET", "/healthz", open=True)).status == 200
    assert (await api("GET", "/api/v1/vms")).status == 200


async def test_metrics_read_the_state(api: Api) -> None:
    await api("PUT", "/api/v1/vms/web-1", a_vm())
    text = (await api("GET", "/metrics", open=True)).body
    assert 'virtward_nodes{state="Up"} 3.0' in text
    assert 'virtward_vms{phase="Running"} 1.0' in text
    assert 'virtward_node_up{node="n1"} 1.0' in text


def test_names_are_decoded_and_the_verb_follows_the_last_colon() -> None:
    router = Router(API_ROUTES)
    route, names = router.resolve("GET", "/api/v1/vms/a%3Astart")
    assert (route.verb, names) == ("", {"name": "a:start"})
    route, names = router.resolve("POST", "/api/v1/vms/a%20b%3Ac:start")
    assert (route.verb, names) == ("start", {"name": "a b:c"})
    route, names = router.resolve("GET", "/api/v1/vms/gr%C3%BCn")
    assert names == {"name": "grün"}


@pytest.mark.parametrize("authority", ["", "a" * 64])
async def test_a_token_is_shown_once_and_only_its_hash_is_kept(api: Api, world: World, authority: str) -> None:
    world.authority = authority
    token = (await api("POST", "/api/v1/nodes/n9:token")).body["token"]
    assert len(token) >= 40
    assert world.state.nodes["n9"].approved
    for path in ("/api/v1/nodes/n9", "/api/v1/events", "/api/v1/explain/nodes/n9"):
        text = str((await api("GET", path)).body)
        assert token not in text
        assert token.partition(".")[0] not in text
        record = world.state.nodes["n9"]
        assert (record.credentials.join_sha256 if authority else record.token_sha256) not in text


async def test_revocation_ends_all_that_a_node_could_show(api: Api, world: World) -> None:
    assert (await api("POST", "/api/v1/nodes/n9:revoke")).status == 404
    await api("POST", "/api/v1/nodes/n9:token")
    assert world.state.nodes["n9"].credentials.join_sha256
    assert (await api("POST", "/api/v1/nodes/n9:revoke", headers={"Authorization": "Bearer x"})).status == 401
    assert world.state.nodes["n9"].credentials.join_sha256
    assert (await api("POST", "/api/v1/nodes/n9:revoke")).status == 200
    assert world.state.nodes["n9"].credentials == Credentials()
