"""No secret stands where people or programs may read it: planted ones are looked for, everywhere."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path

import aiohttp
import msgspec
import pytest
from msgspec import structs

from aggregator.api.app import API_ROUTES
from aggregator.api_door import ApiDoor
from aggregator.core.events import NodeRevoked
from aggregator.fleet_access import HistoryQuery
from aggregator.settings import Endpoint
from fleet.identity import JOIN_PATH, RENEW_PATH, JoinRequest, RenewRequest, make_request, new_key
from tests.unit.api.manifests import a_node, a_vm, domain_xml
from tests.unit.shell.agent_speaker import AgentSpeaker
from tests.unit.shell.identity_world import World, settings_of, until


async def test_what_a_node_joins_with_is_found_nowhere_else(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    agent = await world.agent("h1")
    await until(lambda: world.up("h1"))
    token = agent.token_file.read_text().strip()
    secret, relay_secret = token.partition(".")[0], agent.access.relay_secret
    key = agent.access.own.read_bytes().decode("ascii")
    lines = re.findall(r"^[A-Za-z0-9+/=]{40,}$", key.partition("-----END PRIVATE KEY-----")[0], re.MULTILINE)
    assert len(lines) >= 2, "the private key was not found, so nothing would be looked for"
    answers = [
        await world.ask(JOIN_PATH, JoinRequest(token, make_request(new_key()))),
        await world.ask(RENEW_PATH, RenewRequest(make_request(new_key()), agent.access.certificate())),
    ]
    assert [status for status, _said in answers] == [HTTPStatus.FORBIDDEN] * 2
    await world.fleet.submit(NodeRevoked(at=world.fleet.now(), name="h1", who="test"))
    await until(lambda: not world.up("h1"))
    history = [msgspec.json.encode(line) for line in await world.fleet.history(HistoryQuery())]
    assert any(b"NodeJoined" in line for line in history)
    kept = [path for path in (world.dir / "a1").rglob("*") if path.is_file() and path.parent.name != "identity"]
    assert kept
    logged = "".join(capfd.readouterr())
    assert "node joined" in logged
    places = {
        "log": logged.encode(),
        "history": b"\n".join(history),
        "answers": b"\n".join(said for _status, said in answers),
        **{str(path): path.read_bytes() for path in kept},
    }
    for planted in (secret, relay_secret, *lines):
        found = [place for place, data in places.items() if planted.encode() in data]
        assert not found, f"a secret stands in {found}"


BMC, BMC_FILE, VNC, SPICE = "pl4nted-bmc", "pl4nted-file", "pl4nted-vnc", "pl4nted-spice"
TOKEN, WRONG = "pl4nted-admin", "pl4nted-guess"
PLANTED = (BMC, BMC_FILE, VNC, SPICE, TOKEN, WRONG)
BEARER = {"Authorization": f"Bearer {TOKEN}"}
TALKS = """#!/bin/sh
told=$(cat); echo "$told" >> "{dir}/asked"; echo "$told" >&2; echo "$told"
echo "argv: $*" >> "{dir}/argv"; env >> "{dir}/argv"
case "$told" in *action=status*) echo "Status: ON"; exit 0;; esac
exit 1
"""
NAMES = {"nodes": "h1", "vms": "web-1", "incidents": "inc-1"}
CONFIG = {  # as quick as may be on a machine that is busy with other tests
    "suspectAfter": "4s",
    "lostAfter": "6s",
    "lostAfterOnePlane": "7s",
    "readinessEvery": "1s",
    "selfLagMax": "2s",
    "lostNodesMax": 3,
}


@pytest.fixture
async def talking(tmp_path: Path) -> AsyncIterator[tuple[World, str]]:
    """An aggregator whose fence program repeats all it was told on both of its outputs, and the URL of its API."""
    world = World(tmp_path)
    world.config |= CONFIG
    (tmp_path / "a1").mkdir()
    program = tmp_path / "a1/fence_talks"
    program.write_text(TALKS.format(dir=tmp_path))
    program.chmod(0o755)
    (tmp_path / "bmc").write_text(BMC_FILE)
    await world.start()
    world.fleet.token_sha256 = hashlib.sha256(TOKEN.encode()).hexdigest()
    settings = structs.replace(settings_of(tmp_path / "a1"), token_sha256=world.fleet.token_sha256)
    door = ApiDoor(world.fleet, settings, world.authority)
    await door.start(Endpoint("127.0.0.1", 0), 100)
    yield world, f"http://127.0.0.1:{door.address[1]}"
    await door.cleanup()
    await world.close()


async def beats(world: World, name: str) -> AgentSpeaker:
    """A node that only stands and beats."""
    node = world.speaker(name, await world.join(name))
    await node.stand()

    async def keep_beating() -> None:
        with contextlib.suppress(ConnectionError, aiohttp.ClientError):
            while True:
                await node.beat()
                await asyncio.sleep(0.5)

    world.errands.append(asyncio.create_task(keep_beating()))
    return node


async def plant(world: World, url: str) -> None:
    """Write a node and a VM with passwords, guess at tokens, and let the node fall silent and be fenced in vain."""
    node = await beats(world, "h1")
    for other in ("h2", "h3"):
        await beats(world, other)
    one = {"ip": "10.0.0.1", "username": "ops", "password": BMC}
    two = {"ip": "10.0.0.2", "password_file": str(world.dir / "bmc")}
    ladder = [{"agent": "fence_talks", "params": params, "identity": "Operator"} for params in (one, two)]
    consoles = f"<graphics type='vnc' passwd='{VNC}'/><graphics type='spice' passwd=\"{SPICE}\"/>"
    writes = {
        "/api/v1/nodes/h1": a_node("h1", fencing=ladder),
        "/api/v1/vms/web-1": a_vm("web-1", "Halted", xml=domain_xml("web-1", devices=consoles)),
    }
    for path, body in writes.items():
        async with world.http.put(url + path, json=body, headers=BEARER) as answer:
            assert answer.status < HTTPStatus.BAD_REQUEST, await answer.text()
    for guess in (f"Bearer {WRONG}", f"Basic {WRONG}"):
        headers = {"Authorization": guess}
        async with world.http.get(f"{url}/api/v1/nodes?token={WRONG}", headers=headers) as answer:
            assert answer.status == HTTPStatus.UNAUTHORIZED
    asked = world.dir / "asked"
    await until(lambda: asked.exists() and all(word in asked.read_text() for word in (BMC, BMC_FILE)))
    await node.close()
    await until(lambda: "inc-1" in world.fleet.state.incidents)
    async with world.http.post(f"{url}/api/v1/nodes/h1:fence", json={}, headers=BEARER) as answer:
        assert answer.status < HTTPStatus.BAD_REQUEST, await answer.text()
    incident = world.fleet.state.incidents["inc-1"]
    await until(lambda: "username=ops" in str(incident.steps))


async def everything_that_is_shown(world: World, url: str) -> dict[str, bytes]:
    """Ask each route that answers something, and the beginning of each watch."""
    shown = {}
    paths = ["/page/stream", "/", "/openapi.json", "/metrics", "/readyz"]
    for route in API_ROUTES:
        if route.method == "GET":
            collection = route.path.split("/")[3] if route.path.count("/") > 2 else ""
            path = route.path.replace("{name}", NAMES.get(collection, "none"))
            paths += [path, f"{path}?watch=1", f"{path}?output=xml"]
    async with world.http.post(f"{url}/login", data={"token": TOKEN}, allow_redirects=False) as answer:
        cookies = answer.cookies
    for path in paths:
        shown[path] = b""
        try:
            async with (
                asyncio.timeout(1.0),
                world.http.get(url + path, headers={} if path == "/" else BEARER, cookies=cookies) as answer,
            ):
                while part := await answer.content.read(65536):
                    shown[path] += part
        except TimeoutError:
            continue  # a watch has no end
    return shown


async def test_no_password_or_token_is_shown_logged_or_told_in_an_incident(
    talking: tuple[World, str], capfd: pytest.CaptureFixture[str]
) -> None:
    world, url = talking
    await plant(world, url)
    shown = await everything_that_is_shown(world, url)
    history = [msgspec.json.encode(line) for line in await world.fleet.history(HistoryQuery())]
    assert b"username=ops" in shown["/api/v1/incidents/inc-1"], "what the device said is there, without its password"
    assert b"web-1" in shown["/api/v1/vms/web-1"]
    assert b"h1" in shown["/page/stream"]
    logged = "".join(capfd.readouterr())
    assert "username=ops" in logged
    places = {
        **shown,
        "log": logged.encode(),
        "history": b"\n".join(history),
        "audit": (world.dir / "a1/audit.jsonl").read_bytes(),
        "argv and environment": (world.dir / "argv").read_bytes(),
    }
    for planted in PLANTED:
        found = [place for place, data in places.items() if planted.encode() in data]
        assert not found, f"{planted} stands in {found}"
    journals = list((world.dir / "a1").glob("journal*"))
    assert journals
    for path in journals:  # it must hold definitions as they are, for another host starts VMs from them
        assert path.stat().st_mode & 0o077 == 0, path
