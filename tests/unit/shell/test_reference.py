"""The reference address is asked by a real connection, or by the system's ping."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from aggregator.act import reference
from aggregator.act.reference import ReferenceHand, answers
from aggregator.core.actions import AskReference
from aggregator.core.events import Event, ReferenceAnswered


def a_port() -> int:
    """Return a port of loopback on which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


async def test_a_connection_or_its_refusal_is_an_answer() -> None:
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert await answers(f"127.0.0.1:{port}") == ""
    assert await answers(f"127.0.0.1:{a_port()}") == ""
    assert await answers("127.0.0.1:99999") != ""


@pytest.mark.parametrize(
    ("body", "trouble"), [("exit 0", ""), ("exit 1", "no echo"), ("exec sleep 60", "no answer within")]
)
async def test_without_a_port_it_is_pinged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, trouble: str
) -> None:
    program = tmp_path / "ping"
    program.write_text(f'#!/bin/sh\n[ "$7 $8" = "-- 127.0.0.1" ] || exit 3\n{body}\n')
    program.chmod(0o755)
    monkeypatch.setattr(reference, "PING", str(program))
    monkeypatch.setattr(reference, "ASK_S_MAX", 0.5)
    assert (await answers("127.0.0.1")).startswith(trouble)
    monkeypatch.setattr(reference, "PING", str(tmp_path / "none"))
    assert "write the address with a port" in await answers("127.0.0.1")


async def test_each_question_is_answered_by_one_fact() -> None:
    facts: asyncio.Queue[Event] = asyncio.Queue()
    hand = ReferenceHand(lambda: 7.0, facts.put_nowait)
    hand.ask(AskReference(decided_at=7.0, address=f"127.0.0.1:{a_port()}"))
    async with asyncio.timeout(10):
        fact = await facts.get()
    assert fact == ReferenceAnswered(at=7.0, asked_at=7.0, answered=True)
    hand.close()
