"""What a domain needs of the host it starts on, read from its XML. Pure; knows no host.

Only needs that can be told for certain are read: what is not understood needs nothing, and libvirt says the rest.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET

from fleet.model import Needs


def needs_of(root: ET.Element) -> Needs:
    """Return what a domain needs of its host; what is not understood needs nothing, and libvirt says the rest."""
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


def _interfaces(root: ET.Element) -> tuple[str, ...]:
    """Return the bridges of the host; one that another switch makes (virtualport) may be no device of the kernel."""
    plain = [i for i in root.findall("devices/interface[@type='bridge']") if i.find("virtualport") is None]
    named = {source.get("bridge", "") for i in plain if (source := i.find("source")) is not None}
    return tuple(sorted(named - {""}))
