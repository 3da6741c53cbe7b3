"""What the parts of the keeper share: the time, the picture, the promises, and the effects so far.

Pure. Knows how a record is folded and persisted in one breath and how a call is numbered; decides
nothing about orders (agent.works) or the link (agent.conversation).
"""

from __future__ import annotations

from msgspec import Struct, structs

from agent.blockers import blocker_words
from agent.guard import Guard
from agent.inventory import Inventory
from agent.keeper_types import (
    AnyDeed,
    AnyLedgerRecord,
    Call,
    Create,
    Effect,
    KeeperSettings,
    LookNow,
    Note,
    Persist,
    VmForgotten,
    VmReleased,
)
from agent.memory import PROMISES_MAX, Memory, fold
from agent.records import Promise, Standing
from agent.wall import Wall
from fleet.guest_health import GuestHealth
from fleet.messages import MigrateVm, Order, OrderInHand
from fleet.model import EndReason, LedgerState, QemuState, VmReport


class CallInFlight(Struct, frozen=True):
    """A deed that was begun and has not returned. order_id: empty for a resume by notice."""

    call_id: int
    uuid: str
    order_id: str
    deed: AnyDeed


class Desk:
    """The keeper's working state. `now` is set at the beginning of each step."""

    def __init__(self, settings: KeeperSettings, memory: Memory) -> None:
        self.settings = settings
        self.memory = memory
        self.inventory = Inventory()
        self.calls: dict[int, CallInFlight] = {}
        self.now = 0.0
        self.out: list[Effect] = []
        self.changed: set[str] = set()  # VMs whose report may be another one now
        self.wake_s: float | None = None
        self.persisted = 0  # records in this life of the agent
        self.via = ""  # the peer that carries the present link
        self.end_due_s: dict[str, float] = {}  # until when libvirt may say why a QEMU ended
        self.health: dict[str, GuestHealth] = {}  # what probes found (agent.guest_watch)
        self.guard = Guard()
        self._wall = Wall()
        self._call_id = 0
        self._looked_s = float("-inf")

    @property
    def quarantined(self) -> bool:
        """The ledger of this boot was lost: report only."""
        lost = self.memory.lost_in_boot == self.settings.boot_id
        return lost or self.settings.ledger is LedgerState.LOST

    def note(self, event: str, uuid: str = "", detail: str = "", *, warning: bool = False) -> None:
        """Put one line into the log."""
        self.out.append(Note(event, uuid, detail, warning))

    def persist(self, record: AnyLedgerRecord) -> None:
        """Fold a record into the memory and have it synced before anything that follows."""
        fold(self.memory, record)
        self.persisted += 1
        self.out.append(Persist(record))
        self.out.extend(self._wall.after(self.memory, record, self.now))

    def raise_wall(self) -> None:
        """Begin with the permits that the ledger has; the first thing after a start."""
        same_boot = self.memory.session is not None and self.memory.session.boot_id == self.settings.boot_id
        self.out.extend(self._wall.raised(self.memory, self.now, same_boot=same_boot))

    def forbid(self, uuid: str) -> None:
        """Withdraw a VM's permit before its order has ended."""
        self.out.extend(self._wall.forbidden(uuid))

    def call(self, uuid: str, deed: AnyDeed, order_id: str = "", timeout_s: float | None = None) -> int:
        """Begin a deed; returns the number its CallReturned will carry."""
        self._call_id += 1
        if isinstance(deed, Create):
            self.inventory.touch(uuid, self.now)
        self.calls[self._call_id] = CallInFlight(self._call_id, uuid, order_id, deed)
        self.out.append(Call(self._call_id, uuid, deed, timeout_s or self.settings.call_timeout_s))
        self.changed.add(uuid)
        return self._call_id

    def create_in_flight(self, uuid: str) -> bool:
        """Say whether a start of this VM has not returned yet."""
        return any(call.uuid == uuid and isinstance(call.deed, Create) for call in self.calls.values())

    def look(self) -> None:
        """Have everything read anew, at most once a step."""
        if self._looked_s != self.now:
            self._looked_s = self.now
            self.out.append(LookNow())
        self.wake_at(self.now + self.settings.look_wait_s_max)

    def wake_at(self, at_s: float) -> None:
        """Have a Tick at that time at the latest."""
        if self.wake_s is None or at_s < self.wake_s:
            self.wake_s = at_s

    def promise(self, uuid: str) -> Promise | None:
        """Return what this node promised about the VM."""
        return self.memory.promises.get(uuid)

    def release(self, promise: Promise, end: EndReason, *, ran: bool) -> None:
        """Persist Released. The caller has seen that the QEMU is gone."""
        name = promise.name
        self.persist(VmReleased(promise.uuid, name, promise.epoch, promise.run, end, ran))
        self.note("vm released", promise.uuid, f"epoch {promise.epoch} run {promise.run} {end}".rstrip())
        self.changed.add(promise.uuid)
        self._make_room()

    def _make_room(self) -> None:
        promises = self.memory.promises
        surplus = len(promises) - PROMISES_MAX
        if surplus <= 0:
            return
        old = [p.uuid for p in promises.values() if p.standing is Standing.RELEASED and self.inventory.is_gone(p.uuid)]
        for uuid in old[:surplus]:
            self.persist(VmForgotten(uuid))

    def end_settled(self, uuid: str) -> bool:
        """Say whether it is known why the VM's QEMU ended, or nobody will say it any more."""
        due_s = self.end_due_s.get(uuid)
        if due_s is None:
            return True
        seen = self.inventory.seen.get(uuid)
        if self.now < due_s and seen is not None and seen.vm.state is QemuState.GONE and not seen.vm.end:
            self.wake_at(due_s)
            return False
        del self.end_due_s[uuid]
        return True

    def state(self, uuid: str) -> QemuState:
        """Return the VM's state as it is reported: what libvirt shows, read in the light of the promise."""
        state = self.inventory.state(uuid)
        promise = self.promise(uuid)
        waits = promise is not None and promise.standing is Standing.PERMITTED and promise.receive is not None
        if waits and state is QemuState.PAUSED:
            return QemuState.ARRIVED
        if waits and state is QemuState.FINISHED:
            return QemuState.INCOMING
        if not waits and state is QemuState.ARRIVED:
            return QemuState.PAUSED
        if state is QemuState.INCOMING and self.in_hand(uuid, MigrateVm) is not None:
            return QemuState.FINISHED
        return state

    def in_hand(self, uuid: str, kind: type | tuple[type, ...]) -> Order | None:
        """Return the order of that kind that is in hand for the VM."""
        for order in self.orders_of(uuid):
            if isinstance(order.body, kind):
                return order
        return None

    def orders_of(self, uuid: str) -> list[Order]:
        """Return the orders in hand for the VM, oldest first."""
        return [order for order in self.memory.open.values() if order.uuid == uuid]

    def report(self, uuid: str) -> VmReport:
        """Say what is true of one VM here, now."""
        seen = self.inventory.seen.get(uuid)
        promise = self.promise(uuid)
        state = self.state(uuid)
        gone = state is QemuState.GONE
        released = promise is not None and promise.standing is Standing.RELEASED and gone
        end = EndReason.NOT_ENDED
        if gone:
            end = promise.end if released and promise else (seen.vm.end if seen else end)
        vm = seen.vm if seen else None
        orders = self.orders_of(uuid)
        return VmReport(
            uuid=uuid,
            name=vm.name if vm else (promise.name if promise else ""),
            state=state,
            reason=vm.reason if vm else "",
            end=end,
            epoch=promise.epoch if promise else 0,
            run=promise.run if promise else 0,
            released=released,
            managed=promise is not None,
            paused_on_io_error=vm.paused_on_io_error if vm else False,
            definition_hash=vm.definition_hash if vm else "",
            cpu_m=vm.cpu_m if vm else 0,
            memory_bytes=vm.memory_bytes if vm else 0,
            busy=order_kind(orders[0]) if orders else (vm.busy if vm else ""),
            not_migratable=blocker_words(vm.blockers) if vm else "",
            blockers=vm.blockers if vm else (),
            guest=structs.replace(self.health.get(uuid, GuestHealth()), agent=vm.guest_agent if vm else ""),
        )

    def all_uuids(self) -> list[str]:
        """Return every VM that is here or was promised something about."""
        return sorted(self.inventory.seen.keys() | self.memory.promises.keys())


def order_kind(order: Order) -> str:
    """Return the order's kind as it is written on the wire."""
    return str(order.body.__struct_config__.tag)


def describe_in_hand(memory: Memory) -> tuple[OrderInHand, ...]:
    """Return the orders in hand as FullState tells them."""
    return tuple(OrderInHand(o.order_id, o.uuid, o.epoch, order_kind(o)) for o in memory.in_hand())
