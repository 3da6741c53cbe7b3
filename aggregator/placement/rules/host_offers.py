"""CPUCompatible, MachineType, HypervisorCapability, NetworkReachable, StorageReachable: the host must have what the
domain needs.

Each is silent about what a node's agent has not told, and where a domain needs nothing of the kind. For a live
migration CPUCompatible compares with the CPU the guest runs on, for a start with the one its domain asks for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from aggregator.placement.columns import BoolArray
from aggregator.placement.compiled import CompiledVm
from aggregator.placement.needs import NO_NEEDS
from aggregator.placement.table import Table
from fleet.model import HostOffers, Needs

FEATURES_IN_WORDS_MAX = 5


class OffersRule:
    """What is common: nodes that offer the same are asked about once."""

    name = ""

    def mask(self, vm: CompiledVm, table: Table) -> BoolArray:
        needs = vm.rules.demands.needs
        offers = table.columns.offer_sets
        if needs == NO_NEEDS or len(offers) == 1:
            return table.columns.everywhere
        enough = [each is None or not any(True for _ in self.missing(needs, each)) for each in offers]
        return np.array(enough, dtype=np.bool_)[table.columns.offer_ids]

    def why(self, vm: CompiledVm, table: Table, slot: int) -> str:
        offers = table.columns.offer_sets[int(table.columns.offer_ids[slot])]
        return "; ".join(self.missing(vm.rules.demands.needs, offers)) if offers is not None else ""

    def missing(self, needs: Needs, offers: HostOffers) -> Iterator[str]:
        """Yield in words what the host lacks."""
        raise NotImplementedError


class CPUCompatible(OffersRule):
    name = "CPUCompatible"

    def missing(self, needs: Needs, offers: HostOffers) -> Iterator[str]:
        if not offers.domain_types or offers.domain_types[0] != needs.domain_type:
            return
        if needs.guest_cpu and offers.cpu_features is not None:
            lacking = [feature for feature in needs.guest_cpu if feature not in offers.cpu_features]
            more = f" and {len(lacking) - FEATURES_IN_WORDS_MAX} more" if len(lacking) > FEATURES_IN_WORDS_MAX else ""
            if lacking:
                words = ", ".join(lacking[:FEATURES_IN_WORDS_MAX]) + more
                yield f"its processor lacks what the guest runs on: {words}"
        elif not needs.guest_cpu:
            yield from _absent("its processor cannot be a", (needs.cpu_model,), offers.cpu_models)


class MachineType(OffersRule):
    name = "MachineType"

    def missing(self, needs: Needs, offers: HostOffers) -> Iterator[str]:
        if needs.arch in ("", offers.arch):
            yield from _absent("its QEMU does not know the machine type", (needs.machine,), offers.machines)


class HypervisorCapability(OffersRule):
    name = "HypervisorCapability"

    def missing(self, needs: Needs, offers: HostOffers) -> Iterator[str]:
        yield from _absent("it has no hypervisor of the type", (needs.domain_type,), offers.domain_types)
        yield from _absent("it has no firmware of the kind", (needs.firmware,), offers.firmwares)


class NetworkReachable(OffersRule):
    name = "NetworkReachable"

    def missing(self, needs: Needs, offers: HostOffers) -> Iterator[str]:
        yield from _absent("it has no bridge", needs.interfaces, offers.interfaces)
        yield from _absent("libvirt there has no active network", needs.networks, offers.networks)


class StorageReachable(OffersRule):
    name = "StorageReachable"

    def missing(self, needs: Needs, offers: HostOffers) -> Iterator[str]:
        yield from _absent("it has not mounted", needs.mounts, offers.mounts)
        yield from _absent("libvirt there has no active storage pool", needs.pools, offers.pools)
        yield from _absent("libvirt there has no secret", needs.secrets, offers.secrets)


def _absent(words: str, needed: Iterable[str], offered: tuple[str, ...] | None) -> Iterator[str]:
    if offered is not None:
        yield from (f"{words} {each}" for each in needed if each and each not in offered)
