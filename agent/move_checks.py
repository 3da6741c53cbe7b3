"""Answers what the aggregator asks about a move that has not begun, of this host as source or as target.

Begins nothing, changes nothing. A question that cannot be answered in time is a finding less, never a refusal:
what is unknown is said by nobody.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element

import psutil
from msgspec import Struct, structs

from agent.host import interfaces_here
from agent.libvirt_checks import DirtyRates, call_other
from agent.libvirt_driver import Connection
from agent.libvirt_pool import LibvirtDownError
from agent.move_findings import (
    available_memory,
    memory_finding,
    offer_findings,
    port_range,
    ports_finding,
    storage_finding,
)
from agent.places import Places
from agent.work_migrate import ENCRYPTED
from agent.workers import CrowdedError, StuckError, Workers
from fleet.domain_xml import DomainXmlError, disks_in, parse_tree
from fleet.messages import CheckArrival, CheckDeparture, MoveChecked
from fleet.model import Finding

ARRIVAL_S_MAX = 4.0
CALL_S_MAX = 4.0
CONNECT_S_MAX = 1.0
MEASURE_S_MAX = 10
QEMU_CONF = Path("/etc/libvirt/qemu.conf")
FAILURES = (StuckError, CrowdedError, LibvirtDownError)


class Ways(Struct, frozen=True):
    """Where this host's own things are read."""

    uri: str
    places: Places
    migration_tls: bool
    proc: Path = Path("/proc")
    qemu_conf: Path = QEMU_CONF


class MoveChecks:
    """Bounded threads of their own, so that a check never takes the last thread of a deed."""

    def __init__(self, ways: Ways) -> None:
        self._ways = ways
        self._libvirt = Connection(ways.uri)
        self._rates = DirtyRates(ways.uri)
        self._checking = Workers("move check", 4)
        self._measuring = Workers("dirty rate", 8)

    async def check(self, question: CheckArrival | CheckDeparture) -> MoveChecked:
        """Say what this host has for a copy, or whether the way from here is open."""
        if isinstance(question, CheckArrival):
            return await self._arrive(question)
        checks = (self._other(question), self._way(question), self._rate(question))
        called, (reached, link), rate = await asyncio.gather(*checks)
        return MoveChecked(question.check_id, (*called, *reached), -1 if rate is None else rate, link)

    async def _arrive(self, question: CheckArrival) -> MoveChecked:
        try:
            found = await self._checking.run(lambda: tuple(self._arrival(question)), ARRIVAL_S_MAX)
        except FAILURES as error:
            found = (Finding("Libvirt", ok=False, message=str(error)),)
        return MoveChecked(question.check_id, found)

    def _arrival(self, question: CheckArrival) -> Iterator[Finding]:
        ways = self._ways
        facts = self._libvirt.host_facts(ways.places.node)
        yield Finding("Libvirt", ok=True, message=f"libvirt {facts.libvirt_version}, QEMU {facts.qemu_version}")
        sockets = [_text(ways.proc / "net" / name) for name in ("tcp", "tcp6")]
        yield ports_finding(port_range(_text(ways.qemu_conf)), sockets)
        if question.memory_bytes and (has := available_memory(_text(ways.proc / "meminfo"))) is not None:
            yield memory_finding(question.memory_bytes, has)
        if facts.offers is not None:
            yield from offer_findings(question.needs, structs.replace(facts.offers, interfaces=interfaces_here()))
        if question.xml:
            yield from self._definition(question)

    def _definition(self, question: CheckArrival) -> Iterator[Finding]:
        try:
            root = parse_tree(question.xml)
            here = disks_in(root, self._ways.places.resolve)
        except DomainXmlError as error:
            yield Finding("Definition", ok=False, message=str(error))
            return
        yield storage_finding(question.disks, here, _absent(root))
        taken = self._libvirt.check_xml(question.xml)
        yield Finding("Definition", ok=taken.ok, message=taken.message or "libvirt here takes its definition")

    async def _other(self, question: CheckDeparture) -> tuple[Finding, ...]:
        uri = question.peer_uri
        if not uri:
            return ()
        if self._ways.migration_tls and not uri.startswith(ENCRYPTED):
            return (Finding("TLS", ok=False, message=f"it names {uri} for its libvirt, without TLS"),)
        try:
            version = await self._checking.run(lambda: call_other(uri), CALL_S_MAX)
        except StuckError:
            return (Finding("Call", ok=False, message=f"{uri} gave no answer within {CALL_S_MAX:g} s"),)
        except FAILURES as error:
            return (Finding("Call", ok=False, message=str(error)),)
        secured = "over TLS" if "+tls" in uri or uri.startswith("qemu://") else "without TLS"
        return (Finding("Call", ok=True, message=f"its libvirt {version} answers {secured} ({uri})"),)

    async def _way(self, question: CheckDeparture) -> tuple[tuple[Finding, ...], int]:
        """Return whether the target's address for guests is reached, and what the device on the way takes."""
        host, port = question.migration_address, question.agent_port
        if not host or not port:
            return (), -1
        try:
            async with asyncio.timeout(CONNECT_S_MAX):
                _, writer = await asyncio.open_connection(host, port)
        except (OSError, TimeoutError) as error:
            why = getattr(error, "strerror", None) or "no answer within a second"
            return (Finding("MigrationNetwork", ok=False, message=f"{host} is not reached: {why}"),), -1
        own = writer.get_extra_info("sockname")[0]
        writer.close()
        return (Finding("MigrationNetwork", ok=True, message=f"{host} is reached from {own}"),), link_bytes_per_s(own)

    async def _rate(self, question: CheckDeparture) -> int | None:
        seconds = min(question.measure_s, MEASURE_S_MAX)
        if seconds <= 0 or not question.uuid:
            return None
        try:
            return await self._measuring.run(lambda: self._rates.measure(question.uuid, seconds), seconds + 4.0)
        except FAILURES:
            return None


def link_bytes_per_s(address: str) -> int:
    """Return what the network device with that address takes by its own word, -1 where it does not say."""
    speeds = psutil.net_if_stats()
    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address == address for each in addresses) and name in speeds and speeds[name].speed > 0:
            return speeds[name].speed * 1_000_000 // 8
    return -1


def _absent(root: Element) -> Iterator[str]:
    """Yield targets of disks whose file or device is not on this host."""
    for element in root.iterfind("devices/disk"):
        source, target = element.find("source"), element.find("target")
        path = (source.get("file") or source.get("dev") or "") if source is not None else ""
        if path.startswith("/") and target is not None and not os.path.exists(path):  # noqa: PTH110 - no Path is needed
            yield target.get("dev", "")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
