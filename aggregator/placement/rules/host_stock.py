"""HugePagesFit, HostDevices: what a host has a number of must be there and not be held by other VMs.

Silent about nodes whose agents have not told. Of devices exactly the same counts: address and make of a PCI device,
make of a USB device, uuid of a mediated one.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from aggregator.placement.columns import BoolArray
from aggregator.placement.compiled import CompiledVm
from aggregator.placement.held import NOTHING, Holding
from aggregator.placement.rules.base import ALL, Slots, pick
from aggregator.placement.table import Table
from fleet.model import HostOffers, Needs, is_device
from fleet.units import format_bytes

KIB = 1024


class StockRule:
    """What is common: nodes that have the same, and of which nothing is held, are asked about once."""

    name = ""

    def mask(self, vm: CompiledVm, table: Table, at: Slots = ALL) -> BoolArray:
        needs = vm.rules.demands.needs
        if not self.concerns(needs):
            return table.columns.everywhere
        untouched = [not any(True for _ in self._lacks(needs, each, NOTHING)) for each in table.columns.offer_sets]
        fits = np.array(untouched, dtype=np.bool_)[pick(table.columns.offer_ids, at)]
        wanted = (
            {slot: slot for slot in table.held.slots()}
            if at is None
            else dict(zip(at.tolist(), range(len(at)), strict=True))
        )
        for slot, place in wanted.items():
            if holding := table.held.at(slot):
                fits[place] = not any(True for _ in self._lacks(needs, self._offers(table, slot), holding))
        return fits

    def why(self, vm: CompiledVm, table: Table, slot: int) -> str:
        return "; ".join(self._lacks(vm.rules.demands.needs, self._offers(table, slot), table.held.at(slot)))

    def _offers(self, table: Table, slot: int) -> HostOffers | None:
        return table.columns.offer_sets[int(table.columns.offer_ids[slot])]

    def _lacks(self, needs: Needs, offers: HostOffers | None, held: Holding) -> Iterator[str]:
        if offers is not None:
            yield from self.missing(needs, offers, held)

    def concerns(self, needs: Needs) -> bool:
        """Return whether the domain needs anything of the kind."""
        raise NotImplementedError

    def missing(self, needs: Needs, offers: HostOffers, held: Holding) -> Iterator[str]:
        """Yield in words what the host lacks, or has given away."""
        raise NotImplementedError


class HugePagesFit(StockRule):
    name = "HugePagesFit"

    def concerns(self, needs: Needs) -> bool:
        return needs.huge_bytes > 0

    def missing(self, needs: Needs, offers: HostOffers, held: Holding) -> Iterator[str]:
        if offers.huge_pages is None:
            return
        default = offers.huge_pages[0][0] if offers.huge_pages else 0
        kib = needs.huge_page_kib or default
        pool = sum(size * count * KIB for size, count in offers.huge_pages if size == kib)
        free = max(0, pool - held.get(kib, 0) - (held.get(0, 0) if kib == default else 0))
        if free < needs.huge_bytes:
            of = f"huge pages of {format_bytes(kib * KIB)}" if kib else "huge pages"
            yield f"{format_bytes(free)} free in {of}, {format_bytes(needs.huge_bytes)} needed"


class HostDevices(StockRule):
    name = "HostDevices"

    def concerns(self, needs: Needs) -> bool:
        return bool(needs.devices)

    def missing(self, needs: Needs, offers: HostOffers, held: Holding) -> Iterator[str]:
        if offers.devices is None:
            return
        for device in dict.fromkeys(needs.devices):
            there = sum(is_device(device, each) for each in offers.devices)
            taken = sum(count for each, count in held.items() if isinstance(each, str) and is_same(device, each))
            if not there:
                yield f"it has no {device}"
            elif there - taken < needs.devices.count(device):
                yield f"another VM has its {device}"


def is_same(one: str, other: str) -> bool:
    """Return whether two names, either of which may be a PCI address alone, mean one device of a host."""
    return is_device(one, other) or is_device(other, one)
