"""The agents' door: who is let in, what a session is, and how whatever is no protocol ends."""

from __future__ import annotations

import asyncio
import os
import socket as sockets
from contextlib import suppress

import aiohttp
import pytest
from aiohttp import web

from aggregator import connection as connection_module
from aggregator.core.events import NodeState
from aggregator.core.state import State
from aggregator.fleet import Fleet
from aggregator.fleet_access import HistoryQuery
from fleet.messages import (
    FRAME_BYTES_MAX,
    Beat,
    BeatAnswer,
    CheckDefinition,
    DefinitionChecked,
    Delta,
    FullState,
    Goodbye,
    Refusal,
    Welcome,
)
from fleet.model import QemuState, SessionKey, VmReport
from tests.unit.shell.agent_speaker import PATIENCE_S, enrol
from tests.unit.shell.conftest import Opener, Running


async def until(fleet: Fleet, condition: str, *, node: str = "h1") -> State:
    """Wait until a node is connected, gone or Up."""

    def holds() -> bool:
        record = fleet.state.nodes.get(node)
        if record is None:
            return False
        return {
            "connected": record.connected,
            "gone": not record.connected,
            "up": record.state is NodeState.UP,
        }[condition]

    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await fleet.wait_for_change(fleet.durable_position)
    await fleet.at_rest()
    return fleet.state


async def sessions(running: Running) -> list[str]:
    """Return what history says of sessions."""
    lines = await running.fleet.history(HistoryQuery())
    return [line.kind for line in lines if line.kind.startswith("Session")]


async def until_sessions(running: Running, *wanted: str) -> None:
    """Wait until history says exactly this of sessions."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            position = running.fleet.durable_position
            if await sessions(running) == list(wanted):
                return
            await running.fleet.wait_for_change(position)


@pytest.fixture
async def running(opened: Opener) -> Running:
    one = await opened(unseenAtLeast="5s")
    await enrol(one.fleet, "h1", "h2")
    return one


async def test_an_agent_is_welcomed_stands_and_its_beats_are_answered(running: Running) -> None:
    agent = running.agent("h1")
    welcome = await agent.stand()
    assert (welcome.session, welcome.heartbeat_s, welcome.leader.term) == (agent.session, 1.0, 1)
    await until(running.fleet, "up")
    await agent.beat()
    answer = await agent.hear(BeatAnswer)
    assert answer.sequence == 1
    assert answer.leader.instance == welcome.leader.instance
    assert answer.leader.position == running.fleet.durable_position


async def test_a_session_is_a_fact_only_when_its_full_state_is_in(running: Running) -> None:
    agent = running.agent("h1")
    await agent.connect()
    await agent.say(agent.hello)
    await agent.hear(Welcome)
    assert running.fleet.intake.standing("h1") is None
    assert await sessions(running) == []
    vm = VmReport(uuid="u-1", name="a", state=QemuState.RUNNING)
    await agent.say(FullState(session=agent.session, generation=1, vms=(vm,), in_hand=(), complete=True))
    await until(running.fleet, "connected")
    assert running.fleet.intake.standing("h1", agent.session) is not None
    assert running.fleet.intake.standing("h1", SessionKey("x", "y", 1)) is None


@pytest.mark.parametrize("token", ["wrong", "token-of-h2"])
async def test_a_wrong_token_is_refused_with_a_way_out(running: Running, token: str) -> None:
    agent = running.agent("h1", token=token)
    await agent.connect()
    await agent.say(agent.hello)
    refusal = await agent.hear_the_end()
    assert isinstance(refusal, Refusal)
    assert "virtward node token h1" in refusal.message
    assert not running.fleet.state.nodes["h1"].connected


async def test_an_unknown_node_is_refused(running: Running) -> None:
    agent = running.agent("h9")
    await agent.connect()
    await agent.say(agent.hello)
    assert isinstance(await agent.hear_the_end(), Refusal)
    assert "h9" not in running.fleet.state.nodes


@pytest.mark.parametrize("header", [None, "Basic eDp5", "Bearer", "Bearer  "])
async def test_without_a_token_there_is_no_connection(running: Running, header: str | None) -> None:
    async with aiohttp.ClientSession() as client:
        headers = {"Authorization": header} if header is not None else {}
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.ws_connect(running.url, headers=headers)
    assert refused.value.status == 401


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (b"", "no message of an agent"),
        (b"\xff" * 40, "no message of an agent"),
        (b"\x81\xa1t\xa5hello", "protocol_min"),
        (b"\x81\xa1t\xa7welcome", "no message of an agent"),
        (b"\xdd\xff\xff\xff\xff", "no message of an agent"),
    ],
)
@pytest.mark.parametrize("when", ["before hello", "standing"])
async def test_garbage_is_refused_in_one_sentence_and_ends_the_connection(
    running: Running, frame: bytes, said: str, when: str
) -> None:
    agent = running.agent("h1")
    if when == "standing":
        await agent.stand()
        await until(running.fleet, "connected")
    else:
        await agent.connect()
    await agent.say_bytes(frame)
    refusal = await agent.hear_the_end()
    assert isinstance(refusal, Refusal)
    assert said in refusal.message
    assert "\n" not in refusal.message
    await until(running.fleet, "gone")


async def test_garbage_of_any_kind_never_hurts_the_others(running: Running) -> None:
    other = running.agent("h2")
    await other.stand()
    for _ in range(20):
        agent = running.agent("h1")
        await agent.connect()
        await agent.say_bytes(os.urandom(64))
        await agent.hear_the_end()
    await other.beat()
    assert (await other.hear(BeatAnswer)).sequence == 1


async def test_a_text_frame_is_refused(running: Running) -> None:
    agent = running.agent("h1")
    await agent.connect()
    assert agent.socket is not None
    await agent.socket.send_str("hello")
    assert isinstance(await agent.hear_the_end(), Refusal)


async def test_a_frame_over_the_limit_ends_the_connection(running: Running) -> None:
    agent = running.agent("h1")
    await agent.stand()
    await until(running.fleet, "connected")
    with suppress(aiohttp.ClientError, ConnectionError):  # it may be closed while we still write
        await agent.say_bytes(b"x" * (FRAME_BYTES_MAX + 1))
    await until(running.fleet, "gone")


async def test_a_frame_out_of_place_ends_the_connection(running: Running) -> None:
    agent = running.agent("h1")
    await agent.connect()
    await agent.say(Beat(sequence=1, generation=1))
    refusal = await agent.hear_the_end()
    assert isinstance(refusal, Refusal)
    assert refusal.message == "the first frame must be a Hello, not a Beat"


async def test_a_second_hello_has_no_place(running: Running) -> None:
    agent = running.agent("h1")
    await agent.stand()
    await agent.say(agent.hello)
    assert isinstance(await agent.hear_the_end(), Refusal)


async def test_a_frame_of_another_session_ends_the_connection(running: Running) -> None:
    agent = running.agent("h1")
    await agent.stand()
    await agent.say(Delta(session=SessionKey("other", "start", 7), generation=2))
    assert isinstance(await agent.hear_the_end(), Refusal)


@pytest.mark.parametrize("generation", [0, 1, 3])
async def test_a_missed_delta_ends_the_session_so_that_all_is_told_again(running: Running, generation: int) -> None:
    agent = running.agent("h1")
    await agent.stand()
    await agent.say(Delta(session=agent.session, generation=generation))
    assert await agent.hear_the_end() is None
    await until_sessions(running, "SessionOpened", "SessionEnded")


async def test_a_beat_that_speaks_of_a_missed_delta_ends_the_session(running: Running) -> None:
    agent = running.agent("h1")
    await agent.stand()
    await agent.say(Beat(sequence=1, generation=4))
    assert await agent.hear_the_end() is None


async def test_a_newer_session_replaces_the_older_one(running: Running) -> None:
    old = running.agent("h1")
    await old.stand()
    await until(running.fleet, "connected")
    new = running.agent("h1", session=SessionKey("boot-h1", "start-1", 2))
    await new.stand()
    assert await old.hear_the_end() is None
    await until_sessions(running, "SessionOpened", "SessionEnded", "SessionOpened")
    assert running.fleet.state.nodes["h1"].session == new.session
    assert running.fleet.intake.standing("h1", new.session) is not None


async def test_an_older_session_does_not_replace_the_one_that_stands(running: Running) -> None:
    new = running.agent("h1", session=SessionKey("boot-h1", "start-1", 5))
    await new.stand()
    await until(running.fleet, "connected")
    old = running.agent("h1", session=SessionKey("boot-h1", "start-1", 4))
    await old.connect()
    await old.say(old.hello)
    assert isinstance(await old.hear_the_end(), Refusal)
    await new.beat()
    assert (await new.hear(BeatAnswer)).sequence == 1


@pytest.mark.parametrize("how", ["goodbye", "closed", "reset"])
async def test_the_way_a_session_ended_is_told(running: Running, how: str) -> None:
    agent = running.agent("h1")
    await agent.stand()
    await until(running.fleet, "connected")
    if how == "goodbye":
        await agent.say(Goodbye(session=agent.session, reason="upgrade"))
    elif how == "closed":
        assert agent.socket is not None
        await agent.socket.close()
    else:
        assert agent.socket is not None
        raw = agent.socket.get_extra_info("socket")
        raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        transport = agent.socket._conn.transport  # type: ignore[union-attr]
        assert transport is not None
        transport.abort()
    await until(running.fleet, "gone")
    (line,) = await running.fleet.history(HistoryQuery(kind="SessionEnded"))
    assert line.detail == f"{how} by its own end"


async def test_too_many_frames_end_the_connection(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "FRAMES_AT_ONCE_MAX", 20.0)
    agent = running.agent("h1")
    await agent.stand()
    for _ in range(40):
        await agent.beat()
    refusal = await agent.hear_the_end()
    assert isinstance(refusal, Refusal)
    assert refusal.code == "rate"


async def test_a_reader_that_takes_nothing_is_disconnected_and_nobody_waits_for_it(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The socket's buffers are filled by questions it does not read; its queue is bounded, then it is dropped."""
    monkeypatch.setattr(connection_module, "BYTES_WAITING_MAX", 1024 * 1024)
    slow, other = running.agent("h1"), running.agent("h2")
    await slow.stand()
    await other.stand()
    await until(running.fleet, "connected")
    assert slow.socket is not None
    transport = slow.socket._conn.transport  # type: ignore[union-attr]
    assert isinstance(transport, asyncio.Transport)
    transport.pause_reading()
    connection = running.fleet.intake.standing("h1")
    assert connection is not None
    for _ in range(10_000):
        if not connection.send(CheckDefinition("check", "x" * 200_000)):
            break
        await asyncio.sleep(0)
    await until(running.fleet, "gone")
    await other.beat()
    assert (await other.hear(BeatAnswer)).sequence == 1


async def test_a_definition_is_checked_by_an_agent_that_is_up(running: Running) -> None:
    verdict = await running.fleet.check_definition("<domain/>", 1.0)
    assert (verdict.ok, verdict.node) == (None, "")
    agent = running.agent("h1")
    await agent.stand()
    await until(running.fleet, "up")
    asking = asyncio.create_task(running.fleet.check_definition("<domain/>", PATIENCE_S))
    question = await agent.hear(CheckDefinition)
    assert question.xml == "<domain/>"
    await agent.say(DefinitionChecked("check-of-nobody", ok=True))
    await agent.say(DefinitionChecked(question.check_id, ok=False, message="XML error: no name"))
    verdict = await asking
    assert (verdict.ok, verdict.message, verdict.node) == (False, "XML error: no name", "h1")


async def test_a_definition_that_nobody_answers_about_is_not_waited_for(running: Running) -> None:
    agent = running.agent("h1")
    await agent.stand()
    await until(running.fleet, "up")
    verdict = await running.fleet.check_definition("<domain/>", 0.05)
    assert verdict.ok is None
    assert "did not check the definition" in verdict.message


async def test_strangers_are_counted(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aggregator.intake.STRANGERS_MAX", 1)
    first = running.agent("h1")
    await first.connect()
    second = running.agent("h2")
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await second.connect()
    assert refused.value.status == web.HTTPServiceUnavailable.status_code
