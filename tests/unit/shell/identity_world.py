"""An aggregator with an authority, whole agents beside it, and certificates as a thief would have them."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Self

import aiohttp
import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from agent.access import CertifiedAccess
from agent.config import AgentConfig
from agent.daemon import Daemon, Hands
from agent.host import Identity as Machine
from agent.ledger import Ledger
from agent.storage import StorageWatch
from aggregator.agents_door import AgentsDoor
from aggregator.authority import Authority
from aggregator.core.events import JoinTokenIssued, NodeApplied, NodeState
from aggregator.core.objects import NodeSpec
from aggregator.fault_point import FaultPoint
from aggregator.fleet import Fleet, open_fleet
from aggregator.settings import Endpoint, Settings
from fleet.clock import SystemClock
from fleet.identity import (
    JOIN_PATH,
    Issued,
    JoinRequest,
    JoinToken,
    Role,
    key_text,
    make_request,
    new_key,
    secret_digest,
)
from fleet.service import Service
from fleet.tls import client_context
from tests.unit.fake_hypervisor import FakeGuests, FakeHypervisor, FakeMoveChecks
from tests.unit.shell.agent_speaker import PATIENCE_S, AgentSpeaker

CLOCK = SystemClock()


async def until(truth: Callable[[], bool]) -> None:
    """Wait until something is true that nobody announces."""
    async with asyncio.timeout(PATIENCE_S):
        while not truth():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.01)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def settings_of(state_dir: Path, **config: object) -> Settings:
    return Settings(
        name="a1",
        api=Endpoint("127.0.0.1", 0),
        agents=Endpoint("127.0.0.1", 0),
        state_dir=state_dir,
        fence_agents_dir=state_dir,
        machine_id="",
        log_level="info",
        token_sha256="0" * 64,
        config=config,
        agents_tls=False,
    )


class Shown:
    """A key and a certificate in a file, as a thief would have them."""

    def __init__(self, path: Path, authority: str, certificate: str, key: bytes) -> None:
        path.write_bytes(key + certificate.encode("ascii"))
        self.context = client_context(authority, path)
        self.certificate = certificate

    @classmethod
    def of(cls, path: Path, authority: str, certificate: str, key: ec.EllipticCurvePrivateKey) -> Self:
        return cls(path, authority, certificate, key_text(key))


class World:
    """An aggregator with an authority, and whoever speaks to it."""

    def __init__(self, directory: Path, life_s: float = 3600.0) -> None:
        self.dir, self.life_s, self.port = directory, life_s, free_port()
        self.http = aiohttp.ClientSession()
        self.agents: list[Agent] = []
        self.speakers: list[AgentSpeaker] = []
        self.running = False
        self.errands: list[asyncio.Task[None]] = []
        self.config: dict[str, object] = {"unseenAtLeast": "5s"}

    async def start(self) -> None:
        settings = msgspec.structs.replace(
            settings_of(self.dir / "a1", **self.config), agents_tls=True, certificate_life_s=self.life_s
        )
        (self.dir / "a1").mkdir(exist_ok=True)
        self.fleet: Fleet = await open_fleet(settings, FaultPoint(""))
        assert self.fleet.authority is not None
        self.authority: Authority = self.fleet.authority
        self.door = AgentsDoor(self.fleet.intake.make_app(), self.fleet, self.authority)
        await self.door.start(Endpoint("127.0.0.1", self.port), 100)
        self.running = True

    async def stop(self) -> None:
        if self.running:
            self.running = False
            await self.fleet.close()
            await self.door.cleanup()

    async def close(self) -> None:
        for errand in self.errands:
            errand.cancel()
        for agent in self.agents:
            await agent.stop()
        for speaker in self.speakers:
            await speaker.close()
        await self.stop()
        await self.http.close()

    async def token(self, node: str, *, good_s: float = 600.0) -> str:
        """Issue a join token as the API does."""
        secret, now = f"secret-of-{node}", self.fleet.now()
        await self.fleet.submit(NodeApplied(at=now, name=node, labels={}, spec=NodeSpec(), who="test"))
        issued = JoinTokenIssued(at=now, name=node, token_sha256=secret_digest(secret), until=now + good_s, who="test")
        await self.fleet.submit(issued)
        return JoinToken(secret, self.authority.sha256).text()

    async def ask(self, path: str, body: object, context: ssl.SSLContext | None = None) -> tuple[int, bytes]:
        """Ask the agents' door; without a certificate, where no context is given."""
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        url, shown = f"https://127.0.0.1:{self.port}{path}", context or client_context(self.authority.text, None)
        async with self.http.post(url, data=data, ssl=shown, server_hostname=Role.AGGREGATOR.server_name) as answer:
            return answer.status, await answer.read()

    async def join(self, node: str) -> Shown:
        """Join as a node by hand."""
        key = new_key()
        status, raw = await self.ask(JOIN_PATH, JoinRequest(await self.token(node), make_request(key)))
        assert status == HTTPStatus.OK, raw
        issued = msgspec.json.decode(raw, type=Issued)
        return Shown(self.dir / f"{node}.pem", self.authority.text, issued.certificate, key_text(key))

    def speaker(self, node: str, shown: Shown | None, path: str = "/agent/v1") -> AgentSpeaker:
        """Return an agent that says it is `node`, over whatever certificate."""
        context = shown.context if shown is not None else client_context(self.authority.text, None)
        url = f"https://127.0.0.1:{self.port}{path}"
        speaker = AgentSpeaker(url, node, "", tls=context)
        self.speakers.append(speaker)
        return speaker

    async def agent(self, node: str) -> Agent:
        """Start a whole agent with a join token in its file."""
        agent = Agent(self.dir, node, self.port)
        agent.token_file.write_text(await self.token(node))
        agent.token_file.chmod(0o600)
        agent.start()
        self.agents.append(agent)
        return agent

    def up(self, node: str) -> bool:
        record = self.fleet.state.nodes.get(node)
        return record is not None and record.state is NodeState.UP and record.connected


class Agent:
    """A whole agent but for libvirt."""

    def __init__(self, directory: Path, name: str, port: int) -> None:
        self.name, self.dir = name, directory / name
        self.dir.mkdir()
        self.token_file, self.port = self.dir / "token", free_port()
        self.config = AgentConfig(
            name,
            (f"wss://127.0.0.1:{port}",),
            str(self.token_file),
            listen=f"127.0.0.1:{self.port}",
            migration_address="127.0.0.1",
            libvirt_port=1,
        )

    def start(self) -> None:
        hypervisor = FakeHypervisor(CLOCK)
        hypervisor.go.set()
        self.access = CertifiedAccess(self.dir / "identity")
        ledger = Ledger(self.dir / "state", self.dir / "run", f"boot-{self.name}")
        hands = Hands(hypervisor, CLOCK, self.access, StorageWatch(), FakeGuests(), FakeMoveChecks())
        self.service = Service("test")
        self.daemon = Daemon(self.config, Machine(f"boot-{self.name}", f"machine-{self.name}"), ledger, hands)
        self.task = asyncio.create_task(self.daemon.run(self.service))

    async def stop(self) -> None:
        self.service.stop("SIGTERM")
        await asyncio.wait_for(self.task, PATIENCE_S)

    def key(self) -> str:
        assert self.access.identity is not None
        return self.access.identity.key_sha256
