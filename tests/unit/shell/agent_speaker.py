"""An agent's end of the conversation, spoken by hand: real sockets, real frames, no agent behind them."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from typing import TypeVar

import aiohttp
import msgspec

from aggregator.core.events import NodeApplied, NodeTokenIssued
from aggregator.core.objects import NodeSpec
from aggregator.fleet import Fleet
from fleet.codec import FROM_AGENT, FROM_AGGREGATOR
from fleet.identity import Role
from fleet.messages import Beat, FromAgent, FromAggregator, FullState, Hello, Message, Welcome
from fleet.model import LedgerState, NodeFacts, SessionKey, VmReport

PATIENCE_S = 30.0
Kind = TypeVar("Kind", bound=Message)


async def enrol(fleet: Fleet, *nodes: str) -> None:
    """Make the nodes known, each with the token that `Running.agent` uses."""
    for node in nodes:
        digest = hashlib.sha256(f"token-of-{node}".encode()).hexdigest()
        await fleet.submit(NodeApplied(at=fleet.now(), name=node, labels={}, spec=NodeSpec(), who="test"))
        await fleet.submit(NodeTokenIssued(at=fleet.now(), name=node, token_sha256=digest, who="test"))


class AgentSpeaker:
    """Speaks when told to. changes: fields of its Hello."""

    def __init__(
        self, url: str, node: str, token: str, *, tls: ssl.SSLContext | None = None, **changes: object
    ) -> None:
        self.url, self.token, self.tls = url, token, tls
        self.session = SessionKey(f"boot-{node}", "start-1", 1)
        self.hello = Hello(
            protocol_min=1,
            protocol_max=1,
            node=node,
            session=self.session,
            facts=NodeFacts(machine_id=f"machine-{node}", host_uuid=f"uuid-{node}", cpu_m=4000, memory_bytes=2**32),
            ledger=LedgerState.NEW,
        )
        self.hello = msgspec.structs.replace(self.hello, **changes)
        self.session = self.hello.session
        self.sequence = 0
        self._client: aiohttp.ClientSession | None = None
        self.socket: aiohttp.ClientWebSocketResponse | None = None

    async def connect(self) -> None:
        self._client = aiohttp.ClientSession()
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        name = Role.AGGREGATOR.server_name if self.tls is not None else None
        self.socket = await self._client.ws_connect(
            self.url, headers=headers, max_msg_size=0, ssl=self.tls or True, server_hostname=name
        )

    async def say(self, message: FromAgent) -> None:
        await self.say_bytes(FROM_AGENT.encode(message))

    async def say_bytes(self, data: bytes) -> None:
        assert self.socket is not None
        await self.socket.send_bytes(data)

    async def next_message(self) -> FromAggregator | None:
        """Return the next message, None when the connection was closed."""
        assert self.socket is not None
        async with asyncio.timeout(PATIENCE_S):
            frame = await self.socket.receive()
        return FROM_AGGREGATOR.decode(frame.data) if frame.type is aiohttp.WSMsgType.BINARY else None

    async def hear(self, kind: type[Kind]) -> Kind:
        """Return the next message of this kind; others are passed over."""
        while (message := await self.next_message()) is not None:
            if isinstance(message, kind):
                return message
        raise AssertionError(f"the connection was closed before a {kind.__name__} came")

    async def hear_the_end(self) -> FromAggregator | None:
        """Return the last message before the connection was closed."""
        last = None
        while (message := await self.next_message()) is not None:
            last = message
        return last

    async def stand(self, *vms: VmReport) -> Welcome:
        """Connect, say hello, be welcomed, report everything."""
        await self.connect()
        await self.say(self.hello)
        welcome = await self.hear(Welcome)
        await self.say(FullState(session=self.session, generation=1, vms=vms, in_hand=(), complete=True))
        return welcome

    async def beat(self) -> None:
        self.sequence += 1
        await self.say(Beat(sequence=self.sequence, generation=1, answered=self.sequence - 1))

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
