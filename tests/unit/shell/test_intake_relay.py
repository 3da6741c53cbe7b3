"""A session that a peer carries: sealed, bound to our answers, and taken only from who may speak so."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from aggregator.core.events import BeatHeard, NodeState
from fleet.codec import FROM_AGENT, FROM_AGGREGATOR
from fleet.messages import Beat, BeatAnswer, Challenge, FromAgent, FromAggregator, Refusal, Welcome
from fleet.model import SessionKey
from fleet.sealing import NONCE_CHARACTERS, Claim, Seal, SealError, seal_of, token_digest
from tests.unit.shell.agent_speaker import PATIENCE_S, AgentSpeaker, enrol
from tests.unit.shell.conftest import Opener, Running
from tests.unit.shell.test_intake import until


class RelayedSpeaker(AgentSpeaker):
    """Speaks as an agent whose frames a peer carries; what a peer does to frames, a test may do."""

    def __init__(self, running: Running, node: str, via: str, token: str = "") -> None:
        session = SessionKey(f"boot-{node}", "start-1", 7)
        super().__init__(running.url, node, token or f"token-of-{node}", session=session)
        self.claim = Claim(node, via, "0" * NONCE_CHARACTERS)
        self.seal: Seal | None = None
        running.speakers.append(self)

    async def connect(self) -> None:
        self._client = aiohttp.ClientSession()
        headers = {"Authorization": self.claim.header()}
        self.socket = await self._client.ws_connect(self.url, headers=headers, max_msg_size=0)
        frame = await self.socket.receive()
        challenge = FROM_AGGREGATOR.decode(frame.data)
        assert isinstance(challenge, Challenge)
        self.seal = seal_of(self.claim, challenge.nonce, token_digest(self.token), at_agent=True)

    async def say(self, message: FromAgent) -> None:
        assert self.seal is not None
        await self.say_bytes(self.seal.close(FROM_AGENT.encode(message)))

    async def next_message(self) -> FromAggregator | None:
        assert self.socket is not None
        assert self.seal is not None
        async with asyncio.timeout(PATIENCE_S):
            frame = await self.socket.receive()
        return FROM_AGGREGATOR.decode(self.seal.open(frame.data)) if frame.type is aiohttp.WSMsgType.BINARY else None


@pytest.fixture
async def running(opened: Opener) -> Running:
    """Return an aggregator that has heard h1 and h2 directly; h1's connection is still open."""
    one = await opened(unseenAtLeast="5s")
    await enrol(one.fleet, "h1", "h2", "h3")
    for node in ("h1", "h2"):
        await one.agent(node).stand()
        await until(one.fleet, "up", node=node)
    return one


async def test_a_relayed_session_stands_and_replaces_the_silent_one(running: Running) -> None:
    agent = RelayedSpeaker(running, "h1", "h2")
    await agent.stand()
    await running.fleet.at_rest()
    await until(running.fleet, "connected")
    async with asyncio.timeout(PATIENCE_S):
        while not running.fleet.state.nodes["h1"].via:
            await running.fleet.wait_for_change(running.fleet.durable_position)
    node = running.fleet.state.nodes["h1"]
    assert (node.via, node.session, node.state) == ("h2", agent.session, NodeState.UP)
    await agent.beat()
    assert (await agent.hear(BeatAnswer)).sequence == 1
    assert running.fleet.intake.standing("h1", agent.session) is not None


async def test_another_token_cannot_speak_so(running: Running) -> None:
    agent = RelayedSpeaker(running, "h1", "h2", token="token-of-h2")
    await agent.connect()
    await agent.say(agent.hello)
    with pytest.raises(SealError):
        await agent.hear(Welcome)  # the refusal bears a seal this token cannot read
    assert running.fleet.state.nodes["h1"].via == ""


async def test_a_frame_that_the_peer_changed_ends_the_connection(running: Running) -> None:
    agent = RelayedSpeaker(running, "h1", "h2")
    await agent.stand()
    assert agent.seal is not None
    sealed = agent.seal.close(FROM_AGENT.encode(Beat(sequence=1, generation=1)))
    await agent.say_bytes(sealed[:-1] + bytes([sealed[-1] ^ 1]))
    refusal = await agent.hear_the_end()
    assert isinstance(refusal, Refusal)
    assert refusal.code == "seal"


@pytest.mark.parametrize(("node", "via"), [("h1", "h3"), ("h1", "h9"), ("h1", "h1"), ("h3", "h2")])
async def test_who_may_not_carry_or_be_carried_is_refused(running: Running, node: str, via: str) -> None:
    """h3 has never spoken itself: it can carry nobody, and nobody can be its first word."""
    agent = RelayedSpeaker(running, node, via)
    await agent.connect()
    await agent.say(agent.hello)
    refusal = await agent.hear_the_end()
    assert isinstance(refusal, Refusal)
    assert refusal.code == "RELAY"


async def test_a_connection_for_one_node_cannot_speak_for_another(running: Running) -> None:
    agent = RelayedSpeaker(running, "h1", "h2")
    await agent.connect()
    await agent.say(RelayedSpeaker(running, "h3", "h2").hello)
    assert isinstance(await agent.hear_the_end(), Refusal)


async def test_a_node_nobody_knows_gets_no_connection(running: Running) -> None:
    agent = RelayedSpeaker(running, "h9", "h2")
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await agent.connect()


async def test_beats_that_were_kept_back_are_answered_and_prove_nothing(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each beat says which answer its agent had seen; one that saw none since the welcome may be as old as that."""
    heard: list[BeatHeard] = []
    offer = running.fleet.offer

    def listen(fact: object) -> bool:
        if isinstance(fact, BeatHeard) and fact.node == "h1" and fact.made_after is not None:
            heard.append(fact)
        return offer(fact)  # type: ignore[arg-type]

    monkeypatch.setattr(running.fleet, "offer", listen)
    agent = RelayedSpeaker(running, "h1", "h2")
    await agent.stand()
    for sequence, answered in ((1, 0), (2, 0), (3, 2), (4, 99)):
        await agent.say(Beat(sequence=sequence, generation=1, answered=answered))
        assert (await agent.hear(BeatAnswer)).sequence == sequence
    first, second, third, forged = heard
    assert first.made_after == second.made_after
    assert third.made_after is not None
    assert second.made_after is not None
    assert second.made_after < third.made_after <= third.at
    assert forged.made_after == 0.0


async def test_a_first_state_that_came_too_late_opens_nothing(opened: Opener) -> None:
    running = await opened(unseenAtLeast="5s", lease="3s")
    await enrol(running.fleet, "h1", "h2")
    for node in ("h1", "h2"):
        await running.agent(node).stand()
        await until(running.fleet, "up", node=node)
    agent = RelayedSpeaker(running, "h1", "h2")
    await agent.connect()
    await agent.say(agent.hello)
    await agent.hear(Welcome)
    assert await agent.hear_the_end() is None
    assert running.fleet.state.nodes["h1"].via == ""
