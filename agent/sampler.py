"""Reads what the host's kernel tells of load, pressure and links: a fraction of a millisecond, once a second.

Knows psutil, /proc/pressure and /sys/class/net; what the numbers mean is agent.own_checks' word.
"""

from __future__ import annotations

import os
from pathlib import Path

import psutil

from agent.own_checks import Measured
from fleet.model import WAITED_FOR, NodeLoad

PRESSURE = Path("/proc/pressure")
NET = Path("/sys/class/net")
UP = 1  # IFF_UP (netdevice(7))


class Sampler:
    """The host's load now and over the last minute. Neither call waits for anything."""

    def __init__(self, pressure: Path = PRESSURE, net: Path = NET) -> None:
        self._pressure = pressure
        self._net = net
        self._had_carrier: set[str] = set()
        psutil.cpu_percent()  # what comes first is measured from here

    def load(self) -> NodeLoad:
        """Return what is told with each beat; cpu_percent is since the last call."""
        ten = self._waits("avg10")
        return NodeLoad(
            cpu_percent=round(psutil.cpu_percent()),
            memory_available_bytes=psutil.virtual_memory().available,
            waits_percent=tuple(round(ten.get(f"{resource} some", 0.0)) for resource in WAITED_FOR),
        )

    def measured(self, state_dir: Path, storage_ms: dict[str, float]) -> Measured:
        """Return what the checks of this host go by. Looks at a file system: not for the loop's thread."""
        return Measured(self._waits("avg60"), self._carriers(), storage_ms, _free_percent(state_dir))

    def _waits(self, average: str) -> dict[str, float]:
        """Return percents by "resource line"; empty where the kernel was built or started without."""
        found: dict[str, float] = {}
        for resource in WAITED_FOR:
            try:
                text = (self._pressure / resource).read_text(encoding="ascii")
            except OSError:
                continue
            found |= {f"{resource} {line}": percent for line, percent in read_pressure(text, average).items()}
        return found

    def _carriers(self) -> dict[str, bool]:
        """Return the links that are set up and have had a carrier: a socket without a cable is nobody's concern."""
        found = {}
        for name in _names(self._net):
            device = self._net / name
            if not (device / "device").exists() and not (device / "bonding").exists():
                continue
            if not int(_line(device / "flags") or "0", 16) & UP:
                continue
            carrier = _line(device / "carrier") == "1"
            if carrier:
                self._had_carrier.add(name)
            if name in self._had_carrier:
                found[name] = carrier
        return found


def read_pressure(text: str, average: str) -> dict[str, float]:
    """Parse a PSI file (kernel documentation, accounting/psi): `some avg10=0.00 avg60=1.25 …` → {"some": 1.25}."""
    found = {}
    for row in text.splitlines():
        line, *fields = row.split()
        values = dict(field.partition("=")[::2] for field in fields)
        try:
            found[line] = float(values[average])
        except (KeyError, ValueError):
            continue
    return found


def _free_percent(directory: Path) -> float | None:
    try:
        size = os.statvfs(directory)
    except OSError:
        return None
    return 100.0 * size.f_bavail / size.f_blocks if size.f_blocks else None


def _names(directory: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in directory.iterdir())
    except OSError:
        return []


def _line(path: Path) -> str:
    """Return a file's line; empty where the kernel refuses it, as it does for the carrier of what is down."""
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
