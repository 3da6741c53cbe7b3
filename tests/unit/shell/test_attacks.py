"""What a node that lies, or a thief with its key, cannot do to the others; with real TLS and real agents."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from http import HTTPStatus

import aiohttp
import msgspec
import pytest

from agent import peer
from agent.relay import OFFER_PATH, RELAY_PATH
from aggregator.core.events import NodeState
from aggregator.plausible import CPU_M_MAX, NUMBER_MAX, POSITION_MAX, fault_of
from fleet.codec import BETWEEN_AGENTS
from fleet.identity import Role
from fleet.messages import (
    Beat,
    BeatAnswer,
    Delta,
    FromAgent,
    FullState,
    OrderReport,
    ProbeReport,
    ProbeResult,
    Refusal,
    RelayOffer,
    ReleasedNotice,
)
from fleet.model import Leadership, NodeFacts, OrderOutcome, Plane, QemuState, SessionKey, VmReport
from fleet.sealing import NONCE_CHARACTERS, Claim
from tests.unit.shell.agent_speaker import PATIENCE_S, AgentSpeaker
from tests.unit.shell.identity_world import World, until

UUID = "63625264-6470-54cf-8fdc-96cebe67af84"


@pytest.fixture
async def honest(world: World) -> AgentSpeaker:
    """A node that is none of the attacker's business."""
    speaker = world.speaker("h2", await world.join("h2"))
    await speaker.stand()
    await until(lambda: world.up("h2"))
    return speaker


async def is_served(speaker: AgentSpeaker) -> None:
    await speaker.beat()
    await speaker.hear(BeatAnswer)


def report(**changes: object) -> VmReport:
    return msgspec.structs.replace(VmReport(UUID, "web-1", QemuState.RUNNING, epoch=1, run=1, managed=True), **changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"facts": NodeFacts(machine_id="machine-h1", host_uuid="uuid-h1", cpu_m=CPU_M_MAX + 1)}, "millicores"),
        ({"facts": NodeFacts(machine_id="machine-h1", host_uuid="uuid-h1", cpu_m=-1)}, "millicores"),
        ({"facts": NodeFacts(machine_id="machine-h1", host_uuid="uuid-h1", memory_bytes=2**60)}, "memory"),
        ({"highest": Leadership(2**62, "x", 1)}, "term"),
        ({"highest": Leadership(1, "x", POSITION_MAX + 1)}, "obeyed term"),
        ({"highest": Leadership(1, "x", -1)}, "obeyed term"),
    ],
)
async def test_a_hello_that_cannot_be_meant_changes_nothing(
    world: World, honest: AgentSpeaker, changes: dict[str, object], words: str
) -> None:
    liar = world.speaker("h1", await world.join("h1"))
    liar.hello = msgspec.structs.replace(liar.hello, **changes)
    await liar.connect()
    await liar.say(liar.hello)
    refusal = await liar.hear_the_end()
    assert isinstance(refusal, Refusal)
    assert (refusal.code, words in refusal.message) == ("absurd", True)
    assert world.fleet.state.nodes["h1"].session is None
    assert not world.fleet.state.behind
    await is_served(honest)


async def test_numbers_that_cannot_be_meant_end_the_connection_before_they_are_folded(
    world: World, honest: AgentSpeaker
) -> None:
    shown = await world.join("h1")
    older = world.speaker("h1", shown).session
    absurd: list[Callable[[SessionKey], FromAgent]] = [
        lambda key: FullState(key, 2**62, (), (), complete=True),
        lambda key: FullState(key, 2, (report(epoch=2**62),), (), complete=True),
        lambda key: Delta(key, 2, vms=(report(epoch=NUMBER_MAX + 1),)),
        lambda _key: Beat(2**63, 1, 0),
        lambda key: OrderReport(key, "ord-1", UUID, 2**62, OrderOutcome.DONE),
    ]
    for number, message in enumerate(absurd, start=older.number + 1):
        liar = world.speaker("h1", shown)
        liar.session = msgspec.structs.replace(liar.session, number=number)
        liar.hello = msgspec.structs.replace(liar.hello, session=liar.session)
        await liar.stand()
        await liar.say(message(liar.session))
        refusal = await liar.hear_the_end()
        assert isinstance(refusal, Refusal), number
        assert refusal.code == "absurd", number
    assert all(vm.epoch_top < NUMBER_MAX for vm in world.fleet.state.vms.values())
    await is_served(honest)
    await world.stop()
    await world.start()  # and the journal is one that can be read


@pytest.mark.parametrize("asked_ago_s", [math.nan, math.inf, -5.0, 1e300])
def test_a_time_that_is_none_cannot_be_meant(asked_ago_s: float) -> None:
    session = AgentSpeaker("", "h1", "").session
    good = ProbeReport(session, "p-1", "h2", (ProbeResult(Plane.CONTROL, "agent", answered=True, asked_ago_s=0.5),))
    assert not fault_of(good)
    wrong = ProbeResult(Plane.CONTROL, "agent", answered=True, asked_ago_s=asked_ago_s)
    assert fault_of(msgspec.structs.replace(good, results=(wrong,))) == f"asked_ago_s is {asked_ago_s}"


async def test_somebody_elses_vm_does_not_become_a_liars(world: World, honest: AgentSpeaker) -> None:
    """It is noted as seen there too; nobody's copy ends for it, and its owner stays its owner."""
    await honest.say(Delta(honest.session, 2, vms=(report(),)))
    await until(lambda: UUID in world.fleet.state.foreign.get("h2", {}))
    liar = world.speaker("h1", await world.join("h1"))
    await liar.stand(report(epoch=999))
    await until(lambda: UUID in world.fleet.state.foreign.get("h1", {}))
    await liar.say(Delta(liar.session, 2, vms=(report(state=QemuState.GONE, released=True),)))
    await until(lambda: UUID not in world.fleet.state.foreign.get("h1", {}))
    assert UUID in world.fleet.state.foreign["h2"], "what h2 runs is h2's to say"
    assert not world.fleet.state.orders


async def test_a_frame_that_is_too_long_ends_its_own_connection_alone(world: World, honest: AgentSpeaker) -> None:
    liar = world.speaker("h1", await world.join("h1"))
    await liar.stand()
    await liar.say_bytes(b"\x00" * (20 * 1024 * 1024))
    await liar.hear_the_end()
    await is_served(honest)
    await until(lambda: world.fleet.state.nodes["h1"].connected is False)
    assert world.fleet.state.nodes["h2"].state is NodeState.UP


async def test_headers_without_end_are_refused(world: World, honest: AgentSpeaker) -> None:
    context = (await world.join("h1")).context
    for headers in ({"X-A": "a" * 1_000_000}, {f"X-{number}": "a" * 1000 for number in range(1000)}):
        url = f"https://127.0.0.1:{world.port}/agent/v1"
        name = Role.AGGREGATOR.server_name
        try:
            async with world.http.get(url, headers=headers, ssl=context, server_hostname=name) as answer:
                assert answer.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        except (aiohttp.ClientError, OSError):
            pass  # closed while it still wrote
        await is_served(honest)


async def test_an_agent_takes_from_a_peer_only_what_is_the_peers_own(world: World) -> None:
    """h3's certificate brings neither h2's notice nor h2's offer, nor does it use h2's ticket."""
    agent, thief = await world.agent("h1"), await world.join("h3")
    await until(lambda: world.up("h1"))
    base = f"https://127.0.0.1:{agent.port}"
    notice = ReleasedNotice(UUID, "mig-1", "h2", 1, 2, "secret", Leadership(1, "x", 1))
    offer = RelayOffer("h2", "h1", 8422, "ticket")
    claim = Claim("h2", "h1", "0" * NONCE_CHARACTERS).header()

    async def ask(method: str, path: str, **more: object) -> int:
        where = {"ssl": thief.context, "server_hostname": Role.AGENT.server_name}
        async with world.http.request(method, base + path, **where, **more) as answer:  # type: ignore[arg-type]
            return answer.status

    assert await ask("POST", "/peer/v1/released", data=BETWEEN_AGENTS.encode(notice)) == HTTPStatus.FORBIDDEN
    assert await ask("POST", OFFER_PATH, data=BETWEEN_AGENTS.encode(offer)) == HTTPStatus.FORBIDDEN
    agent.daemon._relay._tickets["h2"] = ("t1", math.inf)
    shown = {"headers": {"Authorization": claim}}
    assert await ask("GET", f"{RELAY_PATH}?ticket=t1", **shown) == HTTPStatus.FORBIDDEN
    assert "h2" in agent.daemon._relay._tickets, "a ticket that somebody else shows is not spent"
    own = msgspec.structs.replace(offer, peer="h3")
    assert await ask("POST", OFFER_PATH, data=BETWEEN_AGENTS.encode(own)) == HTTPStatus.NO_CONTENT
    assert peer.BODY_BYTES_MAX < 100_000
    assert await ask("POST", OFFER_PATH, data=b"x" * 100_000) == HTTPStatus.REQUEST_ENTITY_TOO_LARGE


async def test_nobody_carries_a_connection_in_anothers_name(world: World, honest: AgentSpeaker) -> None:
    """The carrier is who its certificate names; a claim that names another carrier is refused."""
    await world.join("h1")
    thief = await world.join("h3")
    url, name = f"https://127.0.0.1:{world.port}/agent/v1", Role.AGGREGATOR.server_name
    claim = Claim("h1", "h2", "0" * NONCE_CHARACTERS).header()
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await world.http.ws_connect(url, headers={"Authorization": claim}, ssl=thief.context, server_hostname=name)
    own = Claim("h1", "h3", "0" * NONCE_CHARACTERS).header()
    async with world.http.ws_connect(
        url, headers={"Authorization": own}, ssl=thief.context, server_hostname=name
    ) as carried:
        async with asyncio.timeout(PATIENCE_S):
            await carried.receive()  # the challenge, which h3 cannot seal an answer to
            await carried.send_bytes(b"\x00" * 64)
            await carried.receive()
    assert world.fleet.state.nodes["h1"].session is None
    await is_served(honest)
