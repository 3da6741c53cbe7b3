"""Who may speak as whom: real agents, a real authority, real TLS on loopback, and what an attacker would try."""

from __future__ import annotations

import asyncio
import json
import ssl
import struct
import time
from http import HTTPStatus
from pathlib import Path

import aiohttp
import msgspec
import pytest

from aggregator.authority import Authority
from aggregator.core.events import NodeRevoked
from aggregator.joining import RENEW_AFTER_END_S_MAX
from fleet import tls
from fleet.identity import (
    JOIN_PATH,
    RENEW_PATH,
    Issued,
    JoinRequest,
    JoinToken,
    RenewRequest,
    Role,
    identity_of,
    key_text,
    make_request,
    new_key,
)
from fleet.messages import BeatAnswer, Refusal
from fleet.tls import client_context, stranger_context
from tests.unit.shell.agent_speaker import PATIENCE_S
from tests.unit.shell.identity_world import Agent, Shown, World, until

# --- joining and renewing


async def test_an_agent_joins_by_its_token_once_and_comes_back_without_it(world: World) -> None:
    agent = await world.agent("h1")
    await until(lambda: world.up("h1"))
    assert agent.access.identity is not None
    assert (agent.access.identity.role, agent.access.identity.name) == (Role.AGENT, "h1")
    for path in (agent.dir / "identity").iterdir():
        assert path.stat().st_mode & 0o077 == 0, path
    token = agent.token_file.read_text()
    status, said = await world.ask(JOIN_PATH, JoinRequest(token, make_request(new_key())))
    assert (status, b"used" in said) == (HTTPStatus.FORBIDDEN, True)
    await agent.stop()
    agent.token_file.unlink()
    agent.start()
    await until(lambda: world.up("h1"))


async def test_a_certificate_is_renewed_with_another_key_and_no_session_ends(tmp_path: Path) -> None:
    world = World(tmp_path, life_s=10.0)
    await world.start()
    try:
        agent, other = await world.agent("h1"), await world.agent("h2")
        await until(lambda: world.up("h1") and world.up("h2"))
        first, session = agent.key(), world.fleet.state.nodes["h1"].session
        seen = {first}
        for _ in range(2):
            await until(lambda: agent.key() not in seen)
            seen.add(agent.key())
        assert world.fleet.state.nodes["h1"].session == session
        url = f"https://127.0.0.1:{agent.port}/peer/v1/ping?nonce=n"
        shown, name = other.access.outgoing, Role.AGENT.server_name
        assert isinstance(shown, ssl.SSLContext)

        async def answered() -> bool:  # reloaded on both sides; on a busy machine an end may fall between two renewals
            try:
                async with world.http.get(url, ssl=shown, server_hostname=name) as answer:
                    return await answer.text() == "n"
            except aiohttp.ClientError:
                return False

        async with asyncio.timeout(PATIENCE_S):
            while not await answered():  # noqa: ASYNC110 - nobody announces it
                await asyncio.sleep(0.1)
    finally:
        await world.close()


async def test_after_days_without_an_aggregator_every_node_is_back_without_a_person(tmp_path: Path) -> None:
    world = World(tmp_path, life_s=4.0)
    await world.start()
    try:
        agents = [await world.agent(name) for name in ("h1", "h2", "h3")]
        await until(lambda: all(world.up(agent.name) for agent in agents))
        await world.stop()
        await until(
            lambda: all(a.access.identity is not None and a.access.identity.until < time.time() for a in agents)
        )
        await world.start()
        await until(lambda: all(world.up(agent.name) for agent in agents))
    finally:
        await world.close()


async def test_an_ended_certificate_may_only_renew_by_its_own_key_and_not_for_ever(world: World) -> None:
    await world.join("h1")
    enrolment = world.fleet.state.nodes["h1"].credentials.enrolment
    key, thief = new_key(), new_key()
    ended, _ = world.authority.sign(key.public_key(), Role.AGENT, "h1", enrolment, at=time.time() - world.life_s - 60)
    shown = Shown(world.dir / "ended.pem", world.authority.text, ended, key_text(key))
    with pytest.raises((aiohttp.ClientError, ssl.SSLError, OSError)):  # TLS itself refuses it
        await world.speaker("h1", shown).connect()
    status, raw = await world.ask(RENEW_PATH, RenewRequest(make_request(key), ended))
    assert status == HTTPStatus.OK
    fresh = identity_of(ssl.PEM_cert_to_DER_cert(msgspec.json.decode(raw, type=Issued).certificate))
    assert (fresh.name, fresh.until > time.time()) == ("h1", True)
    status, said = await world.ask(RENEW_PATH, RenewRequest(make_request(thief), ended))
    assert (status, b"not signed by the key" in said) == (HTTPStatus.FORBIDDEN, True)
    long_ago = time.time() - world.life_s - RENEW_AFTER_END_S_MAX - 60
    stale, _ = world.authority.sign(key.public_key(), Role.AGENT, "h1", enrolment, at=long_ago)
    status, said = await world.ask(RENEW_PATH, RenewRequest(make_request(key), stale))
    assert (status, b"30 days" in said) == (HTTPStatus.FORBIDDEN, True)


async def test_a_token_that_is_too_old_or_made_up_is_refused_and_guessing_is_locked_out(world: World) -> None:
    late = await world.token("h1", good_s=-1.0)
    assert (await world.ask(JOIN_PATH, JoinRequest(late, make_request(new_key()))))[0] == HTTPStatus.FORBIDDEN
    guess = JoinToken("guess", world.authority.sha256).text()
    answers = [(await world.ask(JOIN_PATH, JoinRequest(guess, make_request(new_key()))))[0] for _ in range(12)]
    assert answers[0] == HTTPStatus.FORBIDDEN
    assert answers[-1] == HTTPStatus.TOO_MANY_REQUESTS
    good = await world.token("h1")
    assert (await world.ask(JOIN_PATH, JoinRequest(good, make_request(new_key()))))[0] == HTTPStatus.TOO_MANY_REQUESTS


async def test_of_two_that_show_one_token_at_once_one_joins(world: World) -> None:
    token = await world.token("h1")
    asked = [world.ask(JOIN_PATH, JoinRequest(token, make_request(new_key()))) for _ in range(4)]
    answers = sorted(status for status, _ in await asyncio.gather(*asked))
    assert answers == [HTTPStatus.OK] + [HTTPStatus.FORBIDDEN] * 3


async def test_an_agent_does_not_join_an_aggregator_that_its_token_does_not_name(world: World, tmp_path: Path) -> None:
    false = World(tmp_path / "false")
    false.dir.mkdir()
    await false.start()
    try:
        agent = Agent(tmp_path, "h1", false.port)
        agent.token_file.write_text(await world.token("h1"))
        agent.token_file.chmod(0o600)
        agent.start()
        await until(lambda: "not the aggregator" in str(agent.daemon._enrolment._told))  # type: ignore[union-attr]
        assert agent.access.identity is None
        assert world.fleet.state.nodes["h1"].credentials.join_sha256  # not spent: it was not shown
        await agent.stop()
    finally:
        await false.close()


# --- attacks


async def test_a_node_writes_only_itself(world: World) -> None:
    mine = await world.join("h1")
    await world.join("h2")
    liar = world.speaker("h2", mine)
    await liar.connect()
    await liar.say(liar.hello)
    refusal = await liar.hear_the_end()
    assert isinstance(refusal, Refusal)
    assert refusal.code == "identity"
    assert world.fleet.state.nodes["h2"].session is None
    honest = world.speaker("h1", mine)
    await honest.stand()


@pytest.mark.parametrize("who", ["nobody", "stranger", "aggregator", "revoked", "replaced", "unknown"])
async def test_only_a_present_certificate_of_a_node_opens_the_door(world: World, who: str) -> None:
    mine, key = await world.join("h1"), new_key()
    shown: Shown | None = mine
    if who == "nobody":
        shown = None
    elif who == "stranger":
        other = Authority(world.dir / "other", "a1")
        text, _ = other.sign(key.public_key(), Role.AGENT, "h1", world.fleet.state.nodes["h1"].credentials.enrolment)
        shown = Shown(world.dir / "x.pem", world.authority.text, text, key_text(key))
    elif who == "aggregator":
        text, _ = world.authority.sign(key.public_key(), Role.AGGREGATOR, "h1")
        shown = Shown(world.dir / "x.pem", world.authority.text, text, key_text(key))
    elif who == "revoked":
        await world.fleet.submit(NodeRevoked(at=world.fleet.now(), name="h1", who="test"))
    elif who == "replaced":
        await world.join("h1")
    else:
        text, _ = world.authority.sign(key.public_key(), Role.AGENT, "h9", "0" * 32)
        shown = Shown(world.dir / "x.pem", world.authority.text, text, key_text(key))
    with pytest.raises((aiohttp.ClientError, ssl.SSLError, OSError)):
        await world.speaker("h1", shown).connect()
    if who in ("revoked", "replaced"):
        status, _said = await world.ask(RENEW_PATH, RenewRequest(make_request(key)), mine.context)
        assert status == HTTPStatus.FORBIDDEN


async def test_revocation_ends_the_session_that_stands(world: World) -> None:
    mine = await world.join("h1")
    agent = world.speaker("h1", mine)
    await agent.stand()
    await until(lambda: world.up("h1"))
    await world.fleet.submit(NodeRevoked(at=world.fleet.now(), name="h1", who="test"))
    await agent.beat()
    refusal = await agent.hear_the_end()
    assert isinstance(refusal, Refusal)
    assert refusal.code == "revoked"


async def test_an_agents_certificate_cannot_stand_for_an_aggregator(world: World) -> None:
    """An agent asks for the aggregator's name in TLS itself, before it says a word."""
    agent = await world.agent("h1")
    other = await world.agent("h2")
    await until(lambda: world.up("h1") and world.up("h2"))
    shown = other.access.outgoing
    assert isinstance(shown, ssl.SSLContext)
    url = f"https://127.0.0.1:{agent.port}/peer/v1/ping"
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await world.http.get(url, ssl=shown, server_hostname=Role.AGGREGATOR.server_name)
    with pytest.raises((aiohttp.ClientError, OSError)):  # and nobody without a certificate is heard by an agent
        await world.http.get(url, ssl=stranger_context())


async def test_an_agents_certificate_opens_nothing_but_the_agents_routes(world: World) -> None:
    mine = await world.join("h1")
    for path in ("/api/v1/nodes", "/api/v1/nodes/h2:cordon", "/agent/v1/../../api/v1/vms", "/%2e%2e/etc/passwd"):
        status, _said = await world.ask(path, {}, mine.context)
        assert status in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED), path


async def test_older_tls_is_refused(world: World) -> None:
    context = client_context(world.authority.text, None)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(aiohttp.ClientConnectorError):
        await world.ask(JOIN_PATH, {}, context)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"\xff\xfe",
        b"[" * 50_000,
        json.dumps({"token": "x", "request": "y"}).encode(),
        json.dumps({"token": "x", "request": "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n"}).encode(),
        json.dumps({"token": "x", "request": "z" * 9000}).encode(),
        json.dumps({"token": "x", "request": "y", "node": "h1"}).encode(),
    ],
)
async def test_nonsense_for_a_certificate_is_one_sentence(world: World, body: bytes) -> None:
    for path in (JOIN_PATH, RENEW_PATH):
        status, said = await world.ask(path, body)
        assert status == HTTPStatus.BAD_REQUEST
        assert b"Traceback" not in said
        assert len(said.splitlines()) == 1


async def test_a_body_that_is_too_long_is_refused(world: World) -> None:
    assert (await world.ask(JOIN_PATH, b"x" * 100_000))[0] == HTTPStatus.REQUEST_ENTITY_TOO_LARGE


async def test_connections_without_a_handshake_hold_nobody_up(world: World) -> None:
    """A crowd that says nothing is bounded for each address, and beats of others are answered meanwhile."""
    mine = await world.join("h1")
    agent = world.speaker("h1", mine)
    await agent.stand()
    await until(lambda: world.up("h1"))
    listener = world.door._listener
    assert listener is not None
    crowd = []
    try:
        for _ in range(3 * tls.HANDSHAKES_PER_ADDRESS_MAX):
            _reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
            crowd.append(writer)
        await until(lambda: listener.refused >= tls.HANDSHAKES_PER_ADDRESS_MAX)
        assert listener._shaking["127.0.0.1"] <= tls.HANDSHAKES_PER_ADDRESS_MAX
        async with asyncio.timeout(PATIENCE_S):
            while listener._shaking:  # until HANDSHAKE_S_MAX has ended each of them
                await agent.beat()
                await agent.hear(BeatAnswer)
                assert world.up("h1")
                await asyncio.sleep(0.05)
        await world.join("h2")
    finally:
        for writer in crowd:
            writer.close()


async def test_a_wrong_frame_of_one_node_costs_the_others_nothing(world: World) -> None:
    bad, good = world.speaker("h1", await world.join("h1")), world.speaker("h2", await world.join("h2"))
    await bad.stand()
    await good.stand()
    await bad.say_bytes(struct.pack(">I", 0xFFFFFFFF) + b"\xc1" * 1000)
    await bad.hear_the_end()
    await good.beat()
    await until(lambda: world.up("h2"))
