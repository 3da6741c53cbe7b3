"""The definitions on this node and every change of them, whether libvirt tells or not.

An external snapshot or a `--config` change rewrites the stored XML with no event at all, and a VM
started elsewhere from the old one would lose data without an error. So: inotify on libvirt's
directory, and every ten seconds all hashes. Knows nothing of states.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog
from msgspec import Struct, structs

from agent.hypervisor import Facts
from agent.inotify import DirectoryWatch
from agent.keeper_types import DefinitionRead
from agent.libvirt_driver import Connection
from agent.libvirt_pool import LibvirtDownError
from agent.places import Places
from agent.sysfs import identified, read_devices
from agent.workers import CrowdedError, StuckError, Workers
from fleet.domain_xml import Domain, DomainXmlError, parse_domain
from fleet.model import Definition, Needs
from fleet.storage import network_storage, servers_of

READ_TIMEOUT_S = 2.0
COMPARE_EVERY_S = 10.0

log = structlog.get_logger(part="definitions")


class Known(Struct, frozen=True):
    """What the driver keeps of a definition."""

    name: str
    hash: str
    cpu_m: int
    memory_bytes: int
    not_migratable: str
    needs: Needs
    ports: frozenset[int] = frozenset()  # of the servers its writable disks lie on


class Definitions:
    """Reads definitions when something hints at a change, and all of them now and then."""

    def __init__(self, connection: Connection, places: Places, directory: Path, changed: Callable[[str], None]) -> None:
        self.known: dict[str, Known] = {}
        self._connection = connection
        self._places = places
        self._changed = changed
        self._workers = Workers("definitions", 2)
        self._watch = DirectoryWatch(directory, self._file_changed)
        self._facts: Facts = lambda _fact: None
        self._wanted: set[str] = set()
        self._all_wanted = False
        self._wake = asyncio.Event()

    async def run(self, facts: Facts) -> None:
        """Watch until cancelled."""
        self._facts = facts
        if not self._watch.start():
            log.warning("libvirt's directory is not watched", directory=str(self._watch.directory))
        try:
            await self._keep_reading()
        finally:
            self._watch.stop()

    def name(self, uuid: str) -> str:
        """Return the VM's name, empty if it was never read."""
        known = self.known.get(uuid)
        return known.name if known else ""

    def ports(self, uuid: str) -> frozenset[int]:
        """Return the ports of the servers the VM's disks lie on, as far as its definition was read."""
        known = self.known.get(uuid)
        return known.ports if known else frozenset()

    def refresh(self, uuid: str) -> None:
        """Have one definition read soon."""
        self._wanted.add(uuid)
        self._wake.set()

    def refresh_all(self) -> None:
        """Have all definitions read soon."""
        self._all_wanted = True
        self._wake.set()

    def _file_changed(self, file: str) -> None:
        name = file.removesuffix(".xml")
        uuids = [uuid for uuid, known in self.known.items() if known.name == name]
        if len(uuids) == 1:
            self.refresh(uuids[0])
        else:
            self.refresh_all()

    async def _keep_reading(self) -> None:
        while True:
            try:
                async with asyncio.timeout(COMPARE_EVERY_S):
                    await self._wake.wait()
            except TimeoutError:
                self._all_wanted = True
            self._wake.clear()
            wanted, self._wanted = self._wanted, set()
            if self._all_wanted:
                self._all_wanted = False
                wanted |= await self._all_uuids()
            for uuid in sorted(wanted):
                await self.read(uuid)

    async def _all_uuids(self) -> set[str]:
        try:
            raws = await self._workers.run(self._connection.list_domains, READ_TIMEOUT_S)
        except (StuckError, CrowdedError, LibvirtDownError):
            return set()
        here = {raw.uuid for raw in raws}
        for uuid in self.known.keys() - here:
            del self.known[uuid]
        return here

    async def read(self, uuid: str) -> Definition | None:
        """Read one definition now and tell it if it is new; None if it cannot be read or is none."""
        try:
            xml = await self._workers.run(lambda: self._connection.read_definition(uuid), READ_TIMEOUT_S)
            if xml is None:
                self.known.pop(uuid, None)
                return None
            # in a thread too: a path on a file system whose server is dead is looked up for ever
            domain = await self._workers.run(lambda: parse_domain(xml, self._places.resolve), READ_TIMEOUT_S)
            needs = await self._workers.run(lambda: self._needs(uuid, domain.needs), READ_TIMEOUT_S)
        except (StuckError, CrowdedError, LibvirtDownError) as error:
            log.warning("definition not read", uuid=uuid, error=str(error))
            return None
        except DomainXmlError as error:
            log.warning("definition not understood", uuid=uuid, error=str(error))
            return None
        old = self.known.get(uuid)
        reason = not_migratable(domain)
        ports = ports_of(domain)
        self.known[uuid] = Known(domain.name, domain.hash, domain.cpu_m, domain.memory_bytes, reason, needs, ports)
        definition = Definition(uuid, domain.name, xml, domain.hash, domain.disks, needs=needs)
        if old != self.known[uuid]:
            self._facts(DefinitionRead(definition))
            self._changed(uuid)
        return definition

    def _needs(self, uuid: str, written: Needs) -> Needs:
        """Return what the domain needs, with what only this host knows of it."""
        devices = identified(written.devices, read_devices(self._places.node)) if written.devices else ()
        return structs.replace(written, devices=devices, guest_cpu=self._connection.read_guest_cpu(uuid))


def ports_of(domain: Domain) -> frozenset[int]:
    """Return the ports of the servers that the domain's writable network disks lie on."""
    storages = [network_storage(disk.identity) for disk in domain.disks if disk.writable]
    return frozenset(server.port for name in storages for server in servers_of(name))


def not_migratable(domain: Domain) -> str:
    """Return what forbids a live migration of the VM, as far as its definition tells; else empty."""
    if domain.has_hostdev:
        return "a device of the host is passed through"
    local = [disk.target for disk in domain.disks if disk.writable and not disk.shared]
    return f"disk {local[0]} is local to this node" if local else ""
