"""Whether an order may begin: the rules in the order they are asked. Pure, decides only.

`judge` answers None (it may begin) or a Verdict. REFUSED means that nothing was begun and nothing
persisted; FAILED means that the order is sound and the state of the VM forbids it.
The rules, in this order: ledger lost, session, leadership, epoch, hypervisor silent, run, what
else is in hand for the VM, what the kind itself demands.
"""

from __future__ import annotations

from msgspec import Struct

from agent.desk import Desk, order_kind
from agent.records import Promise, Standing
from fleet.messages import (
    CODE_HAS_RUN,
    CancelMigration,
    DestroyVm,
    DiscardIncoming,
    MigrateVm,
    Order,
    OrderBody,
    PauseVm,
    ReceiveVm,
    RescueVm,
    ResumeVm,
    SetIsolation,
    SetProbes,
    ShutdownVm,
    StartVm,
    UndefineVm,
    UnpauseVm,
)
from fleet.model import OrderOutcome, QemuState, SessionKey

REFUSED, FAILED, DONE = OrderOutcome.REFUSED, OrderOutcome.FAILED, OrderOutcome.DONE

NOT_RELAYED = (StartVm, ReceiveVm, MigrateVm, RescueVm)
"""What a node does only by order of a session of its own, not of one that a peer carries."""


class Verdict(Struct, frozen=True):
    """Why an order does not begin; DONE: what it asks for is already so."""

    outcome: OrderOutcome
    code: str
    message: str


def judge(desk: Desk, session: SessionKey | None, order: Order) -> Verdict | None:
    """Say whether the order may begin now, given that its id is new to the ledger."""
    return (
        _judge_sender(desk, session, order)
        or _judge_epoch_and_run(desk, order)
        or _judge_company(desk, order)
        or _judge_kind(desk, order)
    )


def _judge_sender(desk: Desk, session: SessionKey | None, order: Order) -> Verdict | None:
    if desk.quarantined:
        text = "this node has lost its ledger and only reports until its next boot"
        return Verdict(REFUSED, "LEDGER_LOST", text)
    if session is None or order.session != session:
        return Verdict(
            REFUSED, "OLD_SESSION", f"the order names session {order.session.number}, which is not the open one"
        )
    if desk.via and isinstance(order.body, NOT_RELAYED):
        text = f"this node speaks through {desk.via}, and begins nothing new until it speaks directly"
        return Verdict(REFUSED, "RELAYED", text)
    highest = desk.memory.highest
    if highest is not None:
        if order.leader.term < highest.term:
            text = f"term {order.leader.term} is over, this node has obeyed term {highest.term}"
            return Verdict(REFUSED, "OLD_TERM", text)
        if order.leader.term == highest.term and order.leader.instance != highest.instance:
            return Verdict(REFUSED, "OTHER_LEADER", f"term {highest.term} belongs to another instance")
    return None


def _judge_epoch_and_run(desk: Desk, order: Order) -> Verdict | None:
    promise = desk.promise(order.uuid)
    if promise is None:
        return None
    if order.epoch < promise.epoch:
        text = f"epoch {order.epoch} is over, this node knows epoch {promise.epoch}"
        return Verdict(REFUSED, "OLD_EPOCH", text)
    body = order.body
    if order.epoch > promise.epoch or isinstance(body, (CancelMigration, DiscardIncoming, UndefineVm)):
        return None
    if body.run < promise.run:
        return Verdict(REFUSED, "OLD_RUN", f"run {body.run} is over, this node knows run {promise.run}")
    return None


def _judge_company(desk: Desk, order: Order) -> Verdict | None:
    others = desk.orders_of(order.uuid)
    if not others:
        return None
    body = order.body
    if isinstance(body, CancelMigration):
        return None
    if isinstance(body, DestroyVm) and not any(isinstance(o.body, (DestroyVm, DiscardIncoming)) for o in others):
        return None
    if isinstance(body, DiscardIncoming) and all(isinstance(o.body, RescueVm) for o in others):
        return None
    if isinstance(body, ShutdownVm) and all(isinstance(o.body, (PauseVm, UnpauseVm)) for o in others):
        return None
    text = f"the order {others[0].order_id} ({order_kind(others[0])}) is in hand for this VM"
    return Verdict(REFUSED, "BUSY", text)


def _judge_kind(desk: Desk, order: Order) -> Verdict | None:
    state, promise = desk.state(order.uuid), desk.promise(order.uuid)
    match order.body:
        case StartVm():
            return _judge_start(desk, order, state, promise)
        case ReceiveVm():
            return _judge_receive(order, state, promise)
        case MigrateVm():
            return _judge_migrate(order, state, promise)
        case RescueVm(run=run, migration=migration):
            return _judge_rescue(order, run, migration, promise)
        case ResumeVm():
            return _judge_resume(order, state, promise)
        case DiscardIncoming():
            return _judge_discard(state, promise)
        case SetIsolation(run=run) | SetProbes(run=run):
            text = "this node does not hold that run of the VM"
            return None if _same_run(order, run, promise) else Verdict(REFUSED, "UNKNOWN_RUN", text)
        case body:
            return _judge_plain(desk, order.uuid, body)


def _judge_plain(desk: Desk, uuid: str, body: OrderBody) -> Verdict | None:
    state, promise = desk.state(uuid), desk.promise(uuid)
    if isinstance(body, (PauseVm, UnpauseVm)):
        if state not in (QemuState.RUNNING, QemuState.PAUSED, QemuState.ARRIVED):
            return Verdict(FAILED, "NOT_RUNNING", f"the VM is {state} here")
        if promise is not None and promise.standing is Standing.PERMITTED:
            return Verdict(REFUSED, "AWAITS_HANDOVER", "this copy waits for its hand-over")
    elif isinstance(body, CancelMigration) and not (desk.in_hand(uuid, MigrateVm) or desk.in_hand(uuid, RescueVm)):
        return Verdict(FAILED, "NO_MIGRATION", "no migration of this VM is in hand here")
    elif isinstance(body, UndefineVm) and state is not QemuState.GONE:
        return Verdict(REFUSED, "RUNNING", f"the VM is {state} here")
    return None


def _same_run(order: Order, run: int, promise: Promise | None) -> bool:
    return promise is not None and (promise.epoch, promise.run) == (order.epoch, run)


def _judge_start(desk: Desk, order: Order, state: QemuState, promise: Promise | None) -> Verdict | None:
    body = order.body
    same = isinstance(body, StartVm) and _same_run(order, body.run, promise)
    if same and promise is not None and promise.standing is Standing.RUNS and state is QemuState.RUNNING:
        return Verdict(DONE, "", "this run was started here and runs")
    if not desk.inventory.complete:
        return Verdict(FAILED, "CANNOT_TELL", "libvirt is silent, so nobody can tell what runs here")
    if state is not QemuState.GONE:
        return Verdict(FAILED, "ALREADY_RUNNING", f"a QEMU of this VM is here already: {state}")
    if same and promise is not None and (promise.ran or promise.standing is Standing.RUNS):
        return Verdict(REFUSED, "RUN_IS_OVER", "this run was started here before and has ended")
    return None


def _judge_receive(order: Order, state: QemuState, promise: Promise | None) -> Verdict | None:
    if promise is not None and (order.epoch <= promise.epoch or promise.standing is Standing.RUNS):
        return Verdict(REFUSED, "NOT_RELEASED", f"this node holds the VM at epoch {promise.epoch}")
    if state is not QemuState.GONE:
        return Verdict(FAILED, "ALREADY_RUNNING", f"a QEMU of this VM is here already: {state}")
    return None


def _judge_migrate(order: Order, state: QemuState, promise: Promise | None) -> Verdict | None:
    body = order.body
    if not isinstance(body, MigrateVm) or not _same_run(order, body.run, promise):
        return Verdict(REFUSED, "UNKNOWN_RUN", "this node does not hold that run of the VM")
    if state not in (QemuState.RUNNING, QemuState.PAUSED):
        return Verdict(FAILED, "NOT_RUNNING", f"the VM is {state} here")
    return None


def _judge_rescue(order: Order, run: int, migration: str, promise: Promise | None) -> Verdict | None:
    receive = promise.receive if promise is not None and promise.standing is Standing.PERMITTED else None
    if not _same_run(order, run, promise) or receive is None or receive.migration != migration:
        return Verdict(REFUSED, "NO_PERMIT", "this node holds no permit for a copy of that migration")
    return None


def _judge_resume(order: Order, state: QemuState, promise: Promise | None) -> Verdict | None:
    body = order.body
    if not isinstance(body, ResumeVm) or not _same_run(order, body.run, promise) or promise is None:
        return Verdict(REFUSED, "NO_PERMIT", "this node holds no copy of that migration")
    if promise.standing is Standing.RELEASED:
        return Verdict(FAILED, "GONE", "the copy of that migration is gone")
    if promise.standing is Standing.PERMITTED and (not promise.receive or promise.receive.migration != body.migration):
        return Verdict(REFUSED, "NO_PERMIT", "the copy here belongs to another migration")
    if promise.standing is Standing.RUNS and state is QemuState.RUNNING:
        return Verdict(DONE, "", "the copy runs")
    return None


def _judge_discard(state: QemuState, promise: Promise | None) -> Verdict | None:
    if promise is not None and promise.standing is Standing.RUNS:
        return Verdict(REFUSED, CODE_HAS_RUN, "this copy may have run")
    if state not in (QemuState.INCOMING, QemuState.ARRIVED, QemuState.PAUSED, QemuState.GONE):
        return Verdict(REFUSED, "HAS_RUN", f"the VM is {state} here, which no copy that waits is")
    return None
