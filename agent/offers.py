"""Reads libvirt's capabilities: what a host has for domains (fleet.model.HostOffers). Pure.

What a host does not tell, or tells too much of, stays None: placement then says nothing about it, rather than
keeping a VM down for a list that was cut off.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable

from msgspec import structs

from fleet.model import HostOffers

ITEMS_MAX = 512  # of one kind
GUEST_DEVICES = ("vnet", "tap", "macvtap", "macvlan")  # they come and go with guests, and nobody asks for them
_BEST_FIRST = ("kvm", "qemu")


def bounded(items: Iterable[str]) -> tuple[str, ...] | None:
    """Return them in order, or None where there are too many to be told."""
    found = tuple(sorted({*items}))
    return found if len(found) <= ITEMS_MAX else None


def read_capabilities(capabilities: ET.Element) -> HostOffers:
    """Return domain types, best first, and machines of the host's own architecture."""
    arch = capabilities.findtext("host/cpu/arch") or ""
    own = [guest.find("arch") for guest in capabilities.findall("guest")]
    told = [element for element in own if element is not None and element.get("name") == arch]
    types = {domain.get("type", "") for element in told for domain in element.findall("domain")}
    machines = {name for element in told for machine in element.iter("machine") for name in _names(machine)}
    return HostOffers(
        arch=arch,
        domain_types=tuple(sorted(types, key=lambda kind: (kind not in _BEST_FIRST, _BEST_FIRST.index(kind), kind)))
        if types <= {*_BEST_FIRST}
        else bounded(types),
        machines=bounded(machines) if machines else None,
    )


def _names(machine: ET.Element) -> tuple[str, ...]:
    name, canonical = (machine.text or "").strip(), machine.get("canonical", "")
    return tuple(filter(None, (name, canonical)))


def read_domain_capabilities(told: ET.Element, known: HostOffers) -> HostOffers:
    """Return what was known with firmwares and CPU models."""
    firmwares = [value.text or "" for value in told.findall("os/enum[@name='firmware']/value")]
    models = told.findall("cpu/mode[@name='custom']/model")
    usable = [model.text or "" for model in models if model.get("usable") == "yes"]
    return structs.replace(
        known,
        firmwares=bounded([*firmwares, "bios"]) if told.find("os/enum[@name='firmware']") is not None else None,
        cpu_models=bounded(usable) if models else None,
    )


def read_host_cpu(told: ET.Element) -> ET.Element | None:
    """Return the CPU that libvirt would give a guest in the mode host-model, as domain capabilities describe it."""
    model = told.find("cpu/mode[@name='host-model'][@supported='yes']")
    if model is None or model.find("model") is None:
        return None
    cpu = ET.Element("cpu")
    cpu.extend(list(model))
    return cpu


def read_features(cpu: ET.Element) -> tuple[str, ...] | None:
    """Return the features that a CPU has when libvirt has spelt out those of its model."""
    return bounded(f.get("name", "") for f in cpu.findall("feature") if f.get("policy", "require") == "require")


def host_devices(names: Iterable[str]) -> tuple[str, ...] | None:
    """Return the host's network devices without those of guests."""
    return bounded(name for name in names if not name.startswith(GUEST_DEVICES))
