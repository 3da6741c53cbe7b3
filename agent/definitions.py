"""The definitions on this node and every change of them, whether libvirt tells or not.

An external snapshot or a `--config` change rewrites the stored XML with no event at all, and a VM
started elsewhere from the old one would lose data without an error. So: inotify on libvirt's
directory, and every ten seconds all hashes. Knows nothing of states.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from xml.etree.ElementTree import Element

import structlog
from msgspec import Struct, structs

from agent.blockers import blockers_of
from agent.chains import below
from agent.hypervisor import Facts
from agent.inotify import DirectoryWatch
from agent.keeper_types import DefinitionRead
from agent.libvirt_driver import Connection, DomainTexts
from agent.libvirt_pool import LibvirtDownError
from agent.places import Places
from agent.sysfs import identified, read_devices
from agent.workers import CrowdedError, StuckError, Workers
from fleet.domain_xml import Domain, DomainXmlError, Resolver, backings_in, disks_in, parse_domain, parse_tree
from fleet.model import Blocker, Definition, Disk, Needs
from fleet.storage import network_storage, servers_of

READ_TIMEOUT_S = 2.0
READ_ALL_TIMEOUT_S = 20.0  # hundreds of domains on a busy host; a libvirtd that stands still fails after 4 s
COMPARE_EVERY_S = 10.0
ANEW_EVERY_ROUNDS = 6
GUEST_AGENT_CHANNEL = "org.qemu.guest_agent.0"

log = structlog.get_logger(part="definitions")


class Known(Struct, frozen=True):
    """What the driver keeps of a definition."""

    name: str
    hash: str
    cpu_m: int
    memory_bytes: int
    blockers: tuple[Blocker, ...]
    needs: Needs
    ports: frozenset[int] = frozenset()  # of the servers its writable disks lie on
    guest_agent: str = ""  # Connected | Disconnected; empty: it has no channel, or does not run
    disks: tuple[Disk, ...] = ()
    nvram: str = ""  # as in Definition
    kept: tuple[int, int] = (0, 0)  # snapshots, checkpoints


class Understood(Struct, frozen=True):
    """What a domain's XML alone does not tell. guest_agent: as in Known."""

    needs: Needs
    guest_agent: str
    blockers: tuple[Blocker, ...]
    chain: tuple[Disk, ...] = ()  # what its disks are overlays of


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
        self._texts: dict[str, DomainTexts] = {}  # as they were when they were last understood
        self._rounds = 0
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
                await self._read_changed(wanted)
            for uuid in sorted(wanted):
                await self.read(uuid)

    async def _read_changed(self, wanted: set[str]) -> None:
        """Read all texts at once, and take those that are not as they were when they were last understood.

        Now and then that is all of them: where a path leads, and which device has an address, changes without them.
        """
        before = dict(self._texts)
        try:
            texts = await self._workers.run(self._connection.read_all_texts, READ_ALL_TIMEOUT_S)
        except (StuckError, CrowdedError, LibvirtDownError) as error:
            log.warning("definitions not read", error=str(error))
            return
        for uuid in before.keys() - texts.keys():
            if self._texts.get(uuid) is before[uuid]:
                self.known.pop(uuid, None)
                del self._texts[uuid]
        self._rounds += 1
        anew = self._rounds % ANEW_EVERY_ROUNDS == 0
        for uuid, text in sorted(texts.items()):
            if self._texts.get(uuid) is not before.get(uuid):
                continue  # read by itself meanwhile, so later than these
            if uuid not in wanted and (anew or self._texts.get(uuid) != text):
                await self._take(uuid, text)

    async def read(self, uuid: str) -> Definition | None:
        """Read one definition now and tell it if it is new; None if it cannot be read or is none."""
        try:
            texts = await self._workers.run(lambda: self._connection.read_texts(uuid), READ_TIMEOUT_S)
            if texts is None:
                self.known.pop(uuid, None)
                self._texts.pop(uuid, None)
                return None
        except (StuckError, CrowdedError, LibvirtDownError) as error:
            log.warning("definition not read", uuid=uuid, error=str(error))
            return None
        return await self._take(uuid, texts)

    async def _take(self, uuid: str, texts: DomainTexts) -> Definition | None:
        """Understand what was read of a definition and tell it if it is new; None if it is none."""
        try:
            # in a thread too: a path on a file system whose server is dead is looked up for ever
            domain, live = await self._workers.run(lambda: self._understand(texts), READ_TIMEOUT_S)
        except (StuckError, CrowdedError, LibvirtDownError) as error:
            log.warning("definition not read", uuid=uuid, error=str(error))
            return None
        except DomainXmlError as error:
            log.warning("definition not understood", uuid=uuid, error=str(error))
            return None
        old = self.known.get(uuid)
        ports = ports_of(domain)
        self.known[uuid] = Known(
            domain.name,
            domain.hash,
            domain.cpu_m,
            domain.memory_bytes,
            live.blockers,
            live.needs,
            ports,
            live.guest_agent,
            *kept_on(domain, live.chain),
            (texts.snapshots, texts.checkpoints),
        )
        self._texts[uuid] = texts
        known = self.known[uuid]
        definition = Definition(
            uuid,
            domain.name,
            texts.stored,
            domain.hash,
            known.disks,
            needs=live.needs,
            nvram=known.nvram,
            snapshots=texts.snapshots,
            checkpoints=texts.checkpoints,
        )
        if old != self.known[uuid]:
            self._facts(DefinitionRead(definition))
            self._changed(uuid)
        return definition

    def _understand(self, texts: DomainTexts) -> tuple[Domain, Understood]:
        """Return the domain as it is stored, and what only this host and its QEMU tell of it."""
        domain = parse_domain(texts.stored, self._places.resolve)
        written = domain.needs
        devices = identified(written.devices, read_devices(self._places.node)) if written.devices else ()
        guest_cpu: tuple[str, ...] = ()
        guest_agent = ""
        root, disks = parse_tree(texts.live or texts.stored), domain.disks
        if texts.live:
            guest_cpu, guest_agent = self._connection.guest_cpu(root), guest_agent_of(root)
            disks += disks_in(root, self._places.resolve)  # those that were plugged in, and are not stored
        needs = structs.replace(written, devices=devices, guest_cpu=guest_cpu)
        chain = chain_of(root, self._places.resolve)
        blockers = blockers_of(root, (*disks, *chain), snapshots=texts.snapshots > 0)
        return domain, Understood(needs, guest_agent, blockers, chain)


def guest_agent_of(live: Element) -> str:
    """Return whether the guest's agent has opened its channel, as the XML of what runs says."""
    for target in live.iterfind("devices/channel/target"):
        if target.get("name") == GUEST_AGENT_CHANNEL:
            return "Connected" if target.get("state") == "connected" else "Disconnected"
    return ""


def kept_on(domain: Domain, chain: tuple[Disk, ...]) -> tuple[tuple[Disk, ...], str]:
    """Return what a start elsewhere needs to reach, and the NVRAM that it would leave behind, as in Definition."""
    disks, nvram = (*domain.disks, *chain), domain.nvram
    if nvram is None:
        return disks, ""
    return ((*disks, nvram), "") if nvram.shared else (disks, nvram.identity)


def chain_of(root: Element, resolve: Resolver) -> tuple[Disk, ...]:
    """Return what lies under the domain's disks: by its XML, else by the images themselves."""
    told = backings_in(root, resolve)
    known = {disk.target.partition("[")[0] for disk in told}
    found = list(told)
    for element in root.iterfind("devices/disk[@type='file']"):
        source, target = element.find("source"), element.find("target")
        name = target.get("dev", "") if target is not None else ""
        if source is not None and name not in known and element.find("driver[@type='qcow2']") is not None:
            found += below(name, source.get("file", ""), resolve)
    return tuple(found)


def ports_of(domain: Domain) -> frozenset[int]:
    """Return the ports of the servers that the domain's writable network disks lie on."""
    storages = [network_storage(disk.identity) for disk in domain.disks if disk.writable]
    return frozenset(server.port for name in storages for server in servers_of(name))
