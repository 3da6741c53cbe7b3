"""What runs on this node: every look at it, folded into one picture. Pure.

Knows when each thing was seen, so that an old look never contradicts a newer one, and which
QEMU processes are proven gone. Knows nothing of orders or promises (agent.memory) and decides
nothing.
"""

from __future__ import annotations

from msgspec import Struct, structs

from agent.keeper_types import DomainsListed, VmObservation
from fleet.model import Definition, EndReason, QemuState

GONE_QEMUS_MAX = 4000


class Seen(Struct, frozen=True):
    """The newest look at one VM, and when it began."""

    vm: VmObservation
    asked_s: float


class Ended(Struct, frozen=True):
    """A QEMU process that is proven gone."""

    end: EndReason
    reason: str


class Inventory:
    """Every VM seen on the node. All times are the keeper's monotonic seconds."""

    def __init__(self) -> None:
        self.seen: dict[str, Seen] = {}
        self.definitions: dict[str, Definition] = {}
        self.complete = False
        self.complete_asked_s = float("-inf")  # when the newest complete list was asked for
        self.listed_asked_s = float("-inf")  # the same for any list
        self._gone: dict[str, Ended] = {}
        self._touched_s: dict[str, float] = {}

    def touch(self, uuid: str, now: float) -> None:
        """Note that a deed to this VM began or ended: looks asked for earlier cannot say it is gone."""
        self._touched_s[uuid] = now

    def take_list(self, listed: DomainsListed) -> set[str]:
        """Fold a list in; return the uuids of which it shows something new."""
        if listed.asked_s < self.listed_asked_s:
            return set()
        self.listed_asked_s = listed.asked_s
        self.complete = listed.complete
        if listed.complete:
            self.complete_asked_s = listed.asked_s
        changed = {vm.uuid for vm in listed.vms if self.take(vm, listed.asked_s)}
        for uuid in sorted(self.seen.keys() - {vm.uuid for vm in listed.vms}):
            if self._take_absence(uuid, listed):
                changed.add(uuid)
        return changed

    def _take_absence(self, uuid: str, listed: DomainsListed) -> bool:
        old = self.seen[uuid].vm
        if listed.complete:
            absent = VmObservation(uuid=uuid, name=old.name, state=QemuState.GONE, end=old.end, reason=old.reason)
            return self.take(absent, listed.asked_s)
        if old.state is QemuState.GONE:
            return False
        return self.take(structs.replace(old, state=QemuState.UNKNOWN), listed.asked_s)

    def take(self, vm: VmObservation, asked_s: float) -> bool:
        """Fold one look in; False if it is older than what is known or shows nothing new."""
        old = self.seen.get(vm.uuid)
        if old is not None and asked_s < old.asked_s:
            return False
        ended = self._gone.get(vm.qemu) if vm.qemu else None
        if ended is not None:  # libvirt has not noticed yet
            end = ended.end or vm.end
            vm = structs.replace(vm, state=QemuState.GONE, qemu="", end=end, reason=ended.reason)
        elif vm.state is QemuState.GONE:
            if asked_s < self._touched_s.get(vm.uuid, float("-inf")):
                return False
            if old is not None and old.vm.state is QemuState.GONE and not vm.end:
                vm = structs.replace(vm, end=old.vm.end, reason=vm.reason or old.vm.reason)
        self.seen[vm.uuid] = Seen(vm, asked_s)
        return old is None or old.vm != vm

    def take_definition(self, definition: Definition) -> None:
        """Keep the newest definition of a VM."""
        self.definitions[definition.uuid] = definition

    def take_gone(self, uuid: str, qemu: str, ended: Ended, now: float) -> bool:
        """Fold in that a QEMU process is gone; False if the VM has another one by now."""
        self._gone[qemu] = ended
        for oldest in list(self._gone)[: len(self._gone) - GONE_QEMUS_MAX]:
            del self._gone[oldest]
        old = self.seen.get(uuid)
        if old is None or (old.vm.qemu != qemu and old.vm.state is not QemuState.GONE):
            return False  # another one lives, or one that cannot be told yet: a look will say
        vm = structs.replace(old.vm, state=QemuState.GONE, qemu="", end=ended.end, reason=ended.reason, busy="")
        self.seen[uuid] = Seen(vm, now)
        return True

    def state(self, uuid: str) -> QemuState:
        """Return what is known of the VM's QEMU; never listed is GONE only after a complete list."""
        seen = self.seen.get(uuid)
        if seen is not None:
            return seen.vm.state
        return QemuState.GONE if self.complete else QemuState.UNKNOWN

    def is_gone(self, uuid: str, since_s: float = float("-inf")) -> bool:
        """Say whether no QEMU of the VM is here, by a look asked for after since_s and after the last deed."""
        least = max(since_s, self._touched_s.get(uuid, float("-inf")))
        seen = self.seen.get(uuid)
        if seen is None:
            return self.complete and self.complete_asked_s >= least
        return seen.vm.state is QemuState.GONE and seen.asked_s >= least

    def forget(self, uuid: str) -> None:
        """Drop a VM that is neither here nor promised."""
        self.seen.pop(uuid, None)
        self.definitions.pop(uuid, None)
        self._touched_s.pop(uuid, None)
