"""What the ledger says: the fold of its records. Pure.

Knows promises and orders; knows nothing of files (agent.ledger) or of what to do (agent.keeper).
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct, field, structs

from agent.records import (
    AnyLedgerRecord,
    LeadershipSeen,
    LedgerLost,
    MembersTold,
    NoticeTaken,
    OrderBegun,
    OrderEnded,
    Promise,
    PromiseKept,
    RunBegan,
    SessionOpened,
    Standing,
    VmForgotten,
    VmReleased,
)
from fleet.guest_health import GuestProbes
from fleet.messages import KEPT_BYTES_MAX, Order, ReceiveVm, SetIsolation, SetProbes, StartVm, UndefineVm
from fleet.model import EndReason, Isolation, Leadership, OrderOutcome, SessionKey

ORDERS_DONE_MAX = 1000
PROMISES_MAX = 4000


class OrderEntry(Struct, frozen=True):
    """An order that was begun, and its end if it has one."""

    order: Order
    ended: OrderEnded | None = None


class Memory(Struct):
    """Everything the ledger holds. Changed by `fold` alone."""

    session: SessionKey | None = None
    highest: Leadership | None = None
    promises: dict[str, Promise] = field(default_factory=dict)
    orders: dict[str, OrderEntry] = field(default_factory=dict)
    open: dict[str, Order] = field(default_factory=dict)  # of the orders, those that have not ended
    members: tuple[str, ...] = ()  # of the fleet, as told last
    lost_in_boot: str = ""  # the boot id in which the ledger before this one was lost

    def in_hand(self) -> list[Order]:
        """Return the orders begun and not ended, oldest first."""
        return list(self.open.values())


def fold(memory: Memory, record: AnyLedgerRecord) -> None:
    """Apply one record; the order of records is the order they were written in."""
    match record:
        case SessionOpened(session=session):
            memory.session = session
        case LeadershipSeen(leader=leader):
            memory.highest = leader
        case MembersTold(members=members):
            memory.members = members
        case OrderBegun(order=order):
            _begin(memory, order)
        case OrderEnded(order_id=order_id):
            memory.open.pop(order_id, None)
            entry = memory.orders.get(order_id)
            if entry is not None:
                memory.orders[order_id] = structs.replace(entry, ended=record)
                _let_go(memory, entry.order, record)
        case LedgerLost(boot_id=boot_id):
            memory.lost_in_boot = boot_id
        case _:
            _fold_promise(memory, record)


def _fold_promise(memory: Memory, record: RunBegan | VmReleased | NoticeTaken | PromiseKept | VmForgotten) -> None:
    match record:
        case RunBegan():
            old = memory.promises.get(record.uuid)
            memory.promises[record.uuid] = Promise(
                uuid=record.uuid,
                name=record.name,
                epoch=record.epoch,
                run=record.run,
                standing=Standing.RUNS,
                ran=True,
                receive=None if record.confirmed or not old else old.receive,
                notice_taken=bool(old and old.notice_taken and not record.confirmed),
                isolation=old.isolation if old else Isolation(),
                kept=old.kept if old else b"",
                probes=old.probes if old else GuestProbes(),
            )
        case VmReleased():
            old = memory.promises.get(record.uuid)
            memory.promises[record.uuid] = Promise(
                uuid=record.uuid,
                name=record.name,
                epoch=record.epoch,
                run=record.run,
                standing=Standing.RELEASED,
                end=record.end,
                ran=record.ran,
                kept=old.kept if old and not _is_kept_elsewhere(old, record) else b"",
            )
        case NoticeTaken(uuid=uuid):
            if uuid in memory.promises:
                memory.promises[uuid] = structs.replace(memory.promises[uuid], notice_taken=True)
        case PromiseKept(promise=promise):
            memory.promises[promise.uuid] = promise
        case VmForgotten(uuid=uuid):
            memory.promises.pop(uuid, None)


def _is_kept_elsewhere(old: Promise, record: VmReleased) -> bool:
    """Return whether the other end of a migration holds the VM, and what is kept of it."""
    return record.end is EndReason.MIGRATED or (old.receive is not None and not record.ran)


def _let_go(memory: Memory, order: Order, ended: OrderEnded) -> None:
    promise = memory.promises.get(order.uuid)
    if isinstance(order.body, UndefineVm) and ended.outcome is OrderOutcome.DONE and promise is not None:
        memory.promises[order.uuid] = structs.replace(promise, let_go=True, kept=b"")


def without_xml(order: Order) -> Order:
    """Return the order as the ledger keeps it: a start without its XML, which is large."""
    body = order.body
    return structs.replace(order, body=structs.replace(body, xml="")) if isinstance(body, StartVm) else order


def _bounded(kept: bytes) -> bytes:
    return kept if len(kept) <= KEPT_BYTES_MAX else b""


def as_remembered(order: Order) -> Order:
    """Return the order as it is remembered: what it gave to keep lies in the promise."""
    body = without_xml(order).body
    if isinstance(body, (StartVm, ReceiveVm, SetIsolation)) and body.kept:
        body = structs.replace(body, kept=b"")
    return structs.replace(order, body=body)


def _begin(memory: Memory, order: Order) -> None:
    body = order.body
    leader, highest = order.leader, memory.highest
    if highest is None or (leader.term, leader.position) > (highest.term, highest.position):
        memory.highest = leader  # who obeys an order has met its leader, as far as it was then
    remembered = as_remembered(order)
    memory.orders[order.order_id] = OrderEntry(order=remembered)
    memory.open[order.order_id] = remembered
    surplus = len(memory.orders) - ORDERS_DONE_MAX
    if surplus > 0:
        done = [key for key, entry in memory.orders.items() if entry.ended is not None]
        for key in done[:surplus]:
            del memory.orders[key]
    if isinstance(body, (StartVm, ReceiveVm)):
        memory.promises[order.uuid] = Promise(
            uuid=order.uuid,
            name=order.name,
            epoch=order.epoch,
            run=body.run,
            standing=Standing.PERMITTED,
            receive=body if isinstance(body, ReceiveVm) else None,
            isolation=body.isolation,
            probes=body.probes,
            kept=_bounded(body.kept),
        )
    elif isinstance(body, SetIsolation) and order.uuid in memory.promises:
        old = memory.promises[order.uuid]
        kept = _bounded(body.kept) or old.kept
        memory.promises[order.uuid] = structs.replace(old, isolation=body.isolation, kept=kept)
    elif isinstance(body, SetProbes) and order.uuid in memory.promises:
        memory.promises[order.uuid] = structs.replace(memory.promises[order.uuid], probes=body.probes)


def recall(records: Iterable[AnyLedgerRecord]) -> Memory:
    """Return what a ledger with these records remembers."""
    memory = Memory()
    for record in records:
        fold(memory, record)
    return memory


def to_records(memory: Memory) -> list[AnyLedgerRecord]:
    """Return the shortest ledger that is recalled as this memory (but for names of dropped orders)."""
    records: list[AnyLedgerRecord] = []
    if memory.lost_in_boot:
        records.append(LedgerLost(memory.lost_in_boot))
    if memory.session is not None:
        records.append(SessionOpened(memory.session))
    if memory.highest is not None:
        records.append(LeadershipSeen(memory.highest))
    if memory.members:
        records.append(MembersTold(memory.members))
    for entry in memory.orders.values():
        records.append(OrderBegun(entry.order))
        if entry.ended is not None:
            records.append(entry.ended)
    records += [PromiseKept(promise) for promise in memory.promises.values()]
    return records
