"""What seated VMs hold of things that a host has a number of, beside CPU and memory: huge pages, single devices.

Few VMs hold any, so it is kept sparsely, by slot. Knows no rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fleet.model import Needs

Holding = Mapping[int | str, int]  # KiB of a huge page (0: the default size) -> bytes; name of a device -> how many
NOTHING: Holding = {}


class Held:
    """By slot what the VMs there hold."""

    def __init__(self) -> None:
        self._by_slot: dict[int, dict[int | str, int]] = {}

    def add(self, needs: Needs, slot: int, sign: int) -> None:
        """Count a VM that comes (1) or goes (-1)."""
        here = self._by_slot.setdefault(slot, {})
        if needs.huge_bytes:
            here[needs.huge_page_kib] = here.get(needs.huge_page_kib, 0) + sign * needs.huge_bytes
        for device in needs.devices:
            here[device] = here.get(device, 0) + sign
        if not any(here.values()):
            del self._by_slot[slot]

    def at(self, slot: int) -> Holding:
        return self._by_slot.get(slot, NOTHING)

    def slots(self) -> Iterable[int]:
        """Return the slots where anything is held."""
        return self._by_slot.keys()
