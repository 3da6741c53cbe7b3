"""What the kernel has to hand to guests: huge pages, and the PCI, USB and mediated devices of this host.

Reads a directory in the shape of /sys; knows no VM. Devices are named as fleet.model.Needs has them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from msgspec import structs

from agent.offers import ITEMS_MAX
from fleet.model import HostOffers

SYSFS = Path("/sys")
BRIDGE_CLASS, STORAGE_CLASS = "06", "01"  # PCI base classes (PCI code and ID assignment specification, appendix)


def with_stock(offers: HostOffers, node: str, sysfs: Path = SYSFS) -> HostOffers:
    """Return what a host offers with its huge pages and devices."""
    return structs.replace(offers, huge_pages=read_huge_pages(sysfs), devices=read_devices(node, sysfs))


def read_huge_pages(sysfs: Path, meminfo: Path = Path("/proc/meminfo")) -> tuple[tuple[int, int], ...] | None:
    """Return (KiB of a page, pages in the pool) for each size, the default one first; None where nothing is told."""
    try:
        default = next((line.split()[1] for line in _lines(meminfo) if line.startswith("Hugepagesize:")), "")
        found = [
            (int(pool.name.removeprefix("hugepages-").removesuffix("kB")), int(_text(pool / "nr_hugepages")))
            for pool in (sysfs / "kernel/mm/hugepages").iterdir()
        ]
    except (OSError, ValueError):
        return None
    return tuple(sorted(found, key=lambda pool: (str(pool[0]) != default, pool[0])))


def read_devices(node: str, sysfs: Path = SYSFS) -> tuple[str, ...] | None:
    """Return all devices that could be handed to a guest; None where they cannot be read or are too many."""
    try:
        found = sorted([*_pci(node, sysfs / "bus/pci/devices"), *_usb(sysfs), *_mediated(sysfs)])
    except OSError:
        return None
    return tuple(found) if len(found) <= ITEMS_MAX else None


def identified(needed: tuple[str, ...], devices: tuple[str, ...] | None) -> tuple[str, ...]:
    """Return needed devices, PCI ones named with what they are on this host and not by their address alone.

    The same address on another host may be another device.
    """
    return tuple(sorted(next((d for d in devices or () if d.startswith(need + " ")), need) for need in needed))


def _pci(node: str, directory: Path) -> Iterator[str]:
    for device in _entries(directory):
        vendor, product, kind = (_text(device / name).removeprefix("0x") for name in ("vendor", "device", "class"))
        if kind.startswith(BRIDGE_CLASS):
            continue
        # What a drive holds is on that drive: one of the same make elsewhere is another one.
        here = f" at {node}" if kind.startswith(STORAGE_CLASS) else ""
        yield f"pci {device.name} {vendor}:{product}{here}"


def _usb(sysfs: Path) -> Iterator[str]:
    for device in _entries(sysfs / "bus/usb/devices"):
        if (device / "idVendor").exists() and (device / "idProduct").exists():
            yield f"usb {_text(device / 'idVendor')}:{_text(device / 'idProduct')}"


def _mediated(sysfs: Path) -> Iterator[str]:
    for device in _entries(sysfs / "bus/mdev/devices"):
        yield f"mdev {device.name.lower()}"


def _entries(directory: Path) -> list[Path]:
    return sorted(directory.iterdir()) if directory.is_dir() else []


def _text(path: Path) -> str:
    return path.read_text(encoding="ascii", errors="replace").strip()


def _lines(path: Path) -> list[str]:
    return _text(path).splitlines()
