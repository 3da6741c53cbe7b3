"""What a crowd costs the honest: how late a node's beats are answered while thousands of connections press.

An aggregator runs on loopback, a node beats ten times a second, and others, from a hundred addresses, press its ports:
silent-agents and silent-api connect and never shake hands; headers send headers without end, bodies bodies, without a
token. One JSON object a line: the inputs, a line a kind with the beats' answers before and during.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import secrets
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import msgspec
import psutil
from msgspec import Struct

from aggregator.authority import PUBLIC_NAME
from fleet.codec import FROM_AGENT, FROM_AGGREGATOR
from fleet.identity import JOIN_PATH, Issued, JoinRequest, Role, key_text, make_request, new_key
from fleet.messages import Beat, BeatAnswer, FullState, Hello, Welcome
from fleet.model import LedgerState, NodeFacts, SessionKey
from fleet.tls import client_context

KINDS = ("silent-agents", "silent-api", "headers", "bodies")
ADDRESSES = 100
OPENING_MAX = 50
BEAT_EVERY_S = 0.1
PIECE = b"x" * 65536
START_S_MAX = 30.0


class Answers(Struct):
    """How long a node's beats waited for their answers, in ms; lost: those that got none within 3 s."""

    beats: int
    p50_ms: float
    max_ms: float
    lost: int


class Line(Struct):
    """One kind. pressed: connections that came about; busy: seconds of CPU a second; state: of the node afterwards."""

    kind: str
    connections: int
    pressed: int
    busy: float
    before: Answers
    during: Answers
    state: str


class Place:
    """A running aggregator, and how it is reached."""

    def __init__(self, folder: Path, agents: int, api: int, token: str) -> None:
        self.folder, self.agents, self.api, self.token = folder, agents, api, token
        self.pid = 0

    @property
    def trust(self) -> str:
        """The authority's certificate."""
        return (self.folder / "state" / PUBLIC_NAME).read_text(encoding="ascii")


@contextlib.contextmanager
def aggregator() -> Iterator[Place]:
    """Run one on loopback, with HTTPS, in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="vw-flood-") as name:
        place = Place(Path(name), free_port(), free_port(), secrets.token_urlsafe(24))
        (place.folder / "state").mkdir()
        token = place.folder / "token"
        token.touch(mode=0o600)
        token.write_text(place.token)
        values = {
            "name": "a1",
            "api_listen": f"127.0.0.1:{place.api}",
            "agents_listen": f"127.0.0.1:{place.agents}",
            "token_file": str(token),
            "state_dir": str(place.folder / "state"),
            "fence_agents_dir": name,
        }
        file = place.folder / "aggregator.toml"
        file.write_text("api_tls = true\n" + "".join(f"{key} = {json.dumps(text)}\n" for key, text in values.items()))
        program = str(Path(sys.executable).with_name("virtward-aggregator"))
        with (place.folder / "log").open("wb") as log:
            process = subprocess.Popen([program, "--config", str(file)], stdout=log, stderr=log)
            place.pid = process.pid
            try:
                yield place
            finally:
                process.terminate()
                process.wait()


def cpu_s(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def free_port() -> int:
    """A TCP port of loopback that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Node:
    """One agent that only beats."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._http = aiohttp.ClientSession()
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._sequence = 0

    async def join(self) -> None:
        """Become node `n1` and open a session."""
        place = self._place
        token = json.loads(await self.api("POST", "/api/v1/nodes/n1:token"))["token"]
        key, base = new_key(), f"https://127.0.0.1:{place.agents}"
        name = Role.AGGREGATOR.server_name
        body = msgspec.json.encode(JoinRequest(token, make_request(key)))
        bare = client_context(place.trust, None)
        async with self._http.post(base + JOIN_PATH, data=body, ssl=bare, server_hostname=name) as answer:
            issued = msgspec.json.decode(await answer.read(), type=Issued)
        own = place.folder / "n1.pem"
        own.write_bytes(key_text(key) + issued.certificate.encode())
        shown, session = client_context(place.trust, own), SessionKey("boot", "start", 1)
        self._socket = await self._http.ws_connect(f"{base}/agent/v1", ssl=shown, server_hostname=name)
        facts = NodeFacts(machine_id="m1", host_uuid="u1", cpu_m=4000, memory_bytes=2**32)
        await self._socket.send_bytes(FROM_AGENT.encode(Hello(1, 1, "n1", session, facts, LedgerState.NEW)))
        while not isinstance(FROM_AGGREGATOR.decode((await self._socket.receive()).data), Welcome):
            pass
        await self._socket.send_bytes(FROM_AGENT.encode(FullState(session, 1, (), (), complete=True)))

    async def api(self, method: str, path: str) -> bytes:
        """Ask the API, as often as it takes: the crowd may have its door."""
        context = ssl.create_default_context(cadata=self._place.trust)
        headers = {"Authorization": f"Bearer {self._place.token}"}
        url = f"https://127.0.0.1:{self._place.api}{path}"
        while True:
            try:
                async with self._http.request(method, url, ssl=context, headers=headers, json={}) as answer:
                    return await answer.read()
            except (aiohttp.ClientError, OSError):
                await asyncio.sleep(0.2)

    async def beat(self, seconds: float) -> Answers:
        """Beat for so long, and measure."""
        taken: list[float] = []
        lost, until_s = 0, time.monotonic() + seconds
        while time.monotonic() < until_s:
            try:
                async with asyncio.timeout(3.0):
                    taken.append(await self._beat() * 1000)
            except TimeoutError:
                lost += 1
            await asyncio.sleep(BEAT_EVERY_S)
        return Answers(len(taken), round(statistics.median(taken), 2), round(max(taken), 2), lost)

    async def _beat(self) -> float:
        if self._socket is None:
            raise RuntimeError("the node has not joined")
        self._sequence += 1
        begun_s = time.monotonic()
        await self._socket.send_bytes(FROM_AGENT.encode(Beat(self._sequence, 1, self._sequence - 1)))
        while True:
            frame = await self._socket.receive()
            message = FROM_AGGREGATOR.decode(frame.data)
            if isinstance(message, BeatAnswer) and message.sequence == self._sequence:
                return time.monotonic() - begun_s

    async def close(self) -> None:
        """Leave."""
        await self._http.close()


class Crowd:
    """Many who press one port of a place, each again as soon as it is thrown out."""

    def __init__(self, place: Place, kind: str) -> None:
        self._kind, self.opened = kind, 0
        self._port = place.agents if kind == "silent-agents" else place.api
        hears = kind in ("headers", "bodies")
        self._context = ssl.create_default_context(cadata=place.trust) if hears else None
        self._opening = asyncio.Semaphore(OPENING_MAX if hears else 5000)  # more than it can shake hands with is none

    async def member(self, number: int) -> None:
        """Press for ever."""
        while True:
            with contextlib.suppress(OSError, ssl.SSLError, ConnectionError):
                await self._press((f"127.1.0.{number % ADDRESSES + 1}", 0))
            await asyncio.sleep(0.05)

    async def _press(self, source: tuple[str, int]) -> None:
        async with self._opening:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", self._port, ssl=self._context, local_addr=source
            )
        self.opened += 1
        try:
            if self._context is None:
                await reader.read()
                return
            get, post = b"GET /api/v1/nodes HTTP/1.1\r\nHost: a1\r\n", b"POST /api/v1/apply HTTP/1.1\r\nHost: a1\r\n"
            writer.write(get if self._kind == "headers" else post + b"Content-Length: 99999999999\r\n\r\n")
            while not writer.is_closing():
                writer.write(b"X-A: " + PIECE + b"\r\n" if self._kind == "headers" else PIECE)
                await writer.drain()
        finally:
            writer.close()


def press(folder: str, agents: int, api: int, kind: str, connections: int) -> None:
    """Press until killed; says on stdout, each second, how many connections came about so far."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    async def all_of_them() -> None:
        crowd = Crowd(Place(Path(folder), agents, api, ""), kind)
        members = [asyncio.create_task(crowd.member(number)) for number in range(connections)]
        while members:
            await asyncio.sleep(1.0)
            sys.stdout.write(f"{crowd.opened}\n")
            sys.stdout.flush()

    asyncio.run(all_of_them())


async def measure(kind: str, connections: int, seconds: float) -> Line:
    """Measure one kind."""
    with aggregator() as place:
        end_s = time.monotonic() + START_S_MAX
        while not (place.folder / "state" / PUBLIC_NAME).exists() and time.monotonic() < end_s:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        node = Node(place)
        await node.join()
        before = await node.beat(seconds / 2)
        arguments = [place.folder, place.agents, place.api, kind, connections]
        command = [sys.executable, "-m", "benchmarks.flood", "--crowd", *map(str, arguments)]
        pressing = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        try:
            used_s = cpu_s(place.pid)
            during = await node.beat(seconds)
            busy = round((cpu_s(place.pid) - used_s) / seconds, 2)
        finally:
            pressing.kill()
            said, _ = await pressing.communicate()
        state = json.loads(await node.api("GET", "/api/v1/nodes/n1"))["status"]["state"]
        await node.close()
        return Line(kind, connections, int(said.split()[-1]) if said else 0, busy, before, during, state)


def main() -> int:
    """Run each kind; exit 1 where a beat was lost or the node came under suspicion."""
    parser = argparse.ArgumentParser(prog="benchmarks.flood", description=__doc__)
    parser.add_argument("--connections", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--kind", choices=KINDS)
    parser.add_argument("--crowd", nargs=5, help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.crowd:
        folder, agents, api, kind, connections = wanted.crowd
        press(folder, int(agents), int(api), kind, int(connections))
    say({"connections": wanted.connections, "seconds": wanted.seconds, "kind": wanted.kind, "cores": os.cpu_count()})
    failed = False
    for kind in [wanted.kind] if wanted.kind else KINDS:
        line = asyncio.run(measure(kind, wanted.connections, wanted.seconds))
        failed |= bool(line.during.lost) or line.state != "Up"
        say(line)
    return int(failed)


def say(value: object) -> None:
    """Print one JSON line at once."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
