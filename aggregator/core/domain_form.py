"""The short form `spec.domain: {…}` and its one expansion to libvirt's XML.

Pure. Fills in what nearly everybody wants (q35, virtio, guest agent, the actions on power-off and
reboot that leave the run strategy in charge); what is not named here needs spec.domainXML.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, unquote, urlsplit
from xml.etree import ElementTree as ET
from xml.etree.ElementTree import Element, SubElement

from msgspec import Struct

from aggregator.core.manifest_walk import ManifestError, not_one_of, show, step
from fleet.units import parse_bytes

CORES_MAX = 4096
DISKS_MAX = 26
VLAN_MAX = 4094
NBD_PORT = 10809
MEMORY_BYTES_MIN = 1024 * 1024

_OPERATING_SYSTEMS = ("linux", "windows")
_FIRMWARE = ("bios", "efi", "efi-secure")
_BUSES = {"virtio": "vd", "sata": "sd", "scsi": "sd", "ide": "hd"}
_FORMATS = ("raw", "qcow2")
_MAC = re.compile(r"[0-9a-fA-F][02468aceACE](:[0-9a-fA-F]{2}){5}")
_LIBOSINFO = "http://libosinfo.org/xmlns/libvirt/domain/1.0"
_OS_ID = {"linux": "http://libosinfo.org/linux/2022", "windows": "http://microsoft.com/win/10"}


class _Form(Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Base of the short form's parts."""


class CpuForm(_Form, frozen=True, kw_only=True):
    """model: host-model, host-passthrough or a model's name."""

    cores: int = 1
    model: str = "host-model"


class DiskForm(_Form, frozen=True, kw_only=True):
    """Exactly one of source, pool with volume, cdrom. A source is an absolute path or an nbd:// URI."""

    source: str | None = None
    pool: str | None = None
    volume: str | None = None
    cdrom: str | None = None
    bus: str | None = None
    format: str | None = None


class InterfaceForm(_Form, frozen=True, kw_only=True):
    """Exactly one of bridge and network."""

    bridge: str | None = None
    network: str | None = None
    vlan: int | None = None
    mac: str | None = None
    model: str | None = None


class DomainForm(_Form, frozen=True, kw_only=True):
    """The short form as a whole (product.md, objects)."""

    os: str = "linux"
    cpu: CpuForm = CpuForm()
    memory: str
    firmware: str = "bios"
    tpm: bool = False
    disks: tuple[DiskForm, ...] = ()
    interfaces: tuple[InterfaceForm, ...] = ()


def domain_xml(form: DomainForm, name: str, uid: str = "", *, path: str = "spec.domain") -> str:
    """Return libvirt's XML of a short form; ManifestError names the field that cannot be expanded."""
    _check(form, path)
    domain = Element("domain", type="kvm")
    _text(domain, "name", name)
    if uid:
        _text(domain, "uuid", uid)
    _operating_system_id(domain, form)
    _text(domain, "memory", str(_memory_kib(form, path)), unit="KiB")
    _text(domain, "vcpu", str(form.cpu.cores))
    _boot(domain, form)
    _features(domain, form)
    _cpu(domain, form.cpu)
    SubElement(domain, "clock", offset="localtime" if form.os == "windows" else "utc")
    for event, action in (("on_poweroff", "destroy"), ("on_reboot", "restart"), ("on_crash", "destroy")):
        _text(domain, event, action)
    devices = SubElement(domain, "devices")
    _disks(devices, form, step(path, "disks"))
    for place, interface in enumerate(form.interfaces):
        _interface(devices, interface, form.os, step(step(path, "interfaces"), place))
    _standard_devices(devices, form)
    ET.indent(domain)
    return ET.tostring(domain, encoding="unicode") + "\n"


def _check(form: DomainForm, path: str) -> None:
    for value, words, name in ((form.os, _OPERATING_SYSTEMS, "os"), (form.firmware, _FIRMWARE, "firmware")):
        if value not in words:
            raise ManifestError(step(path, name), not_one_of(value, words))
    if not 1 <= form.cpu.cores <= CORES_MAX:
        raise ManifestError(f"{path}.cpu.cores", f"{form.cpu.cores} is out of range; it must be from 1 to {CORES_MAX}")
    if not form.cpu.model.strip():
        raise ManifestError(f"{path}.cpu.model", "it is empty; write host-model, host-passthrough or a model's name")
    if len(form.disks) > DISKS_MAX:
        raise ManifestError(f"{path}.disks", f"there are {len(form.disks)} disks; more than {DISKS_MAX} need domainXML")


def _memory_kib(form: DomainForm, path: str) -> int:
    try:
        count = parse_bytes(form.memory)
    except ValueError as error:
        raise ManifestError(f"{path}.memory", str(error)) from None
    if count < MEMORY_BYTES_MIN:
        raise ManifestError(f"{path}.memory", f"{show(form.memory)} is less than 1Mi; write it like 4Gi")
    return -(-count // 1024)


def _text(parent: Element, tag: str, text: str, **attributes: str) -> None:
    SubElement(parent, tag, attributes).text = text


def _operating_system_id(domain: Element, form: DomainForm) -> None:
    info = SubElement(SubElement(domain, "metadata"), "libosinfo:libosinfo", {"xmlns:libosinfo": _LIBOSINFO})
    SubElement(info, "libosinfo:os", id=_OS_ID[form.os])


def _boot(domain: Element, form: DomainForm) -> None:
    system = SubElement(domain, "os", {} if form.firmware == "bios" else {"firmware": "efi"})
    _text(system, "type", "hvm", arch="x86_64", machine="q35")
    if form.firmware != "bios":
        secure = "yes" if form.firmware == "efi-secure" else "no"
        firmware = SubElement(system, "firmware")
        SubElement(firmware, "feature", enabled=secure, name="enrolled-keys")
        SubElement(firmware, "feature", enabled=secure, name="secure-boot")
    SubElement(system, "boot", dev="hd")
    if any(disk.cdrom is not None for disk in form.disks):
        SubElement(system, "boot", dev="cdrom")


def _features(domain: Element, form: DomainForm) -> None:
    features = SubElement(domain, "features")
    SubElement(features, "acpi")
    SubElement(features, "apic")
    if form.os == "windows":
        hyperv = SubElement(features, "hyperv", mode="custom")
        SubElement(hyperv, "relaxed", state="on")
        SubElement(hyperv, "vapic", state="on")
        SubElement(hyperv, "spinlocks", state="on", retries="8191")
    if form.firmware == "efi-secure":
        SubElement(features, "smm", state="on")


def _cpu(domain: Element, form: CpuForm) -> None:
    if form.model in ("host-model", "host-passthrough"):
        cpu = SubElement(domain, "cpu", mode=form.model)
    else:
        cpu = SubElement(domain, "cpu", mode="custom", match="exact")
        _text(cpu, "model", form.model, fallback="forbid")
    SubElement(cpu, "topology", sockets="1", cores=str(form.cores), threads="1")


def _disks(devices: Element, form: DomainForm, path: str) -> None:
    used: dict[str, int] = {}
    for place, disk in enumerate(form.disks):
        here = step(path, place)
        chosen = [name for name in ("source", "pool", "cdrom") if getattr(disk, name) is not None]
        if len(chosen) != 1:
            told = " and ".join(chosen) or "none"
            raise ManifestError(here, f"a disk has exactly one of source, pool and cdrom; here are {told}")
        if (disk.volume is None) == (chosen == ["pool"]):
            raise ManifestError(here, "pool and volume go together")
        bus = _bus(disk, form.os, here)
        letter = chr(ord("a") + used.setdefault(_BUSES[bus], 0))
        used[_BUSES[bus]] += 1
        _disk(devices, disk, (bus, _BUSES[bus] + letter), here)


def _bus(disk: DiskForm, system: str, path: str) -> str:
    usual = "sata" if disk.cdrom is not None or system == "windows" else "virtio"
    bus = disk.bus or usual
    if bus not in _BUSES:
        raise ManifestError(step(path, "bus"), not_one_of(bus, tuple(_BUSES)))
    if bus == "virtio" and disk.cdrom is not None:
        raise ManifestError(step(path, "bus"), "a cdrom cannot be on virtio; leave bus out or write sata or scsi")
    return bus


def _disk(devices: Element, disk: DiskForm, target: tuple[str, str], path: str) -> None:
    bus, device = target
    kind = "cdrom" if disk.cdrom is not None else "disk"
    if disk.pool is not None:
        element = SubElement(devices, "disk", type="volume", device=kind)
        SubElement(element, "driver", name="qemu", type=_format(disk, disk.volume or "", path))
        SubElement(
            element,
            "source",
            pool=_named(disk.pool, step(path, "pool")),
            volume=_named(disk.volume or "", step(path, "volume")),
        )
    else:
        field = "cdrom" if kind == "cdrom" else "source"
        source = disk.cdrom if disk.cdrom is not None else disk.source or ""
        element = _sourced(devices, disk, kind, source, step(path, field))
    SubElement(element, "target", dev=device, bus=bus)
    if kind == "cdrom":
        SubElement(element, "readonly")


def _sourced(devices: Element, disk: DiskForm, kind: str, source: str, path: str) -> Element:
    """Return the disk element of an absolute path or an nbd:// URI."""
    here = path.rpartition(".")[0]
    if source.startswith("/"):
        block = source.startswith("/dev/")
        element = SubElement(devices, "disk", type="block" if block else "file", device=kind)
        SubElement(element, "driver", name="qemu", type=_format(disk, source, here))
        SubElement(element, "source", {"dev" if block else "file": source})
        return element
    uri, port = _nbd(source, path)
    element = SubElement(devices, "disk", type="network", device=kind)
    SubElement(element, "driver", name="qemu", type=_format(disk, "", here))
    network = SubElement(element, "source", protocol="nbd", name=unquote(uri.path[1:]))
    SubElement(network, "host", name=uri.hostname or "", port=str(port))
    return element


def _nbd(source: str, path: str) -> tuple[SplitResult, int]:
    try:
        uri = urlsplit(source)
        port = uri.port or NBD_PORT
    except ValueError:
        raise ManifestError(path, f"{show(source)} is no URI; write nbd://host:port/export") from None
    if uri.scheme != "nbd" or not uri.hostname:
        problem = f"{show(source)} is neither an absolute path nor nbd://host:port/export; other disks need domainXML"
        raise ManifestError(path, problem)
    return uri, port


def _format(disk: DiskForm, source: str, path: str) -> str:
    chosen = disk.format or ("qcow2" if source.endswith(".qcow2") else "raw")
    if chosen not in _FORMATS:
        raise ManifestError(step(path, "format"), not_one_of(chosen, _FORMATS))
    return chosen


def _interface(devices: Element, interface: InterfaceForm, system: str, path: str) -> None:
    chosen = [name for name in ("bridge", "network") if getattr(interface, name) is not None]
    if len(chosen) != 1:
        told = " and ".join(chosen) or "none"
        raise ManifestError(path, f"an interface has exactly one of bridge and network; here are {told}")
    name = chosen[0]
    element = SubElement(devices, "interface", type=name)
    if interface.mac is not None:
        if not _MAC.fullmatch(interface.mac):
            problem = f"{show(interface.mac)} is no MAC address of a single card; write it like 52:54:00:12:34:56"
            raise ManifestError(step(path, "mac"), problem)
        SubElement(element, "mac", address=interface.mac.lower())
    SubElement(element, "source", {name: _named(getattr(interface, name), step(path, name))})
    if interface.vlan is not None:
        if not 1 <= interface.vlan <= VLAN_MAX:
            raise ManifestError(
                step(path, "vlan"), f"{interface.vlan} is out of range; it must be from 1 to {VLAN_MAX}"
            )
        SubElement(SubElement(element, "vlan"), "tag", id=str(interface.vlan))
    SubElement(element, "model", type=interface.model or ("e1000e" if system == "windows" else "virtio"))


def _standard_devices(devices: Element, form: DomainForm) -> None:
    SubElement(SubElement(devices, "serial", type="pty"), "target", port="0")
    SubElement(SubElement(devices, "console", type="pty"), "target", type="serial", port="0")
    SubElement(SubElement(devices, "channel", type="unix"), "target", type="virtio", name="org.qemu.guest_agent.0")
    SubElement(devices, "input", type="tablet", bus="usb")
    SubElement(devices, "graphics", type="vnc", autoport="yes", listen="127.0.0.1")
    SubElement(SubElement(devices, "video"), "model", type="vga" if form.os == "windows" else "virtio")
    SubElement(SubElement(devices, "rng", model="virtio"), "backend", model="random").text = "/dev/urandom"
    if form.tpm:
        SubElement(SubElement(devices, "tpm", model="tpm-crb"), "backend", type="emulator", version="2.0")


def _named(value: str, path: str) -> str:
    if not value.strip():
        raise ManifestError(path, "it is empty")
    return value
