"""Asking guests for real: sockets that answer or do not, and a guest agent that may say anything."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import guest_probing
from agent.guest_probing import GuestProber, connects, gets, printable
from agent.keeper_types import GuestProbed, ProbeGuest
from agent.libvirt_guest import ANSWER_BYTES_MAX, first_address, read_pong
from fleet.guest_health import GuestProbe, ProbeKind, ProbeWay
from tests.unit.fake_hypervisor import FakeGuests

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


@asynccontextmanager
async def serving(talk: Talk) -> AsyncIterator[int]:
    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield int(server.sockets[0].getsockname()[1])


def says(text: bytes) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(text)
        await writer.drain()
        writer.close()

    return talk


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


async def floods(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Headers without an end."""
    try:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        for number in range(1_000_000):
            writer.write(b"X-%d: %s\r\n" % (number, b"a" * 4000))
            await writer.drain()
    except ConnectionError:
        writer.close()


async def ask(probe: GuestProbe, guests: FakeGuests | None = None) -> GuestProbed:
    return await GuestProber(guests or FakeGuests()).ask(ProbeGuest("u", ProbeKind.LIVENESS, 7, probe))


async def test_a_ping_is_the_channels_word() -> None:
    guests, ping = FakeGuests(), GuestProbe(ProbeWay.PING)
    assert await ask(ping, guests) == GuestProbed("u", ProbeKind.LIVENESS, 7, good=True)
    guests.deaf.add("u")
    assert (await ask(ping, guests)).good is False
    guests.unknown.add("u")
    assert await ask(ping, guests) == GuestProbed("u", ProbeKind.LIVENESS, 7, good=None, words="libvirtd is silent")


async def test_a_ping_that_hangs_says_nothing_and_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()

    class Hanging(FakeGuests):
        def ping(self, uuid: str, timeout_s: float) -> tuple[bool, str]:
            go.wait(30.0)
            return super().ping(uuid, timeout_s)

    monkeypatch.setattr(guest_probing, "SPARE_S", 0.05)
    try:
        answer = await ask(GuestProbe(ProbeWay.PING, timeout_s=0.05), Hanging())
    finally:
        go.set()
    assert answer.good is None
    assert "did not return" in answer.words


async def test_a_guest_is_asked_once_at_a_time_and_both_who_ask_get_the_answer() -> None:
    asked = []

    class Counting(FakeGuests):
        def ping(self, uuid: str, timeout_s: float) -> tuple[bool, str]:
            asked.append(uuid)
            return super().ping(uuid, timeout_s)

    prober = GuestProber(Counting())
    ping = GuestProbe(ProbeWay.PING)
    questions = [ProbeGuest("u", kind, 1, ping) for kind in (ProbeKind.LIVENESS, ProbeKind.READINESS)]
    answers = await asyncio.gather(*map(prober.ask, questions))
    assert [(answer.kind, answer.good) for answer in answers] == [("liveness", True), ("readiness", True)]
    assert asked == ["u"]
    await prober.ask(questions[0])
    assert asked == ["u", "u"]


async def test_a_port_is_open_or_not() -> None:
    async with serving(silent) as port:
        assert await connects("127.0.0.1", port, 2.0) == (True, "")
        answer = await ask(GuestProbe(ProbeWay.TCP, port=port))  # at the guest's own address
        assert answer.good is True
    good, words = await connects("127.0.0.1", port, 2.0)
    assert not good
    assert words.startswith(f"127.0.0.1 port {port}: ")


async def test_nobody_knowing_the_address_is_no_failure_of_the_guest() -> None:
    guests = FakeGuests()
    guests.unknown.add("u")
    assert (await ask(GuestProbe(ProbeWay.TCP, port=80), guests)).good is None
    assert (await ask(GuestProbe(ProbeWay.HTTP, port=80), guests)).good is None


@pytest.mark.parametrize(
    ("answer", "good"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", True),  # the body is not read
        (b"SSH-2.0-OpenSSH_9.2\r\n", False),
        (b"\xff\x00" * 1000, False),
        (b"", False),
    ],
)
async def test_a_get_is_good_by_its_status_alone(answer: bytes, good: bool) -> None:  # noqa: FBT001
    async with serving(says(answer)) as port:
        found, words = await gets("127.0.0.1", GuestProbe(ProbeWay.HTTP, port=port, path="/healthz", timeout_s=5.0))
    assert found is good
    assert bool(words) is not good


@pytest.mark.parametrize("talk", [silent, floods], ids=["silent", "floods"])
async def test_a_server_that_never_answers_is_a_failure_in_time(talk: Talk) -> None:
    async with serving(talk) as port:
        good, words = await gets("127.0.0.1", GuestProbe(ProbeWay.HTTP, port=port, timeout_s=0.3))
    assert not good
    assert words


def test_words_of_a_guest_are_cut_and_printable() -> None:
    assert printable("a\n\x1b[2J" + "b" * 1000) == "a  [2J" + "b" * 194


# --- what a guest agent may say


def test_the_answer_to_a_ping() -> None:
    assert read_pong('{"return": {}}')
    assert read_pong('{"return":{}, "id": 5}')


@given(st.text() | json_values.map(json.dumps))
def test_whatever_a_guest_agent_says_is_an_answer_or_none(text: str) -> None:
    answered = read_pong(text)
    if answered:
        assert json.loads(text)["return"] == {}


@pytest.mark.parametrize(
    "text",
    [
        '{"return": ' + "[" * 30_000,
        "{" * 60_000,
        '{"return": {"' + "a" * ANSWER_BYTES_MAX + '": null}}',
        '{"return": {}}' + " " * ANSWER_BYTES_MAX,
        '{"return": "' + "\\ud800" * 1000 + '"}',
        '{"error": {"class": "CommandNotFound", "desc": "no"}}',
        "\ud800",
        "1e999999999",
    ],
    ids=["deep list", "deep object", "long key", "long", "surrogates", "error", "lone surrogate", "number"],
)
def test_hostile_answers_of_a_guest_agent_are_none(text: str) -> None:
    assert not read_pong(text)


@given(json_values)
def test_whatever_addresses_a_guest_agent_tells_one_is_an_address_or_none(told: object) -> None:
    first_address(told)
    first_address({"eth0": told})
    first_address({"eth0": {"addrs": told}})


def test_the_first_address_that_others_reach() -> None:
    told = {
        "lo": {"addrs": [{"addr": "127.0.0.1"}]},
        "eth0": {"addrs": [{"addr": "fe80::1"}, {"addr": "169.254.1.1"}, {"addr": "not one"}, {"addr": "10.0.0.9"}]},
        "eth1": {"addrs": None},
    }
    assert first_address(told) == "10.0.0.9"
    assert first_address({"lo": told["lo"]}) == ""
    assert first_address({str(n): {"addrs": [{"addr": "::"}] * 10_000} for n in range(1000)}) == ""
