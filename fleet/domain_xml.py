"""Reads a libvirt domain's XML: name, uuid, size, disks by identity, and a hash that libvirt's own
rewriting does not change.

Pure but for the resolver it is given. Knows libvirt's domain format; must not know hosts, mounts or
libvirt itself. XML comes from people too: it is bounded, and document types (entities) are refused.
"""

from __future__ import annotations

import hashlib
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from xml.parsers import expat

from msgspec import Struct

from fleet.domain_needs import needs_of
from fleet.model import Disk, Needs
from fleet.units import DIGITS_MAX, libvirt_bytes

XML_BYTES_MAX = 1024 * 1024
DEPTH_MAX = 64
DISKS_MAX = 256
NVRAM_DIR = "/var/lib/libvirt/qemu/nvram"  # where libvirt keeps what no XML gives a place
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class DomainXmlError(Exception):
    """The XML is no usable domain; the text is one sentence that names the place."""


class Place(Struct, frozen=True):
    """What a local path really is. shared: the same identity may be reached from other nodes."""

    identity: str
    shared: bool


Resolver = Callable[[str], Place]  # an absolute path of a file or block device → what it is


class Domain(Struct, frozen=True):
    """What virtward needs to know of a domain. uuid is empty where libvirt has not given one yet.

    nvram: what keeps the variables of its firmware, in the shape of a disk; None: it has none.
    """

    name: str
    uuid: str
    type: str
    memory_bytes: int
    cpu_m: int
    disks: tuple[Disk, ...]
    hash: str
    has_tpm: bool = False
    machine: str = ""
    needs: Needs = Needs()
    nvram: Disk | None = None


def unresolved(path: str) -> Place:
    """Resolve nothing: an identity by path alone, local to whoever asks."""
    return Place(f"path:{path}", shared=False)


def parse_domain(xml: str, resolve: Resolver = unresolved) -> Domain:
    """Read a domain's XML. Raises DomainXmlError.

    memory_bytes is <memory>, cpu_m 1000 for each of the vCPUs that are on (`current`, else all).
    """
    root = parse_tree(xml)
    name = (root.findtext("name") or "").strip()
    if not name or "/" in name or "\n" in name:
        raise DomainXmlError("domain/name: is missing or is no name")
    uuid = (root.findtext("uuid") or "").strip().lower()
    if uuid and not _UUID.fullmatch(uuid):
        raise DomainXmlError(f"domain/uuid: {uuid!r} is no uuid")
    disks = disks_in(root, resolve)
    machine = root.find("os/type")
    memory_bytes = _memory(root)
    return Domain(
        name=name,
        uuid=uuid,
        type=root.get("type", ""),
        memory_bytes=memory_bytes,
        cpu_m=_vcpus(root) * 1000,
        disks=disks,
        hash=canonical_hash(root),
        has_tpm=root.find("devices/tpm") is not None,
        machine=machine.get("machine", "") if machine is not None else "",
        needs=needs_of(root, memory_bytes),
        nvram=nvram_in(root, name, resolve),
    )


def disks_in(root: ET.Element, resolve: Resolver) -> tuple[Disk, ...]:
    """Return the disks that a domain has, empty drives left out. Raises DomainXmlError."""
    disks = root.findall("devices/disk")
    if len(disks) > DISKS_MAX:
        raise DomainXmlError(f"domain/devices: {len(disks)} disks are more than {DISKS_MAX}")
    found = (_disk(element, resolve) for element in disks)
    return tuple(disk for disk in found if disk is not None)


def backings_in(root: ET.Element, resolve: Resolver) -> tuple[Disk, ...]:
    """Return what lies under the disks of a domain, as far as its XML says: vda[1], vda[2], … Raises DomainXmlError."""
    found = []
    for element in root.findall("devices/disk"):
        target = element.find("target")
        name = target.get("dev", "") if target is not None else ""
        under, depth = element.find("backingStore"), 1
        while under is not None and (source := under.find("source")) is not None and source.attrib:
            place = _identify(under.get("type", "file"), source, resolve, f"domain/devices/disk {name}[{depth}]")
            found.append(Disk(f"{name}[{depth}]", place.identity, writable=False, shared=place.shared))
            under, depth = under.find("backingStore"), depth + 1
    return tuple(found)


def nvram_in(root: ET.Element, name: str, resolve: Resolver = unresolved) -> Disk | None:
    """Return what keeps the variables of a domain's UEFI, in the shape of a disk; None where nothing does."""
    element, loader = root.find("os/nvram"), root.find("os/loader")
    is_flash = loader is not None and loader.get("type") == "pflash"
    if (element is None and not is_flash and root.find("os[@firmware='efi']") is None) or (
        loader is not None and loader.get("stateless") == "yes"
    ):
        return None
    source = element.find("source") if element is not None else None
    if element is not None and source is not None:
        place = _identify(element.get("type", "file"), source, resolve, "domain/os/nvram")
    else:
        path = (element.text or "").strip() if element is not None else ""
        place = resolve(path or f"{NVRAM_DIR}/{name}_VARS.fd")
    return Disk("nvram", place.identity, shared=place.shared)


def parse_tree(xml: str) -> ET.Element:
    """Return the <domain> element; DomainXmlError if it is too long, too deep, no XML or no domain."""
    if len(xml) > XML_BYTES_MAX:
        raise DomainXmlError(f"the XML is longer than {XML_BYTES_MAX} characters")
    _refuse_document_type(xml)
    try:
        root = ET.fromstring(xml)  # noqa: S314 - no document type, so no entities: refused one line above
    except ET.ParseError as error:
        raise DomainXmlError(f"the XML is broken at line {error.position[0]}, column {error.position[1]}") from None
    if root.tag != "domain":
        raise DomainXmlError(f"the XML is a <{root.tag}>, not a <domain>")
    return root


def _refuse_document_type(xml: str) -> None:
    depth = 0

    def opened(_name: str, _attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > DEPTH_MAX:
            raise DomainXmlError(f"the XML is nested deeper than {DEPTH_MAX} levels")

    def closed(_name: str) -> None:
        nonlocal depth
        depth -= 1

    def document_type(*_: object) -> None:
        raise DomainXmlError("the XML has a document type, which is not accepted")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = opened, closed
    parser.StartDoctypeDeclHandler = document_type
    try:
        parser.Parse(xml, True)
    except expat.ExpatError as error:
        raise DomainXmlError(f"the XML is broken at line {error.lineno}, column {error.offset}") from None
    except UnicodeEncodeError:
        raise DomainXmlError("it holds characters that XML does not allow") from None


def _memory(root: ET.Element) -> int:
    element = root.find("memory")
    text = (element.text or "").strip() if element is not None else ""
    if element is None or not _is_number(text):
        raise DomainXmlError("domain/memory: is missing or is no number")
    unit = element.get("unit", "KiB")
    size = libvirt_bytes(text, unit)
    if size is None:
        raise DomainXmlError(f"domain/memory: {unit!r} is no unit")
    return size


def _vcpus(root: ET.Element) -> int:
    element = root.find("vcpu")
    if element is None:
        return 1
    text = element.get("current") or (element.text or "").strip()
    if not _is_number(text) or int(text) == 0:
        raise DomainXmlError(f"domain/vcpu: {text[:DIGITS_MAX]!r} is no number of CPUs")
    return int(text)


def _is_number(text: str) -> bool:
    """Return whether text is a number as libvirt writes one: there are more digits than ours, and longer numbers."""
    return text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX


def _disk(element: ET.Element, resolve: Resolver) -> Disk | None:
    """Return the disk, or None for an empty drive."""
    target_element = element.find("target")
    target = target_element.get("dev", "") if target_element is not None else ""
    source = element.find("source")
    if source is None or not source.attrib:
        return None
    place = _identify(element.get("type", "file"), source, resolve, f"domain/devices/disk {target}")
    read_only = element.find("readonly") is not None or element.get("device") == "cdrom"
    return Disk(
        target=target,
        identity=place.identity,
        writable=not read_only,
        shareable=element.find("shareable") is not None,
        shared=place.shared,
    )


def _identify(kind: str, source: ET.Element, resolve: Resolver, where: str) -> Place:
    if kind == "network":
        return _network(source, where)
    if kind in ("file", "block"):
        path = source.get("file") or source.get("dev") or ""
        if not path.startswith("/"):
            raise DomainXmlError(f"{where}: {path!r} is no absolute path")
        return resolve(path)
    if kind == "volume":
        pool, volume = source.get("pool", ""), source.get("volume", "")
        return Place(f"volume:{pool}/{volume}", shared=False)
    if kind == "nvme":
        return Place("nvme:" + ",".join(f"{k}={v}" for k, v in sorted(source.attrib.items())), shared=False)
    return Place(f"{kind}:" + ",".join(f"{k}={v}" for k, v in sorted(source.attrib.items())), shared=False)


_DEFAULT_PORTS = {"nbd": "10809", "iscsi": "3260", "http": "80", "https": "443", "ssh": "22"}


def _network(source: ET.Element, where: str) -> Place:
    """Identity of a network disk: protocol://host:port[,host:port…]/name, hosts in order of their names."""
    protocol, name = source.get("protocol", ""), source.get("name", "")
    if not protocol:
        raise DomainXmlError(f"{where}: a network disk without a protocol")
    hosts = []
    for host in source.findall("host"):
        if host.get("transport", "tcp") == "unix":
            return Place(f"{protocol}:unix:{host.get('socket', '')}/{name}", shared=False)
        port = host.get("port") or _DEFAULT_PORTS.get(protocol, "")
        hosts.append(f"{host.get('name', '')}:{port}" if port else host.get("name", ""))
    return Place(f"{protocol}://{','.join(sorted(hosts))}/{name.lstrip('/')}", shared=True)


def canonical_hash(root: ET.Element) -> str:
    """Return a hash of what matters: attribute order, white space and run-time parts do not.

    <seclabel> and <alias> of a running domain and the ids libvirt adds while it runs are left out,
    so that the persistent definition has the same hash whether or not the VM runs. A migration
    reorders <controller> elements (seen with libvirt 9.0), so of the devices only those whose order
    a guest sees keep it.
    """
    return _digest(root).hex()[:32]


_RUNTIME_TAGS = frozenset({"alias", "seclabel", "privateData", "mirror"})
_ORDERED_DEVICES = frozenset({"disk", "interface", "hostdev"})


def _digest(element: ET.Element) -> bytes:
    attributes = sorted((k, v) for k, v in element.attrib.items() if not (element.tag == "domain" and k == "id"))
    own = hashlib.sha256(repr((element.tag, attributes, (element.text or "").strip())).encode())
    children = [child for child in element if child.tag not in _RUNTIME_TAGS]
    digests = [(child.tag if child.tag in _ORDERED_DEVICES else "", _digest(child)) for child in children]
    if element.tag == "devices":
        ordered = [digest for tag, digest in digests if tag]
        digests = [("", digest) for digest in (*ordered, *sorted(digest for tag, digest in digests if not tag))]
    for _tag, digest in digests:
        own.update(digest)
    return own.digest()
