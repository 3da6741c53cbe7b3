"""A small aggregator for tests of the real agent: real WebSockets, no decisions of its own.

It welcomes every node that has the right token, answers beats, keeps what it is told, and gives
the orders the test asks for.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import threading
from collections.abc import Callable
from typing import TypeVar

from aiohttp import WSMsgType, web

from fleet.codec import FROM_AGENT, FROM_AGGREGATOR
from fleet.messages import (
    Assignment,
    Beat,
    BeatAnswer,
    Delta,
    FromAgent,
    FromAggregator,
    FullState,
    Hello,
    MigrationProgress,
    Order,
    OrderBody,
    OrderReport,
    ProbeReport,
    Welcome,
)
from fleet.model import Definition, Leadership, NodeFacts, OrderOutcome, SessionKey, VmReport

TOKEN = "a token of a test"
CLONE_NEWNET = 0x40000000
T = TypeVar("T")


class Told:
    """What one node has told in its present and past sessions."""

    def __init__(self) -> None:
        self.sessions: list[SessionKey] = []
        self.hello: Hello | None = None
        self.facts: NodeFacts | None = None
        self.full: list[FullState] = []
        self.vms: dict[str, VmReport] = {}
        self.history: list[tuple[float, VmReport]] = []
        self.definitions: dict[str, Definition] = {}
        self.reports: list[OrderReport] = []
        self.probes: list[ProbeReport] = []
        self.progress: list[MigrationProgress] = []
        self.beats = 0
        self.socket: web.WebSocketResponse | None = None

    def final(self, order_id: str) -> OrderReport | None:
        ends = [r for r in self.reports if r.order_id == order_id and r.outcome is not OrderOutcome.ACCEPTED]
        return ends[-1] if ends else None


class BenchAggregator:
    """Serves on any number of listening sockets; one node name, one connection."""

    def __init__(self, term: int = 1) -> None:
        self.leader = Leadership(term, f"bench-{term}", 1)
        self.nodes: dict[str, Told] = {}
        self.assignments: dict[str, tuple[Assignment, ...]] = {}
        self.answers_beats = True
        self.heard = asyncio.Condition()
        self.refused_tokens = 0
        self._orders = 0
        self._runner: web.AppRunner | None = None

    async def start(self, *listeners: socket.socket) -> None:
        app = web.Application()
        app.router.add_get("/agent/v1", self._talk)
        self._runner = web.AppRunner(app, shutdown_timeout=0.2)
        await self._runner.setup()
        for listener in listeners:
            await web.SockSite(self._runner, listener).start()

    async def stop(self) -> None:
        for told in self.nodes.values():
            if told.socket is not None:
                await told.socket.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _talk(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.refused_tokens += 1
            return web.Response(status=401)
        channel = web.WebSocketResponse(max_msg_size=8 * 1024 * 1024)
        await channel.prepare(request)
        told: Told | None = None
        async for frame in channel:
            if frame.type is not WSMsgType.BINARY:
                break
            message = FROM_AGENT.decode(frame.data)
            if isinstance(message, Hello):
                told = self.nodes.setdefault(message.node, Told())
                told.hello, told.socket, told.facts = message, channel, message.facts
                told.sessions.append(message.session)
                welcome = Welcome(1, self.leader, message.session, 0.5, self.assignments.get(message.node, ()))
                await _send(channel, welcome)
            elif told is not None:
                await self._take(channel, told, message)
            async with self.heard:
                self.heard.notify_all()
        return channel

    async def _take(self, channel: web.WebSocketResponse, told: Told, message: FromAgent) -> None:
        now = asyncio.get_running_loop().time()
        match message:
            case FullState():
                told.full.append(message)
                told.vms = {vm.uuid: vm for vm in message.vms}
                told.history += [(now, vm) for vm in message.vms]
                told.definitions |= {d.uuid: d for d in message.definitions}
            case Delta():
                told.facts = message.facts or told.facts
                told.vms |= {vm.uuid: vm for vm in message.vms}
                told.history += [(now, vm) for vm in message.vms]
                told.definitions |= {d.uuid: d for d in message.definitions}
            case Beat():
                told.beats += 1
                if self.answers_beats:
                    await _send(channel, BeatAnswer(message.sequence, self.leader))
            case OrderReport():
                told.reports.append(message)
                if message.vm is not None:
                    told.vms[message.uuid] = message.vm
            case ProbeReport():
                told.probes.append(message)
            case MigrationProgress():
                told.progress.append(message)

    async def wait(self, truth: Callable[[], T], timeout_s: float = 30.0) -> T:
        """Wait until something the nodes told makes it true."""
        async with asyncio.timeout(timeout_s):
            while True:
                found = truth_or_none(truth)
                if found:
                    return found
                async with self.heard:
                    with_timeout = asyncio.wait_for(self.heard.wait(), 0.2)
                    await asyncio.gather(with_timeout, return_exceptions=True)

    async def session(self, node: str, timeout_s: float = 30.0) -> Told:
        """Wait until the node's newest session stands."""

        def stands() -> Told | None:
            told = self.nodes[node]
            alive = told.socket is not None and not told.socket.closed
            return told if alive and told.full and told.full[-1].session == told.sessions[-1] else None

        told = await self.wait(stands, timeout_s)
        assert told is not None
        return told

    async def order(self, node: str, vm: tuple[str, str], body: OrderBody, epoch: int = 1) -> str:
        """Send an order of the present session; returns its id. vm: uuid and name."""
        self._orders += 1
        order_id = f"{self.leader.instance}-{self._orders}"
        told = self.nodes[node]
        assert told.socket is not None
        order = Order(order_id, vm[0], vm[1], epoch, self.leader, told.sessions[-1], body)
        await _send(told.socket, order)
        return order_id

    async def done(
        self, node: str, vm: tuple[str, str], body: OrderBody, epoch: int = 1, timeout_s: float = 60.0
    ) -> OrderReport:
        """Order and wait for the final report."""
        order_id = await self.order(node, vm, body, epoch)
        report = await self.wait(lambda: self.nodes[node].final(order_id), timeout_s)
        assert report is not None
        return report


def truth_or_none(truth: Callable[[], T]) -> T | None:
    try:
        return truth()
    except (KeyError, IndexError):
        return None


async def _send(channel: web.WebSocketResponse, message: FromAggregator) -> None:
    await channel.send_bytes(FROM_AGGREGATOR.encode(message))


def listen_here() -> socket.socket:
    """Listen on a free port of this machine's loopback."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    return listener


def listen_inside(pid: int, port: int) -> socket.socket:
    """Listen on 127.0.0.1:port in the network namespace of a process (a socket keeps its namespace)."""
    made: list[socket.socket] = []

    def inside() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        handle = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        try:
            if libc.setns(handle, CLONE_NEWNET) == 0:
                made.append(socket.create_server(("127.0.0.1", port)))
        finally:
            os.close(handle)

    thread = threading.Thread(target=inside)  # a thread of its own: setns changes the thread that calls it
    thread.start()
    thread.join()
    made[0].setblocking(False)
    return made[0]
