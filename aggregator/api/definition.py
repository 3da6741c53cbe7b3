"""A VM's domain XML at the edge: its uuid, its size, its disks, and what in it would bypass a run strategy.

Pure text work on one VM; comparing VMs with each other and with the fleet is checks.py's.
"""

from __future__ import annotations

import re
from functools import lru_cache
from uuid import UUID, uuid4
from xml.parsers import expat

from msgspec import Struct

from aggregator.api.problems import refused
from aggregator.core.objects import VirtualMachine, VmSpec
from aggregator.core.secrets import restore_xml
from fleet.domain_xml import NVRAM_DIR, Domain, DomainXmlError, nvram_in, parse_domain, parse_tree
from fleet.model import Disk
from fleet.units import parse_bytes, parse_cpu_m

PARSED_MAX = 4096
GUEST_AGENT_CHANNEL = "org.qemu.guest_agent.0"
_OWN_TPM = "devices/tpm/backend[@type='emulator']"
_BYPASSES = (("on_poweroff", "destroy"), ("on_reboot", "restart"), ("on_crash", "destroy"))
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Edge(Struct, frozen=True, kw_only=True):
    """A VM as it came in, with all that follows from its XML alone. xml holds its uuid."""

    written: VirtualMachine
    uuid: str
    xml: str
    domain: Domain

    @property
    def name(self) -> str:
        """The VM's name."""
        return self.written.metadata.name


def read_edge(written: VirtualMachine, kept_uuid: str = "", kept_xml: str = "") -> Edge:
    """Return a VM with its uuid in its XML and hidden passwords filled in; Problem 422 says what is wrong.

    kept_uuid, kept_xml: of the VM that has this name already. A new VM without a uuid gets one here.
    """
    try:
        xml = restore_xml(written.spec.domain_xml, kept_xml)
        domain = parse_domain(xml)
    except ValueError as error:
        raise refused(str(error)) from None
    except DomainXmlError as error:
        raise refused(f"spec.domainXML: {error}") from None
    if domain.name != written.metadata.name:
        raise refused(
            f"spec.domainXML: its <name> is {domain.name!r}; it must be metadata.name, {written.metadata.name!r}"
        )
    uuid = _uuid(written, domain, kept_uuid)
    if not domain.uuid:
        xml = with_uuid(xml, uuid)
    return Edge(written=written, uuid=uuid, xml=xml, domain=domain)


def _uuid(written: VirtualMachine, domain: Domain, kept: str) -> str:
    uid = written.metadata.uid.strip().lower()
    if uid and not _UUID.fullmatch(uid):
        raise refused(f"metadata.uid: {written.metadata.uid!r} is no uuid")
    if uid and domain.uuid and uid != domain.uuid:
        raise refused(f"spec.domainXML: its <uuid> is {domain.uuid}; metadata.uid says {uid}")
    given = domain.uuid or uid
    if kept and given and given != kept:
        raise refused(
            f"spec.domainXML: its <uuid> is {given}, but VM {written.metadata.name} has {kept}; "
            "a uuid cannot change: leave it out, or delete the VM first"
        )
    found = kept or given or str(uuid4())
    if not UUID(found).int:
        raise refused("spec.domainXML: its <uuid> is all zeros; leave it out to get one")
    return found


def with_uuid(xml: str, uuid: str) -> str:
    """Return the XML with a <uuid> as the first child of its root; the rest stays letter for letter."""
    parser = expat.ParserCreate("utf-8")
    place = -1
    inside = False

    def begun(_name: str, _attributes: dict[str, str]) -> None:
        nonlocal inside
        note()
        inside = True

    def note(*_: object) -> None:
        nonlocal place
        if inside and place < 0:
            place = parser.CurrentByteIndex

    parser.StartElementHandler = begun
    parser.EndElementHandler = parser.CharacterDataHandler = parser.CommentHandler = note
    parser.ProcessingInstructionHandler = note
    raw = xml.encode()
    parser.Parse(raw, True)
    return (raw[:place] + f"<uuid>{uuid}</uuid>".encode() + raw[place:]).decode()


def size_of(spec: VmSpec, domain: Domain) -> tuple[int, int]:
    """Return (millicores, bytes) the VM asks of a node: its requests, else what its XML gives it.

    Overcommit is on the other side: it makes the node's allocatable larger.
    """
    requests = spec.resources.requests if spec.resources else {}
    cpu_m = parse_cpu_m(requests["cpu"]) if "cpu" in requests else domain.cpu_m
    memory_bytes = parse_bytes(requests["memory"]) if "memory" in requests else domain.memory_bytes
    return cpu_m, memory_bytes


@lru_cache(maxsize=PARSED_MAX)
def disks_in(xml: str) -> tuple[Disk, ...]:
    """Return the disks that an XML names, by what can be told from the text; none if it cannot be read."""
    try:
        return parse_domain(xml).disks
    except DomainXmlError:
        return ()


def left_behind(spec: VmSpec, xml: str, name: str) -> list[str]:
    """Return a sentence for each state that its host keeps for a VM and that a start elsewhere would not find."""
    root = parse_tree(xml)
    found = []
    if root.find(_OWN_TPM) is not None and not spec.host_state:
        found.append(
            "the state of its TPM stays on its host, so it is never started elsewhere; say spec.hostState: Require "
            "(so it is meant) or Recreate (elsewhere it starts with a new one)"
        )
    nvram = nvram_in(root, name)
    if nvram is not None and nvram.identity.startswith(f"path:{NVRAM_DIR}/") and not spec.host_state:
        found.append(
            f"its NVRAM stays on its host (in {NVRAM_DIR}), so elsewhere it starts with an older or a new one; name "
            "one on shared storage in <nvram>, or say spec.hostState: Require (not started elsewhere) or Recreate"
        )
    return found


def deaf_probes(spec: VmSpec, xml: str) -> list[str]:
    """Return a sentence for each probe that asks a guest agent which the XML gives no channel."""
    if parse_tree(xml).find(f"devices/channel/target[@name='{GUEST_AGENT_CHANNEL}']") is not None:
        return []
    probes = (("livenessProbe", spec.liveness_probe), ("readinessProbe", spec.readiness_probe))
    return [
        f"spec.{name}.guestAgentPing asks the guest agent, and spec.domainXML has no channel {GUEST_AGENT_CHANNEL}, so "
        "it never answers; add the channel, or probe by tcpSocket or httpGet"
        for name, probe in probes
        if probe is not None and probe.guest_agent_ping is not None
    ]


def bypasses(xml: str) -> list[str]:
    """Return a sentence for each setting that would act behind the run strategy's back."""
    root = parse_tree(xml)
    found = []
    for tag, wanted in _BYPASSES:
        said = (root.findtext(tag) or wanted).strip()
        if said != wanted:
            found.append(
                f"spec.domainXML: <{tag}> is {said!r}, which bypasses spec.runStrategy; "
                f"write {wanted!r} or leave it out"
            )
    return found
