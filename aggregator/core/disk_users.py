"""Which disks a VM writes, and which lie under its overlays: what one writes, no other writes or reads through (S15).

An overlay keeps only what differs from the image under it; whoever writes that image destroys the overlay, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct, field

from aggregator.core.state import VmRecord
from fleet.model import Disk


class DiskUsers(Struct):
    """Who uses which disk, by identity -> name of a VM."""

    writers: dict[str, str] = field(default_factory=dict)
    readers: dict[str, str] = field(default_factory=dict)

    def add(self, vm: VmRecord) -> None:
        """Note one that may write its disks."""
        self.writers |= {disk.identity: vm.name for disk in written_by(vm)}
        self.readers |= {disk.identity: vm.name for disk in read_through_by(vm)}

    def clashes(self, vm: VmRecord) -> Iterator[tuple[Disk, str]]:
        """Yield each disk that keeps a VM, which is none of the users, from being one, and why in words."""
        for disk in written_by(vm):
            if disk.identity in self.writers:
                yield disk, f"VM {self.writers[disk.identity]} writes it"
            elif disk.identity in self.readers:
                yield disk, f"a disk of VM {self.readers[disk.identity]} is an overlay of it"
        for disk in read_through_by(vm):
            if disk.identity in self.writers:
                yield disk, f"VM {self.writers[disk.identity]} writes it"


def users_of(vms: Iterable[VmRecord]) -> DiskUsers:
    """Return who uses which disk."""
    users = DiskUsers()
    for vm in vms:
        users.add(vm)
    return users


def written_by(vm: VmRecord) -> list[Disk]:
    """Return the disks that must have no other user."""
    return [disk for disk in _all(vm) if disk.writable and not disk.shareable]


def read_through_by(vm: VmRecord) -> list[Disk]:
    """Return what lies under its overlays, but for what it writes itself."""
    own = {disk.identity for disk in written_by(vm)}
    return [disk for disk in _all(vm) if disk.is_backing and disk.identity not in own]


def _all(vm: VmRecord) -> tuple[Disk, ...]:
    return vm.disks + (vm.definition.disks if vm.definition is not None else ())
