"""People's certificates: made by `virtward token create --certificate`, worth what their token's record says."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path

import aiohttp
import pytest
from click.testing import CliRunner
from cryptography import x509
from msgspec import structs

from aggregator.api_door import ApiDoor
from aggregator.authority import PUBLIC_NAME
from aggregator.core.events import NodeApplied
from aggregator.core.objects import NodeSpec
from aggregator.settings import Endpoint
from cli.main import virtward
from fleet.identity import Role
from fleet.tls import client_context, https_trust
from tests.unit.shell.identity_world import World, settings_of, until

TOKEN = "an-admins-token"


class Desk:
    """The command of an admin, and what people show who got a certificate by it."""

    def __init__(self, world: World, door: ApiDoor) -> None:
        self.world, self.dir = world, world.dir
        self.url = f"https://127.0.0.1:{door.address[1]}"
        self.public = world.dir / "a1" / PUBLIC_NAME
        (world.dir / "token").write_text(TOKEN)

    async def run(self, *words: str, **environment: str) -> tuple[int, str]:
        """Run the command, as the admin unless its environment says otherwise."""
        where = {"VIRTWARD_API": self.url, "VIRTWARD_CA_FILE": str(self.public), "HOME": str(self.dir)}
        shown = environment or {"VIRTWARD_TOKEN_FILE": str(self.dir / "token")}
        done = await asyncio.to_thread(CliRunner().invoke, virtward, list(words), env={**where, **shown})
        return done.exit_code, done.output + (str(done.exception) if done.exception else "")

    async def certify(self, name: str, role: str) -> Path:
        file = self.dir / f"{name}-person.pem"
        code, said = await self.run("token", "create", name, "--role", role, "--certificate", str(file))
        assert code == 0, said
        return file

    async def ask(self, file: Path | None, method: str, path: str, **headers: str) -> int:
        """Ask with a certificate, and say what came of it."""
        context = https_trust(self.public)
        context.verify_flags |= ssl.VERIFY_X509_STRICT  # as Python 3.13 has it by itself
        if file is not None:
            context.load_cert_chain(file)
        async with aiohttp.ClientSession() as session:
            asked = session.request(method, self.url + path, ssl=context, headers=headers, json={})
            async with asked as answer:
                return answer.status


@pytest.fixture
async def desk(world: World) -> AsyncIterator[Desk]:
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    world.fleet.token_sha256 = digest
    settings = structs.replace(settings_of(world.dir / "a1"), token_sha256=digest, api_tls=True)
    door = ApiDoor(world.fleet, settings, world.authority)
    await door.start(Endpoint("127.0.0.1", 0), 100)
    await world.fleet.submit(NodeApplied(at=world.fleet.now(), name="h1", labels={}, spec=NodeSpec(), who="test"))
    yield Desk(world, door)
    await door.cleanup()


async def test_a_certificate_may_what_its_role_may_until_it_is_revoked(desk: Desk) -> None:
    ann, bob = await desk.certify("ann", "operator"), await desk.certify("bob", "viewer")
    assert ann.stat().st_mode & 0o777 == 0o600
    cordon = "/api/v1/nodes/h1:cordon"
    assert await desk.ask(None, "GET", "/api/v1/nodes") == HTTPStatus.UNAUTHORIZED
    assert await desk.ask(bob, "GET", "/api/v1/nodes") == HTTPStatus.OK
    assert await desk.ask(bob, "POST", cordon) == HTTPStatus.FORBIDDEN
    assert await desk.ask(ann, "POST", cordon) == HTTPStatus.OK
    assert await desk.ask(ann, "GET", "/api/v1/tokens") == HTTPStatus.FORBIDDEN
    assert desk.world.fleet.state.nodes["h1"].spec.unschedulable
    code, said = await desk.run("get", "nodes", "-o", "name", VIRTWARD_CERT_FILE=str(ann))
    assert (code, "h1" in said) == (0, True)
    code, said = await desk.run("token", "revoke", "ann")
    assert code == 0, said
    assert await desk.ask(ann, "GET", "/api/v1/nodes") == HTTPStatus.UNAUTHORIZED
    assert await desk.ask(bob, "GET", "/api/v1/nodes") == HTTPStatus.OK


async def test_what_stands_in_a_certificate_is_no_token(desk: Desk) -> None:
    """Everybody who is shown it reads it; the key alone makes it worth anything."""
    ann = await desk.certify("ann", "operator")
    names = x509.load_pem_x509_certificate(ann.read_bytes()).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    (uri,) = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    kept = desk.world.fleet.state.tokens["ann"].token_sha256
    for guess in (uri, uri.rpartition("/")[2], kept, f"ann/{uri.rpartition('/')[2]}"):
        bearer = {"Authorization": f"Bearer {guess}"}
        assert await desk.ask(None, "GET", "/api/v1/nodes", **bearer) == HTTPStatus.UNAUTHORIZED, guess


async def test_another_sites_page_writes_nothing_by_a_browsers_certificate(desk: Desk) -> None:
    ann = await desk.certify("ann", "operator")
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        assert await desk.ask(ann, "POST", "/api/v1/nodes/h1:cordon", **headers) == HTTPStatus.FORBIDDEN, headers
    assert not desk.world.fleet.state.nodes["h1"].spec.unschedulable


async def test_a_nodes_certificate_is_nobody_at_the_api_and_a_persons_is_no_node(desk: Desk) -> None:
    await desk.world.join("h1")
    assert await desk.ask(desk.dir / "h1.pem", "GET", "/api/v1/nodes") == HTTPStatus.UNAUTHORIZED
    ann = await desk.certify("h1", "admin")  # of the node's very name
    shown = client_context(desk.world.authority.text, ann)
    url, name = f"https://127.0.0.1:{desk.world.port}/agent/v1", Role.AGGREGATOR.server_name
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await desk.world.http.ws_connect(url, ssl=shown, server_hostname=name)
    agents = await desk.world.agent("h2")
    await until(lambda: desk.world.up("h2"))
    peer = f"https://127.0.0.1:{agents.port}/peer/v1/ping?nonce=n"
    async with desk.world.http.get(peer, ssl=shown, server_hostname=Role.AGENT.server_name) as answer:
        assert answer.status == HTTPStatus.FORBIDDEN


async def test_a_name_that_is_taken_leaves_no_file_behind(desk: Desk) -> None:
    await desk.certify("ann", "viewer")
    again = desk.dir / "again.pem"
    code, said = await desk.run("token", "create", "ann", "--certificate", str(again))
    assert (code, "there is a token 'ann' already" in said) == (1, True)
    assert not again.exists()
    code, said = await desk.run("token", "create", "new", "--certificate", str(desk.dir / "ann-person.pem"))
    assert (code, "cannot be made" in said) == (1, True)
    assert "new" not in desk.world.fleet.state.tokens
    with pytest.raises(ssl.SSLError):
        https_trust(desk.dir / "token")
