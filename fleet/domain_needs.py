"""What a domain needs of the host it starts on, read from its XML. Pure; knows no host.

Only needs that can be told for certain are read: what is not understood needs nothing, and libvirt says the rest.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET

from fleet.model import Needs
from fleet.units import libvirt_bytes

KIB = 1024


def needs_of(root: ET.Element, memory_bytes: int) -> Needs:
    """Return what a domain needs of its host; what is not understood needs nothing, and libvirt says the rest.

    memory_bytes: all that the domain is given.
    """
    page_kib = _huge_page_kib(root)
    kind = root.find("os/type")
    machine = kind.get("machine", "") if kind is not None else ""
    return Needs(
        domain_type=root.get("type", ""),
        arch=kind.get("arch", "") if kind is not None else "",
        machine=machine,
        firmware=_firmware(root),
        cpu_model=_cpu_model(root),
        interfaces=_interfaces(root),
        networks=_attributes(root, "devices/interface[@type='network']/source", "network"),
        pools=_attributes(root, "devices/disk[@type='volume']/source", "pool"),
        secrets=_attributes(root, ".//secret", "uuid"),
        huge_page_kib=page_kib or 0,
        huge_bytes=0 if page_kib is None else memory_bytes,
        devices=_devices(root),
    )


def _attributes(root: ET.Element, path: str, name: str) -> tuple[str, ...]:
    return tuple(sorted({value for element in root.findall(path) if (value := element.get(name, ""))}))


def _firmware(root: ET.Element) -> str:
    system = root.find("os")
    return system.get("firmware", "") if system is not None else ""


def _cpu_model(root: ET.Element) -> str:
    """Return the model that the host must be able to give; none where libvirt may take a lesser one."""
    model = root.find("cpu[@mode='custom']/model")
    if model is None or model.get("fallback", "allow") != "forbid":
        return ""
    return (model.text or "").strip()


def _huge_page_kib(root: ET.Element) -> int | None:
    """Return the size of its pages, 0 for the host's default, None without any or where guest NUMA nodes differ."""
    element = root.find("memoryBacking/hugepages")
    if element is None:
        return None
    pages = element.findall("page")
    if not pages:
        return 0
    size = libvirt_bytes(pages[0].get("size", ""), pages[0].get("unit", "KiB"))
    return None if size is None or len(pages) > 1 or pages[0].get("nodeset") else size // KIB


def _devices(root: ET.Element) -> tuple[str, ...]:
    """Return devices of the host that are handed to the guest, each as often as it stands there."""
    sources = [(e.get("type", ""), e.find("source")) for e in root.findall("devices/hostdev[@mode='subsystem']")]
    sources += [("pci", e.find("source")) for e in root.findall("devices/interface[@type='hostdev']")]
    return tuple(sorted(name for kind, source in sources if source is not None and (name := _device(kind, source))))


def _device(kind: str, source: ET.Element) -> str:
    vendor, product, address = source.find("vendor"), source.find("product"), source.find("address")
    if kind == "usb" and vendor is not None and product is not None:
        ids = [_hex(element, "id", 4) for element in (vendor, product)]
        return f"usb {ids[0]}:{ids[1]}" if all(ids) else ""
    if address is None:
        return ""
    if kind == "mdev":
        uuid = address.get("uuid", "").lower()
        return f"mdev {uuid}" if uuid else ""
    parts = [_hex(address, *part) for part in (("domain", 4), ("bus", 2), ("slot", 2), ("function", 1))]
    return f"pci {parts[0]}:{parts[1]}:{parts[2]}.{parts[3]}" if kind == "pci" and all(parts) else ""


def _hex(element: ET.Element, name: str, digits: int) -> str:
    """Return a number of libvirt's XML (hexadecimal with 0x, else decimal) in hexadecimal; empty if it is none."""
    text = element.get(name, "0" if name in ("domain", "function") else "")
    try:
        return format(int(text, 16 if text.startswith("0x") else 10), f"0{digits}x")
    except ValueError:
        return ""


def _interfaces(root: ET.Element) -> tuple[str, ...]:
    """Return the bridges of the host; one that another switch makes (virtualport) may be no device of the kernel."""
    plain = [i for i in root.findall("devices/interface[@type='bridge']") if i.find("virtualport") is None]
    named = {source.get("bridge", "") for i in plain if (source := i.find("source")) is not None}
    return tuple(sorted(named - {""}))
