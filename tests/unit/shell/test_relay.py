"""Two real agents and a real aggregator on loopback: one's own way is shut, and the other carries it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from agent import relay
from agent.access import OpenAccess
from agent.config import AgentConfig
from agent.daemon import Daemon, Hands
from agent.host import Identity
from agent.keeper_types import OfferToPeer, RelayOffered
from agent.ledger import Ledger
from agent.relay import RelayDoor
from agent.storage import StorageWatch
from aggregator.core.events import NodeState
from fleet.clock import SystemClock
from fleet.sealing import NONCE_CHARACTERS, Claim
from fleet.service import Service
from tests.unit.fake_hypervisor import FakeGuests, FakeHypervisor, FakeMoveChecks
from tests.unit.shell.agent_speaker import PATIENCE_S, enrol
from tests.unit.shell.conftest import Opener


class Way:
    """One agent's way to the aggregator: a TCP forwarder that can be shut, keeping its connections silent."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.shut = False
        self._pipes: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> str:
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", 0)
        return f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for pipe in list(self._pipes):
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.shut:
            return  # accepted by a kernel, answered by nobody
        onward_reader, onward = await asyncio.open_connection("127.0.0.1", self._port)
        for source, target in ((reader, onward), (onward_reader, writer)):
            pipe = asyncio.create_task(self._pipe(source, target))
            self._pipes.add(pipe)
            pipe.add_done_callback(self._pipes.discard)

    async def _pipe(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            if not self.shut:
                target.write(data)
        target.close()


class Agent:
    """A whole agent but for libvirt."""

    def __init__(self, directory: Path, name: str, url: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = int(listener.getsockname()[1])
        address = "127.0.0.1"
        config = AgentConfig(name, (url,), "", listen=f"{address}:{port}", migration_address=address, libvirt_port=1)
        clock = SystemClock()
        hypervisor = FakeHypervisor(clock)
        hypervisor.go.set()
        ledger = Ledger(directory / name, directory / f"{name}-run", f"boot-{name}")
        hands = Hands(hypervisor, clock, OpenAccess(f"token-of-{name}"), StorageWatch(), FakeGuests(), FakeMoveChecks())
        self.service = Service("test")
        self.daemon = Daemon(config, Identity(f"boot-{name}", f"machine-{name}"), ledger, hands)
        self.task = asyncio.create_task(self.daemon.run(self.service))

    async def stop(self) -> None:
        self.service.stop("SIGTERM")
        await asyncio.wait_for(self.task, PATIENCE_S)


async def until(truth: Callable[[], bool]) -> None:
    """Wait until something is true that nobody announces: beats are not journalled."""
    async with asyncio.timeout(PATIENCE_S):
        while not truth():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.01)


async def test_an_agent_whose_way_is_shut_speaks_through_the_other(opened: Opener, tmp_path: Path) -> None:
    running = await opened(unseenAtLeast="5s", suspectAfter="2s", lostAfter="20s", lostAfterOnePlane="30s")
    await enrol(running.fleet, "h1", "h2")
    port = int(running.runner.addresses[0][1])
    way = Way(port)
    agents = [
        Agent(tmp_path, "h1", await way.open()),
        Agent(tmp_path, "h2", f"ws://127.0.0.1:{port}"),
    ]
    nodes = running.fleet.state.nodes
    try:
        await until(lambda: all(nodes[name].state is NodeState.UP for name in ("h1", "h2")))
        way.shut = True
        await until(lambda: nodes["h1"].via == "h2" and nodes["h1"].state is NodeState.UP)
        through = nodes["h1"].session
        since = nodes["h1"].last_sign
        await until(lambda: nodes["h1"].last_sign > since + 2)
        assert nodes["h1"].session == through, "beats are answered through the peer, so the session goes on"
        way.shut = False
        await until(lambda: not nodes["h1"].via and nodes["h1"].state is NodeState.UP)
        assert nodes["h1"].session is not None
        assert through is not None
        assert nodes["h1"].session.number > through.number
    finally:
        await asyncio.gather(*(agent.stop() for agent in agents))
        await way.close()


@pytest.fixture
async def door() -> AsyncIterator[tuple[RelayDoor, str, list[RelayOffered]]]:
    """Return h2's door on loopback, its address, and the offers it was told of."""
    offers: list[RelayOffered] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
    one = RelayDoor("h2", port, lambda: "", offers.append, OpenAccess(""))
    app = web.Application()
    one.add_routes(app)
    runner = web.AppRunner(app, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield one, f"127.0.0.1:{port}", offers
    await runner.cleanup()


async def knock(address: str, ticket: str, node: str = "h1", via: str = "h2") -> int:
    claim = Claim(node, via, "0" * NONCE_CHARACTERS)
    url = f"http://{address}{relay.RELAY_PATH}"
    async with aiohttp.ClientSession() as client:
        headers = {"Authorization": claim.header()}
        async with client.get(url, params={"ticket": ticket}, headers=headers) as answer:
            return answer.status


async def test_only_who_was_offered_it_gets_in_and_only_once(
    door: tuple[RelayDoor, str, list[RelayOffered]], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, address, offers = door
    async with aiohttp.ClientSession() as client:
        for _ in range(3):  # the door offers to itself: what counts is the ticket
            await one.offer(client, OfferToPeer("h1", address))
    first, _second, last = (taken.offer.ticket for taken in offers)
    assert [taken.address for taken in offers] == [address] * 3
    for node, via, ticket in (("h1", "h2", "guessed"), ("h1", "h2", first), ("h3", "h2", last), ("h1", "h3", last)):
        assert await knock(address, ticket, node, via) == web.HTTPForbidden.status_code
    assert await knock(address, last) == web.HTTPServiceUnavailable.status_code, "this agent has no aggregator itself"
    assert await knock(address, last) == web.HTTPForbidden.status_code
    monkeypatch.setattr(relay, "RELAYS_MAX", 0)
    async with aiohttp.ClientSession() as client:
        await one.offer(client, OfferToPeer("h1", address))
    assert len(offers) == 3


async def test_what_is_no_offer_is_not_taken(door: tuple[RelayDoor, str, list[RelayOffered]]) -> None:
    _one, address, offers = door
    async with aiohttp.ClientSession() as client:
        for body in (b"", b"\xff" * 10):
            async with client.post(f"http://{address}{relay.OFFER_PATH}", data=body) as answer:
                assert answer.status == web.HTTPBadRequest.status_code
    assert offers == []
