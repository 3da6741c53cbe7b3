"""The API's door: HTTPS that clients can check, and crowds and floods that cost nobody else anything."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shutil
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from pathlib import Path

import aiohttp
import pytest
from msgspec import structs

from aggregator.api import idle
from aggregator.api.auth import OPEN_AT_ONCE_MAX
from aggregator.api.idle import Idle
from aggregator.api_door import ApiDoor
from aggregator.authority import PUBLIC_NAME, Authority
from aggregator.settings import Endpoint, Settings
from cli.client import Client, Unreachable
from cli.settings import Settings as ClientSettings
from fleet import tls
from fleet.identity import Role
from fleet.messages import BeatAnswer
from tests.unit.shell.agent_speaker import PATIENCE_S, AgentSpeaker
from tests.unit.shell.identity_world import World, settings_of, until

TOKEN = "an-admins-token"
Opener = Callable[..., Awaitable[ApiDoor]]


@pytest.fixture
async def opened(world: World) -> AsyncIterator[Opener]:
    """Open doors to the world's fleet, closed afterwards."""
    doors: list[ApiDoor] = []

    async def open_one(**changes: object) -> ApiDoor:
        base = settings_of(world.dir / "a1")
        digest = hashlib.sha256(TOKEN.encode()).hexdigest()
        settings: Settings = structs.replace(base, token_sha256=digest, **{"api_tls": True, **changes})
        world.fleet.token_sha256 = digest
        door = ApiDoor(world.fleet, settings, world.authority)
        doors.append(door)
        await door.start(Endpoint("127.0.0.1", 0), 100)
        return door

    yield open_one
    for door in doors:
        await door.cleanup()


async def has_beaten(speaker: AgentSpeaker) -> None:
    """A node beats, and its beat is answered."""
    await speaker.beat()
    await speaker.hear(BeatAnswer)


async def honest(world: World) -> AgentSpeaker:
    speaker = world.speaker("h1", await world.join("h1"))
    await speaker.stand()
    await until(lambda: world.up("h1"))
    return speaker


def trusting(file: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=file)


async def shown(door: ApiDoor, file: Path) -> bytes:
    """Return the certificate that the door shows to who trusts what is in a file."""
    _reader, writer = await asyncio.open_connection(*door.address, ssl=trusting(file))
    session = writer.get_extra_info("ssl_object")
    writer.close()
    certificate: bytes = session.getpeercert(binary_form=True)
    return certificate


# --- whom a client speaks to


async def test_a_client_that_trusts_the_fleets_authority_knows_the_api_and_nobody_else_does(
    world: World, opened: Opener
) -> None:
    door = await opened()
    token = world.dir / "token"
    token.write_text(TOKEN)
    public = str(world.dir / "a1" / PUBLIC_NAME)
    for host in ("127.0.0.1", "localhost"):
        url = f"https://{host}:{door.address[1]}"
        known = Client(ClientSettings(url, str(token), public))
        assert "items" in await asyncio.to_thread(known.get, "/api/v1/nodes")
        with pytest.raises(Unreachable, match="nobody here vouches for"):
            await asyncio.to_thread(Client(ClientSettings(url, str(token))).get, "/api/v1/nodes")
    plain = Client(ClientSettings(f"http://127.0.0.1:{door.address[1]}", str(token)))
    with pytest.raises(Unreachable):
        await asyncio.to_thread(plain.get, "/api/v1/nodes")


async def test_the_apis_certificate_is_no_aggregators_for_agents(world: World, opened: Opener) -> None:
    """A key that leaks from there lets nobody stand for the aggregator, or come in as a node."""
    door = await opened()
    context = trusting(world.dir / "a1" / PUBLIC_NAME)
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.open_connection(*door.address, ssl=context, server_hostname=Role.AGGREGATOR.server_name)
    stolen = tls.client_context(world.authority.text, world.dir / "a1/identity/api.pem")
    url = f"https://127.0.0.1:{world.port}/agent/v1"
    with pytest.raises((aiohttp.ClientError, OSError)):
        await world.http.ws_connect(url, ssl=stolen, server_hostname=Role.AGGREGATOR.server_name)


async def test_the_certificate_follows_a_rotation_of_the_authority(world: World, opened: Opener) -> None:
    door = await opened()
    public = world.dir / "a1" / PUBLIC_NAME
    before, old = await shown(door, public), world.dir / "old.crt"
    shutil.copy(public, old)
    Authority(world.dir / "a1/identity", "a1").begin_rotation()
    await until(lambda: public.read_text() == world.authority.text != old.read_text())
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                assert await shown(door, public) != before
                break
            except ssl.SSLCertVerificationError:
                await asyncio.sleep(0.05)
    with pytest.raises(ssl.SSLCertVerificationError):
        await shown(door, old)


async def test_a_certificate_of_its_owners_is_shown_and_taken_anew_when_it_changes(
    world: World, opened: Opener
) -> None:
    other = Authority(world.dir / "company/identity", "pki")
    mine = world.dir / "mine.pem"
    other.certify_server(mine, (["localhost"], []))
    door = await opened(api_certificate=mine, api_key=mine)
    public = world.dir / "company" / PUBLIC_NAME

    async def seen() -> bytes:
        _reader, writer = await asyncio.open_connection(
            *door.address, ssl=trusting(public), server_hostname="localhost"
        )
        certificate: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return certificate

    first = await seen()
    other.certify_server(mine, (["localhost"], []))
    async with asyncio.timeout(PATIENCE_S):
        while await seen() == first:  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(0.05)


# --- crowds and floods; a node's beats are answered all the while


@pytest.mark.parametrize("secure", [True, False])
async def test_a_crowd_that_says_nothing_is_bounded_and_costs_nobody_a_beat(
    world: World, opened: Opener, *, secure: bool
) -> None:
    agent, door = await honest(world), await opened()
    if not secure:
        door = await opened(api_tls=False)
    listener = door._listener
    assert listener is not None
    crowd: list[asyncio.StreamWriter] = []
    try:
        while len(crowd) < 4 * idle.WAITING_PER_ADDRESS_MAX:
            crowd += [(await asyncio.open_connection(*door.address))[1]]
        await has_beaten(agent)
        if secure:
            await until(lambda: listener.refused > 0)
        else:
            await until(lambda: door._idle.closed >= 3 * idle.WAITING_PER_ADDRESS_MAX)
        assert door._idle.count <= idle.WAITING_PER_ADDRESS_MAX
        context = trusting(world.dir / "a1" / PUBLIC_NAME) if secure else True
        scheme = "https" if secure else "http"
        url = f"{scheme}://127.0.0.1:{door.address[1]}/healthz"
        async with asyncio.timeout(PATIENCE_S):
            while True:  # the crowd's handshakes end after a while; then there is room again
                await has_beaten(agent)
                try:
                    async with world.http.get(url, ssl=context) as answer:
                        assert answer.status == HTTPStatus.OK
                        break
                except (aiohttp.ClientError, OSError):
                    await asyncio.sleep(0.05)
        await until(lambda: world.up("h1"))  # a machine that is busy with other things may have stood still meanwhile
    finally:
        for writer in crowd:
            writer.close()


async def test_headers_that_come_too_slowly_end_their_connection(world: World, opened: Opener) -> None:
    agent, door = await honest(world), await opened(api_tls=False)
    reader, writer = await asyncio.open_connection(*door.address)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: a1\r\n")

    async def is_open() -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
                return False
        return True

    async with asyncio.timeout(2 * PATIENCE_S):
        while await is_open():
            writer.write(b"X-A: b\r\n")
            await has_beaten(agent)
    assert door._idle.closed == 1
    writer.close()


async def test_headers_and_bodies_without_end_are_refused_before_they_are_taken_in(
    world: World, opened: Opener
) -> None:
    agent, door = await honest(world), await opened(api_tls=False)
    base = f"http://127.0.0.1:{door.address[1]}"
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 512 * 1024 * 1024:
            sent += 65536
            yield b"x" * 65536

    wanted = {
        "/login": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "/api/v1/apply": HTTPStatus.UNAUTHORIZED,
        "/api/v1/nodes": HTTPStatus.UNAUTHORIZED,
    }
    for path, status in wanted.items():
        sent = 0
        try:
            async with world.http.post(base + path, data=endless()) as answer:
                assert answer.status == status, path
        except (aiohttp.ClientError, OSError):
            pass  # closed while it still wrote
        assert sent < 64 * 1024 * 1024, path
        await has_beaten(agent)
    for headers in ({"X-A": "a" * 1_000_000}, {f"X-{number}": "a" * 1000 for number in range(1000)}):
        try:
            async with world.http.get(base + "/healthz", headers=headers) as answer:
                assert answer.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        except (aiohttp.ClientError, OSError):
            pass
        await has_beaten(agent)


async def test_an_address_that_asks_without_end_is_slowed_and_a_token_from_there_is_not(
    world: World, opened: Opener
) -> None:
    door = await opened(api_tls=False)
    base = f"http://127.0.0.1:{door.address[1]}"
    statuses = set()
    for _ in range(int(OPEN_AT_ONCE_MAX) * 2):
        async with world.http.get(base + "/healthz") as answer:
            statuses.add(answer.status)
        if HTTPStatus.TOO_MANY_REQUESTS in statuses:
            break
    assert statuses == {HTTPStatus.OK, HTTPStatus.TOO_MANY_REQUESTS}
    async with world.http.get(base + "/api/v1/nodes", headers={"Authorization": f"Bearer {TOKEN}"}) as answer:
        assert answer.status == HTTPStatus.OK


class Pipe(asyncio.Transport):
    """A connection that only knows whether it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


async def test_of_those_that_wait_the_oldest_gives_way_and_who_asks_is_left_alone() -> None:
    waiting = Idle()
    first, asking = Pipe(), Pipe()
    for pipe in (first, asking):
        waiting.opened(pipe, "10.0.0.1")
    waiting.asked(asking)
    many = [Pipe() for _ in range(idle.WAITING_PER_ADDRESS_MAX)]
    for pipe in many:
        waiting.opened(pipe, "10.0.0.1")
    assert (first.closed, asking.closed, many[0].closed) == (True, False, False)
    waiting.answered(asking)
    assert (asking.closed, many[0].closed) == (False, True)
    for number in range(idle.WAITING_MAX):
        waiting.opened(Pipe(), f"10.1.{number // 250}.{number % 250}")
    assert waiting.count == idle.WAITING_MAX
    assert asking.closed
