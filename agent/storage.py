"""Whether this node reaches the shared storages its VMs lie on: asked all the time, never waited for.

A network storage is asked at its server: of NBD the greeting, of others a connection. A mounted one is
asked for its size, in a thread that may be left behind: a dead server lets that call hang for ever. One
question that fails is no loss, two in a row are. Knows sockets and mounts; decides nothing.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from agent.keeper_types import DefinitionRead, DomainsListed, Fact
from agent.places import Mount, read_mounts, storage_of_mount
from agent.sockets import Socket, read_sockets
from agent.workers import CrowdedError, StuckError, Workers
from fleet.model import Disk, StorageReach
from fleet.storage import Server, lies_on, network_storage, servers_of

ASK_EVERY_S = 2.0
ASK_TIMEOUT_S = 1.0
FAILURES_MAX = 1  # so many in a row say nothing yet
RETRANSMITS_MIN = 3  # a segment sent so often without an answer has waited for more than a second
STORAGES_MAX = 64
_NBD_MAGIC = b"NBDMAGIC"
_ANSWERLESS = (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError)

log = structlog.get_logger(part="storage")


class StorageWatch:
    """Asks every shared storage of this node's VMs; `reaches` never blocks."""

    def __init__(self, mountinfo: Path = Path("/proc/self/mountinfo")) -> None:
        self._mountinfo = mountinfo
        self._disks: dict[str, tuple[Disk, ...]] = {}  # by the VM's uuid
        self._failures: dict[str, int] = {}
        self._workers: dict[str, Workers] = {}
        self._told: tuple[StorageReach, ...] = ()
        self._took_ms: dict[str, float] = {}

    def take(self, fact: Fact) -> None:
        """Learn from what the hypervisor shows which disks there are."""
        if isinstance(fact, DefinitionRead):
            self._disks[fact.definition.uuid] = fact.definition.disks
        elif isinstance(fact, DomainsListed) and fact.complete:
            here = {vm.uuid for vm in fact.vms if vm.defined or vm.qemu}
            self._disks = {uuid: disks for uuid, disks in self._disks.items() if uuid in here}

    def reaches(self) -> tuple[StorageReach, ...]:
        """Return what the last round found."""
        return self._told

    def took_ms(self) -> dict[str, float]:
        """Return how long each storage's last answer took, in milliseconds; one that gave none is not there."""
        return dict(self._took_ms)

    def mounts(self) -> tuple[str, ...]:
        """Return the shared storages that are mounted, in use or not."""
        return tuple(sorted(self._mounts()))

    def mount_is_lost(self, uuid: str) -> bool:
        """Say whether a disk of the VM lies on a mounted storage that does not answer.

        What its QEMU wrote there is the kernel's by now, which sends it when the server is back: nobody
        can tell how much that is, or take it back.
        """
        lost = [name for name, failures in self._failures.items() if failures and not servers_of(name)]
        return any(lies_on(disk.identity, name) for disk in self._disks.get(uuid, ()) for name in lost)

    async def run(self, changed: Callable[[], None]) -> None:
        """Ask until cancelled; changed is called when an answer differs from the last one."""
        while True:
            if await self.ask_all():
                changed()
            await asyncio.sleep(ASK_EVERY_S)

    async def ask_all(self) -> bool:
        """Ask every storage once, side by side; say whether anything has changed."""
        identities = [d.identity for disks in self._disks.values() for d in disks if d.shared and d.writable]
        network = sorted({name for identity in identities if (name := network_storage(identity))})
        mounts = self._mounts()
        names = (*network, *sorted(mounts))[:STORAGES_MAX]
        asked = [self._ask_mount(mounts[name], name) if name in mounts else ask_network(name) for name in names]
        took = dict(zip(names, await asyncio.gather(*map(_timed_ms, asked)), strict=True))
        self._took_ms = {name: ms for name, ms in took.items() if ms is not None}
        self._failures = {n: 0 if n in self._took_ms else self._failures.get(n, 0) + 1 for n in names}
        sockets = read_sockets() if any(self._failures.values()) else []
        told = tuple(self._reach(name, sockets) for name in names)
        for reach in told:
            if reach not in self._told:
                (log.info if reach.reached else log.warning)("storage", name=reach.storage, reached=reach.reached)
        changed, self._told = told != self._told, told
        return changed

    def _mounts(self) -> dict[str, Mount]:
        """Return every network mount by its storage, in use or not: other nodes need to know who reaches it."""
        try:
            mounts = read_mounts(self._mountinfo.read_text(encoding="utf-8", errors="replace"))
        except OSError:
            mounts = []
        return {name: mount for mount in mounts if (name := storage_of_mount(mount))}

    async def _ask_mount(self, mount: Mount, name: str) -> bool:
        workers = self._workers.setdefault(name, Workers(f"storage {name}", 1, stuck_max=1))
        try:
            await workers.run(lambda: os.statvfs(mount.point), ASK_TIMEOUT_S)
        except (StuckError, CrowdedError, OSError):
            return False
        return True

    def _reach(self, name: str, sockets: list[Socket]) -> StorageReach:
        reached = self._failures[name] <= FAILURES_MAX
        servers = servers_of(name)
        ports = {server.port for server in servers}
        unanswered = any(
            socket.remote_port in ports and socket.waiting_bytes and socket.retransmits >= RETRANSMITS_MIN
            for socket in sockets
        )
        return StorageReach(name, reached, stuck=not reached and (unanswered or not servers))


async def _timed_ms(question: Awaitable[bool]) -> float | None:
    """Return how long an answer took, in milliseconds; None if there was none."""
    loop = asyncio.get_running_loop()
    asked_s = loop.time()
    return 1000.0 * (loop.time() - asked_s) if await question else None


async def ask_network(storage: str) -> bool:
    """Say whether any of the storage's servers answers."""
    servers = servers_of(storage)
    return any(await asyncio.gather(*(ask_server(server) for server in servers)))


async def ask_server(server: Server) -> bool:
    """Say whether the server answers within its second. A frozen one still takes connections, if it is not NBD's."""
    try:
        async with asyncio.timeout(ASK_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(server.host, server.port)
            try:
                greeting = await reader.readexactly(len(_NBD_MAGIC)) if server.kind == "nbd" else _NBD_MAGIC
            finally:
                writer.transport.abort()
    except _ANSWERLESS:
        return False
    return greeting == _NBD_MAGIC
