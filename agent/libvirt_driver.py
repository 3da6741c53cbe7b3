"""What the agent asks of libvirt, and has it do: blocking calls.

Everything here blocks and may block for ever; agent.watcher calls it in threads that can be
abandoned (agent.workers). libvirt's own event loop runs in a thread of its own (libvirtaio together
with threads loses events). Domains are called domains here and nowhere else.
"""

from __future__ import annotations

import functools
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import libvirt
from msgspec import Struct, structs

from agent import libvirt_words as words
from agent.deeds import (
    AWAY_MIGRATED,
    CODE_NOT_PAUSED,
    CODE_UNKNOWN,
    AbortJob,
    AnyDeed,
    AskShutdown,
    AskState,
    Create,
    Define,
    Destroy,
    DestroyIncoming,
    Migrate,
    Resume,
    Screenshot,
    SetDowntime,
    Suspend,
    Undefine,
)
from agent.hypervisor import HypervisorFacts, Result
from agent.libvirt_moves import Job, job_of, move, state_word
from agent.libvirt_pool import LibvirtDownError, Pool, is_alive, open_connection
from agent.libvirt_screen import screenshot
from agent.libvirt_undefine import undefine
from agent.offers import bounded, read_capabilities, read_domain_capabilities, read_features, read_host_cpu
from agent.sysfs import with_stock
from fleet.domain_xml import DomainXmlError, parse_domain, parse_tree
from fleet.model import HostOffers

CPUS_MAX = 256  # different CPUs that are remembered
MARK_PREFIX, MARK_URI = "virtward", "urn:virtward:1"  # agent/hooks/qemu.d/virtward looks for the prefix
ERROR_NAMES = {v: k.removeprefix("VIR_ERR_") for k, v in vars(libvirt).items() if k.startswith("VIR_ERR_")}
XML_FLAGS = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE


_Answer = TypeVar("_Answer")


class RawDomain(Struct, frozen=True):
    """A domain as a state-only call shows it."""

    uuid: str
    name: str
    state: int
    reason: int
    defined: bool

    @property
    def active(self) -> bool:
        return self.state not in (words.SHUTOFF, words.NOSTATE)


class DomainTexts(Struct, frozen=True):
    """A domain's XML. stored: with its secrets, another node starts the VM from it. live: empty if it does not run.

    snapshots, checkpoints: how many libvirt knows of, which no XML of it says.
    """

    stored: str
    live: str
    snapshots: int = 0
    checkpoints: int = 0


def _texts(domain: Any, *, kept: bool = True) -> DomainTexts:  # noqa: ANN401 - libvirt-python ships no types
    """kept: whether there may be snapshots or checkpoints."""
    live = str(domain.XMLDesc(0)) if domain.isActive() else ""
    counts = (domain.snapshotNum(0), len(domain.listAllCheckpoints())) if kept else (0, 0)
    return DomainTexts(str(domain.XMLDesc(XML_FLAGS)), live, *counts)


class LibvirtEvent(Struct, frozen=True):
    """A hint that a domain changed. stopped_detail: for the event STOPPED, else None."""

    uuid: str
    name: str
    stopped_detail: int | None = None
    started: bool = False
    changed: bool = False  # what is stored of it, or its guest agent
    hung: bool = False  # its watchdog device is about to power it off


@contextmanager
def _down_when_it_fails() -> Iterator[None]:
    """Reading fails only because libvirtd is not there, or has just gone."""
    try:
        yield
    except libvirt.libvirtError as error:
        raise LibvirtDownError(f"libvirtd does not answer: {error}") from None


class Connection:
    """What is asked of one libvirtd for one purpose; each call over a connection of its own (agent.libvirt_pool)."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._pool = Pool(uri)
        self.listening: Any = None  # the connection that gets the events, and nothing else
        self._cpus: dict[str, tuple[str, ...] | None] = {}  # a CPU as libvirt writes it → its features

    def is_listening(self) -> bool:
        """Say whether the connection that gets the events stands, without asking libvirtd."""
        conn = self.listening
        return conn is not None and is_alive(conn)

    @_down_when_it_fails()
    def listen(self, lost: Callable[[], None], changed: Callable[[LibvirtEvent], None]) -> Any:  # noqa: ANN401
        """Return a new connection that gets events, and tells of its end; both are called in the event thread.

        Whoever waited for it keeps it in `listening`: one that comes too late is dropped, and closed with that.
        """
        conn = open_connection(self.uri)
        conn.registerCloseCallback(lambda *_: lost(), None)

        def lifecycle(_conn: object, domain: Any, event: int, detail: int, _opaque: object) -> None:  # noqa: ANN401
            stopped = detail if event == libvirt.VIR_DOMAIN_EVENT_STOPPED else None
            defined = event in (libvirt.VIR_DOMAIN_EVENT_DEFINED, libvirt.VIR_DOMAIN_EVENT_UNDEFINED)
            started = event == libvirt.VIR_DOMAIN_EVENT_STARTED
            changed(LibvirtEvent(domain.UUIDString(), domain.name(), stopped, started, changed=defined))

        def guest_agent(_conn: object, domain: Any, *_: object) -> None:  # noqa: ANN401
            changed(LibvirtEvent(domain.UUIDString(), domain.name(), changed=True))

        def any_other(_conn: object, domain: Any, *_: object) -> None:  # noqa: ANN401
            changed(LibvirtEvent(domain.UUIDString(), domain.name()))

        def watchdog(_conn: object, domain: Any, action: int, _opaque: object) -> None:  # noqa: ANN401
            hung = action == libvirt.VIR_DOMAIN_EVENT_WATCHDOG_POWEROFF
            changed(LibvirtEvent(domain.UUIDString(), domain.name(), hung=hung))

        conn.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle, None)
        conn.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON, any_other, None)
        conn.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED, any_other, None)
        conn.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE, guest_agent, None)
        conn.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_WATCHDOG, watchdog, None)
        return conn

    # --- reading; nothing here waits for a QEMU

    @_down_when_it_fails()
    def host_facts(self, node: str) -> HypervisorFacts:
        """Return the host's uuid as libvirtd is configured, versions, and what this node has for domains."""
        with self._pool.borrow() as conn:
            capabilities = ET.fromstring(conn.getCapabilities())  # noqa: S314 - our own libvirtd
            uuid = capabilities.findtext("host/uuid") or ""
            offers = with_stock(self._offers(conn, read_capabilities(capabilities)), node)
            versions = _version(conn.getLibVersion()), _version(conn.getVersion())
        return HypervisorFacts(uuid, *versions, ready=True, offers=offers)

    @_down_when_it_fails()
    def list_domains(self) -> list[RawDomain]:
        """Return all domains with their state: two calls, neither waits for a QEMU."""
        found = []
        with self._pool.borrow() as conn:
            defined = {d.UUIDString() for d in conn.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_PERSISTENT)}
            for domain, stats in conn.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_STATE, 0):
                uuid = domain.UUIDString()
                state, reason = stats.get("state.state", 0), stats.get("state.reason", 0)
                found.append(RawDomain(uuid, domain.name(), state, reason, uuid in defined))
        return found

    @_down_when_it_fails()
    def list_states(self) -> dict[str, tuple[int, int]]:
        """Return state and reason of all domains, by uuid: one call, which waits for no QEMU."""
        with self._pool.borrow() as conn:
            told = conn.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_STATE, 0)
            return {d.UUIDString(): (s.get("state.state", 0), s.get("state.reason", 0)) for d, s in told}

    @_down_when_it_fails()
    def autostarted(self) -> tuple[str, ...]:
        """Return the names of the domains that libvirt starts with the host."""
        with self._pool.borrow() as conn:
            return tuple(sorted(domain.name() for domain in conn.listAllDomains() if domain.autostart()))

    def look_at(self, uuid: str) -> RawDomain | None:
        """Return one domain, None if libvirt does not know it."""
        try:
            with self._pool.borrow() as conn:
                domain = conn.lookupByUUIDString(uuid)
                state, reason = domain.state()
                return RawDomain(uuid, domain.name(), state, reason, bool(domain.isPersistent()))
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise LibvirtDownError(str(error)) from None

    def read_texts(self, uuid: str) -> DomainTexts | None:
        """Return what is stored of a domain and what runs of it, None if libvirt does not know it."""
        try:
            with self._pool.borrow() as conn:
                domain = conn.lookupByUUIDString(uuid)
                return _texts(domain)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise LibvirtDownError(str(error)) from None

    @_down_when_it_fails()
    def read_all_texts(self) -> dict[str, DomainTexts]:
        """Return the same of all domains, by uuid, over one connection; one that goes away meanwhile is left out."""
        with self._pool.borrow() as conn:
            flags = (libvirt.VIR_CONNECT_LIST_DOMAINS_HAS_SNAPSHOT, libvirt.VIR_CONNECT_LIST_DOMAINS_HAS_CHECKPOINT)
            kept = {d.UUIDString() for flag in flags for d in conn.listAllDomains(flag)}
            found = {}
            for domain in conn.listAllDomains():
                uuid = domain.UUIDString()
                texts = _or_none(functools.partial(_texts, domain, kept=uuid in kept))
                if texts is not None:
                    found[uuid] = texts
            return found

    def guest_cpu(self, live: ET.Element) -> tuple[str, ...]:
        """Return every feature of the CPU that a running guest was given; empty if that cannot be told."""
        cpu, kind = live.find("cpu"), live.find("os/type")
        if cpu is None or kind is None:
            return ()
        try:
            with self._pool.borrow() as conn:
                return self._features(conn, cpu, kind.get("arch", ""), live.get("type", "")) or ()
        except (libvirt.libvirtError, LibvirtDownError):
            return ()

    def _features(self, conn: Any, cpu: ET.Element, arch: str, kind: str) -> tuple[str, ...] | None:  # noqa: ANN401
        """Return a CPU's features, those of its model spelt out; libvirt is asked once for each."""
        text = f"{arch} {kind} {ET.tostring(cpu, encoding='unicode')}"
        if text not in self._cpus:
            expand = libvirt.VIR_CONNECT_BASELINE_CPU_EXPAND_FEATURES
            cpus = [ET.tostring(cpu, encoding="unicode")]
            told = _or_none(lambda: conn.baselineHypervisorCPU(None, arch, None, kind, cpus, expand))
            if len(self._cpus) >= CPUS_MAX:
                self._cpus.clear()
            self._cpus[text] = None if told is None else read_features(ET.fromstring(told))  # noqa: S314 - as above
        return self._cpus[text]

    def _offers(self, conn: Any, known: HostOffers) -> HostOffers:  # noqa: ANN401
        """Return what this libvirtd has for domains; a part of it that is not built in, or fails, stays unknown."""
        if known.domain_types:
            kind = known.domain_types[0]
            text = _or_none(functools.partial(conn.getDomainCapabilities, None, known.arch, None, kind, 0))
            if text is not None:
                told = ET.fromstring(text)  # noqa: S314 - our own libvirtd
                known = read_domain_capabilities(told, known)
                if (cpu := read_host_cpu(told)) is not None:
                    known = structs.replace(known, cpu_features=self._features(conn, cpu, known.arch, kind))
        pools = _or_none(lambda: conn.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE))
        secrets = _or_none(conn.listSecrets)
        networks = _or_none(conn.listNetworks)
        return structs.replace(
            known,
            networks=None if networks is None else bounded(networks),
            pools=None if pools is None else bounded(pool.name() for pool in pools),
            secrets=None if secrets is None else bounded(secrets),
        )

    def migration_progress(self, uuid: str) -> Job | None:
        """Return how far the VM's job is, None without one. Asks QEMU: may block."""
        try:
            with self._pool.borrow() as conn:
                return job_of(conn.lookupByUUIDString(uuid))
        except (libvirt.libvirtError, LibvirtDownError):
            return None

    # --- deeds

    def do(self, uuid: str, deed: AnyDeed) -> Result:
        """Do one deed; every failure is a Result."""
        try:
            with self._pool.borrow() as conn:
                return self._attempt(conn, uuid, deed)
        except LibvirtDownError as error:
            return Result(ok=False, code="LIBVIRT_DOWN", message=str(error))

    def do_there(self, uuid: str, deed: AnyDeed, host_uuid: str) -> Result:
        """Do a deed through this libvirtd if it is the one of that host: an address may have passed to another."""
        try:
            with self._pool.borrow() as conn:
                told = ET.fromstring(conn.getCapabilities()).findtext("host/uuid") or ""  # noqa: S314 - TLS, a node's
                if told.lower() != host_uuid.lower():
                    return Result(ok=False, code="OTHER_HOST", message=f"{self.uri} is the libvirt of host {told}")
                if isinstance(deed, Undefine) and state_word(conn.lookupByUUIDString(uuid)) != AWAY_MIGRATED:
                    return Result(ok=False, code="NOT_MIGRATED", message="it is not what the migration left behind")
                return self._attempt(conn, uuid, deed)
        except (libvirt.libvirtError, LibvirtDownError) as error:
            return Result(ok=False, code="LIBVIRT_DOWN", message=str(error))

    def _attempt(self, conn: Any, uuid: str, deed: AnyDeed) -> Result:  # noqa: ANN401
        try:
            return self._do(conn, uuid, deed)
        except DomainXmlError as error:
            return Result(ok=False, code="XML_REFUSED", message=str(error))
        except libvirt.libvirtError as error:
            if not is_alive(conn):
                return Result(ok=False, code=CODE_UNKNOWN, message=f"libvirtd was lost meanwhile: {error}")
            return _failure(error)

    def _do(self, conn: Any, uuid: str, deed: AnyDeed) -> Result:  # noqa: ANN401
        if isinstance(deed, Define):
            _define(conn, uuid, deed.xml)
            return Result(ok=True)
        domain = conn.lookupByUUIDString(uuid)
        if isinstance(deed, AskState | Screenshot):
            return Result(ok=True, code=state_word(domain)) if isinstance(deed, AskState) else screenshot(conn, domain)
        match deed:
            case Create(force_boot=force_boot):
                domain.createWithFlags(libvirt.VIR_DOMAIN_START_FORCE_BOOT if force_boot else 0)
            case AskShutdown():
                domain.shutdown()
            case Destroy():
                domain.destroy()
            case DestroyIncoming():
                if domain.state()[0] != libvirt.VIR_DOMAIN_PAUSED:
                    return Result(ok=False, code=CODE_NOT_PAUSED, message="its CPUs run")
                domain.destroy()
            case Suspend():
                domain.suspend()
            case Resume():
                domain.resume()
                _keep(conn, domain)
            case Undefine():
                undefine(conn, domain)
            case Migrate() | SetDowntime() | AbortJob():
                move(domain, deed)
        return Result(ok=True)

    def check_xml(self, xml: str) -> Result:
        """Let libvirt turn the XML into a QEMU command line, which needs all of it to be right."""
        try:
            parse_domain(xml)
            with self._pool.borrow() as conn:
                conn.domainXMLToNative("qemu-argv", xml, 0)
        except DomainXmlError as error:
            return Result(ok=False, code="XML_REFUSED", message=str(error))
        except LibvirtDownError as error:
            return Result(ok=False, code="LIBVIRT_DOWN", message=str(error))
        except libvirt.libvirtError as error:
            return _failure(error)
        return Result(ok=True)


def _define(conn: Any, uuid: str, xml: str) -> None:  # noqa: ANN401
    root = parse_tree(xml)
    given = root.find("uuid")
    if given is None:
        given = ET.SubElement(root, "uuid")
        given.text = uuid
        xml = ET.tostring(root, encoding="unicode")
    if (given.text or "").strip().lower() != uuid:
        raise DomainXmlError(f"domain/uuid: is {given.text!r}, and the order names {uuid}")
    domain = conn.defineXML(xml)
    domain.setAutostart(0)
    mark = f"<managed uuid='{uuid}'/>"  # with the uuid: a clone under another one is not managed
    domain.setMetadata(
        libvirt.VIR_DOMAIN_METADATA_ELEMENT, mark, MARK_PREFIX, MARK_URI, libvirt.VIR_DOMAIN_AFFECT_CONFIG
    )


def _keep(conn: Any, domain: Any) -> None:  # noqa: ANN401
    """Make a copy persistent whose migration was cut off before libvirt did: else its definition ends with its run."""
    if domain.isPersistent():
        return
    kept = conn.defineXML(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE))
    kept.setAutostart(0)


def _or_none(ask: Callable[[], _Answer]) -> _Answer | None:
    try:
        return ask()
    except libvirt.libvirtError:
        return None


def _failure(error: libvirt.libvirtError) -> Result:
    message = (error.get_error_message() or str(error)).replace("\n", " ").strip()
    return Result(ok=False, code=words.error_code(error.get_error_code(), message, ERROR_NAMES), message=message)


def _version(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
