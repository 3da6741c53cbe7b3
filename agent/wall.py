"""The second wall: which QEMUs libvirt may begin on this node, as the ledger has it. Pure.

libvirt asks a hook before it begins any QEMU (agent/hooks/qemu.d/virtward); the hook looks up what
the driver wrote for these effects (agent.permits). A managed VM may begin only under a permit, so
neither `virsh start`, nor autostart, nor a migration by hand, nor a call that hung in libvirtd for
longer than anybody waits for it can run what this node did not promise. A permit stands

- for a start: from its RunBegan until its order has ended or its end must be forced (agent.work_start),
- for an incoming copy: from the order to receive it until it runs or the VM is released.

After a restart of the agent no start is permitted any more: whatever is still on its way was
called by an agent that is dead. Deadlines serve the case that nobody is left to withdraw.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from agent.memory import Memory
from agent.records import (
    AnyLedgerRecord,
    LeadershipSeen,
    LedgerLost,
    MembersTold,
    OrderBegun,
    OrderEnded,
    Promise,
    PromiseKept,
    RunBegan,
    SessionOpened,
    Standing,
)
from fleet.messages import StartVm

START_S_MAX = 60.0  # libvirt itself lets a call wait for the domain's job no longer than 30 s
INCOMING_S_MAX = 300.0  # the source may be told later, by the next life of the aggregator


class Way(StrEnum):
    """How a QEMU may begin."""

    START = "start"
    INCOMING = "incoming"


class RaiseWall(Struct, frozen=True):
    """From now on these VMs are managed, beside those that are already; nobody has a permit."""

    uuids: tuple[str, ...]


class Permit(Struct, frozen=True):
    """A QEMU of this VM may begin until then. The only permit of the VM."""

    uuid: str
    way: Way
    epoch: int
    until_s: float


class Forbid(Struct, frozen=True):
    """The VM is managed, and no QEMU of it may begin."""

    uuid: str


class LetGo(Struct, frozen=True):
    """The VM is not managed here any more: whoever starts it by hand may."""

    uuid: str


WallEffect = RaiseWall | Permit | Forbid | LetGo


class Wall:
    """What the driver was told of the wall."""

    def __init__(self) -> None:
        self._managed: set[str] = set()
        self._permits: dict[str, Permit] = {}

    def raised(self, memory: Memory, now: float, *, same_boot: bool) -> list[WallEffect]:
        """Begin with what the ledger says. same_boot: it was last written in this boot of the node."""
        self._managed = {uuid for uuid, promise in memory.promises.items() if not promise.let_go}
        effects: list[WallEffect] = [RaiseWall(tuple(sorted(self._managed)))]
        awaited = [promise for promise in memory.promises.values() if same_boot and _awaits_copy(promise)]
        return effects + [self._permitted(promise, Way.INCOMING, now + INCOMING_S_MAX) for promise in awaited]

    def after(self, memory: Memory, record: AnyLedgerRecord, now: float) -> list[WallEffect]:
        """Follow a record that was just folded into the memory."""
        uuid = _uuid_of(memory, record)
        promise = memory.promises.get(uuid)
        if promise is None or promise.let_go:
            self._permits.pop(uuid, None)
            if uuid not in self._managed:
                return []
            self._managed.remove(uuid)
            return [LetGo(uuid)]
        old = self._permits.get(uuid)
        stands = old is not None and old.epoch == promise.epoch
        if _awaits_copy(promise):
            wanted = stands and old is not None and old.way is Way.INCOMING
            return [] if wanted else [self._permitted(promise, Way.INCOMING, now + INCOMING_S_MAX)]
        starts = promise.standing is Standing.RUNS and promise.receive is None and _start_in_hand(memory, promise)
        if starts and isinstance(record, RunBegan):
            return [self._permitted(promise, Way.START, now + START_S_MAX)]
        if starts and stands:
            return []
        return self.forbidden(uuid)

    def forbidden(self, uuid: str) -> list[WallEffect]:
        """Withdraw the VM's permit, if it has one."""
        had = self._permits.pop(uuid, None)
        if had is None and uuid in self._managed:
            return []
        self._managed.add(uuid)
        return [Forbid(uuid)]

    def _permitted(self, promise: Promise, way: Way, until_s: float) -> Permit:
        permit = Permit(promise.uuid, way, promise.epoch, until_s)
        self._managed.add(promise.uuid)
        self._permits[promise.uuid] = permit
        return permit


def _awaits_copy(promise: Promise) -> bool:
    return promise.standing is Standing.PERMITTED and promise.receive is not None


def _start_in_hand(memory: Memory, promise: Promise) -> bool:
    return any(
        order.uuid == promise.uuid and order.epoch == promise.epoch and isinstance(order.body, StartVm)
        for order in memory.open.values()
    )


def _uuid_of(memory: Memory, record: AnyLedgerRecord) -> str:
    """Return the VM that a record is about; empty: none."""
    match record:
        case SessionOpened() | LeadershipSeen() | MembersTold() | LedgerLost():
            return ""
        case OrderBegun(order=order):
            return order.uuid
        case OrderEnded(order_id=order_id):
            entry = memory.orders.get(order_id)
            return entry.order.uuid if entry is not None else ""
        case PromiseKept(promise=promise):
            return promise.uuid
        case _:
            return record.uuid
