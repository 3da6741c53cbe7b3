"""All orders in hand: begun, advanced, and taken up again after a restart. Pure.

Knows which file knows which kind of order; the kinds that are a single call live here.
"""

from __future__ import annotations

from agent import work_migrate, work_rescue, work_start, work_stop
from agent.acceptance import judge
from agent.conversation import Conversation, Phase
from agent.desk import CallInFlight, Desk, order_kind
from agent.keeper_types import (
    CODE_NOT_FOUND,
    AbortJob,
    CallReturned,
    Migrate,
    MigrationMoved,
    OrderBegun,
    Resume,
    Suspend,
    Undefine,
)
from agent.memory import as_remembered, without_xml
from agent.records import Standing
from agent.work import Bench, Step, Work
from fleet.messages import (
    CancelMigration,
    DestroyVm,
    DiscardIncoming,
    MigrateVm,
    Order,
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
from fleet.model import EndReason, OrderOutcome

ARRIVAL_WAIT_S_MAX = 30.0
STOPS = (ShutdownVm, DestroyVm, DiscardIncoming)
SINGLE_CALLS = (PauseVm, UnpauseVm, CancelMigration, UndefineVm)


class Works:
    """The orders in hand by their id."""

    def __init__(self, desk: Desk, conversation: Conversation) -> None:
        self.desk = desk
        self.conversation = conversation
        self.bench = Bench(desk, conversation)
        self._works: dict[str, Work] = {}

    # --- a new order

    def ordered(self, order: Order) -> None:
        """Take an order in: repeat what is known of it, refuse it, or begin it."""
        known = self.desk.memory.orders.get(order.order_id)
        if known is not None and not _is_same(known.order, order):
            why = ("REUSED_ID", f"this node has obeyed another order {order.order_id}")
            self.conversation.tell_order(order.order_id, order.uuid, order.epoch, OrderOutcome.REFUSED, why)
            return
        if known is not None:
            ended = known.ended
            outcome = ended.outcome if ended else OrderOutcome.ACCEPTED
            why = (ended.code, ended.message) if ended else ("", "")
            self.conversation.tell_order(order.order_id, order.uuid, known.order.epoch, outcome, why)
            return
        session = self.conversation.session if self.conversation.phase is Phase.STANDING else None
        verdict = judge(self.desk, session, order)
        if verdict is not None:
            why = (verdict.code, verdict.message)
            self.conversation.tell_order(order.order_id, order.uuid, order.epoch, verdict.outcome, why)
            detail = f"{order_kind(order)} {order.order_id} {verdict.outcome} {verdict.code} {verdict.message}"
            self.desk.note("order not begun", order.uuid, detail.rstrip(), warning=bool(verdict.code))
            return
        self.take_up(order)

    def take_up(self, order: Order) -> None:
        """Begin an order that may begin: the record first."""
        self.desk.persist(OrderBegun(without_xml(order)))
        self.desk.changed.add(order.uuid)
        work = Work(order)
        self._works[order.order_id] = work
        self.bench.begun(work)
        self._begin(work)
        self._sweep_ended()

    def _begin(self, work: Work) -> None:
        bench, uuid = self.bench, work.order.uuid
        match work.order.body:
            case StartVm() as body:
                work_start.begin(bench, work, body)
            case ShutdownVm() | DestroyVm() | DiscardIncoming():
                work_stop.begin(bench, work)
            case MigrateVm() as body:
                work_migrate.begin(bench, work, body)
            case RescueVm() as body:
                work_rescue.begin(bench, work, body)
            case ReceiveVm() | SetIsolation() | SetProbes():
                bench.done(work)
            case ResumeVm():
                self._begin_resume(work)
            case CancelMigration():
                work.step = Step.CALLING
                rescue = self.desk.in_hand(uuid, RescueVm)
                away = rescue.body if rescue is not None else None
                abort = work_rescue.there(away, AbortJob()) if isinstance(away, RescueVm) else AbortJob()
                bench.call(work, abort, work_migrate.ABORT_AGAIN_S)
            case PauseVm():
                work.step = Step.CALLING
                bench.call(work, Suspend())
            case UnpauseVm():
                work.step = Step.CALLING
                bench.call(work, Resume())
            case UndefineVm():
                work.step = Step.CALLING
                bench.call(work, Undefine())
        self.desk.changed.add(uuid)

    def _begin_resume(self, work: Work) -> None:
        promise = self.desk.promise(work.order.uuid)
        work.step, work.since_s = Step.CONFIRMING, self.desk.now
        work.due_s = self.desk.now + ARRIVAL_WAIT_S_MAX
        if promise is not None and promise.receive is None:  # it ran before and is paused now
            work.step = Step.CALLING
            self.bench.call(work, Resume())
        else:
            self.bench.arrivals.renew(work.order.uuid)
            self.bench.arrivals.advance(work.order.uuid)
            self._advance(work)

    # --- going on

    def returned(self, call: CallInFlight, fact: CallReturned) -> None:
        """Give the end of a call to the work or the copy that it belongs to."""
        if self.bench.arrivals.returned(call.uuid, fact):
            self.advance(call.uuid)
            return
        work = self._works.get(call.order_id)
        if work is not None and isinstance(work.order.body, RescueVm):
            work_rescue.returned(self.bench, work, call, fact)
            self.advance(call.uuid)
            return
        if work is None or work.call_id != call.call_id:
            if not fact.ok:
                self.desk.note("call failed", call.uuid, f"{fact.code} {fact.message}", warning=True)
            return
        work.call_id = 0
        body = work.order.body
        if isinstance(body, StartVm):
            work_start.returned(self.bench, work, fact)
        elif isinstance(body, STOPS):
            work_stop.returned(self.bench, work, fact)
        elif isinstance(body, MigrateVm) and isinstance(call.deed, Migrate):
            work_migrate.returned(self.bench, work, fact)
        elif fact.ok or (isinstance(body, UndefineVm) and fact.code == CODE_NOT_FOUND):
            self.desk.look()
            self.bench.done(work)
        else:
            self.bench.failed(work, fact.code or "FAILED", fact.message)
        self.advance(call.uuid)

    def moved(self, fact: MigrationMoved) -> int:
        """Drive the migration that the fact is about; return the pause it may make by now, in ms, 0 without one."""
        for work in self._works.values():
            if work.order.uuid == fact.uuid and isinstance(work.order.body, MigrateVm):
                return work_migrate.moved(self.bench, work, fact)
        return 0

    def advance(self, uuid: str) -> None:
        """Advance everything in hand for one VM."""
        self.bench.arrivals.advance(uuid)
        for work in [w for w in self._works.values() if w.order.uuid == uuid]:
            self._advance(work)
        self._sweep_ended()

    @property
    def idle(self) -> bool:
        """Whether nothing is in hand, and nobody is told anything."""
        return not self._works and not self.bench.arrivals.uuids() and self.bench.tells.idle

    def advance_all(self) -> None:
        """Advance everything in hand, by the clock."""
        for uuid in dict.fromkeys(work.order.uuid for work in self._works.values()):
            self.advance(uuid)
        for uuid in self.bench.arrivals.uuids():
            self.advance(uuid)
        self.bench.tells.advance()

    def _advance(self, work: Work) -> None:
        body = work.order.body
        if work.step is Step.ENDED:
            return
        if isinstance(body, StartVm):
            work_start.advance(self.bench, work)
        elif isinstance(body, STOPS):
            work_stop.advance(self.bench, work)
        elif isinstance(body, MigrateVm):
            work_migrate.advance(self.bench, work)
        elif isinstance(body, RescueVm):
            work_rescue.advance(self.bench, work)
        elif isinstance(body, ResumeVm) and work.step is Step.CONFIRMING:
            self._advance_resume(work)

    def _advance_resume(self, work: Work) -> None:
        desk, uuid = self.desk, work.order.uuid
        promise = desk.promise(uuid)
        if promise is None or promise.standing is Standing.RELEASED:
            self.bench.failed(work, "GONE", "the copy is gone")
        elif promise.standing is Standing.RUNS and promise.receive is None:
            self.bench.done(work)
        elif self.bench.arrivals.gave_up(uuid):
            self.bench.failed(work, "RESUME_FAILED", "libvirt refused to resume the copy")
        elif desk.now >= work.due_s and desk.inventory.is_gone(uuid, work.since_s):
            # It was complete, or its source had not let go; so it ended while nobody here was looking.
            desk.release(promise, EndReason.CRASHED, ran=False)
            self.bench.failed(work, "GONE", "the copy is gone")
        elif desk.now >= work.due_s:
            self.bench.failed(work, "NOT_ARRIVED", f"the copy is {desk.state(uuid)} and not complete")
        else:
            desk.wake_at(work.due_s)

    def _sweep_ended(self) -> None:
        for order_id in [key for key, work in self._works.items() if work.step is Step.ENDED]:
            del self._works[order_id]

    # --- after a restart

    def recover(self) -> None:
        """Take up what the ledger says was begun and did not end."""
        desk = self.desk
        same_boot = desk.memory.session is not None and desk.memory.session.boot_id == desk.settings.boot_id
        for order in desk.memory.in_hand():
            work = Work(order, since_s=desk.now)
            self._works[order.order_id] = work
            body, promise = order.body, desk.promise(order.uuid)
            if isinstance(body, StartVm):
                ran = promise is not None and promise.standing is Standing.RUNS
                work_start.recover(work, ran=ran and same_boot)
            elif isinstance(body, STOPS):
                work_stop.recover(self.bench, work)
            elif isinstance(body, MigrateVm):
                work_migrate.recover(self.bench, work)
            elif isinstance(body, RescueVm):
                work_rescue.recover(self.bench, work)
            elif isinstance(body, (ReceiveVm, SetIsolation, SetProbes)):
                self.bench.done(work)
            elif isinstance(body, ResumeVm):
                work.step, work.due_s = Step.CONFIRMING, desk.now + ARRIVAL_WAIT_S_MAX
            else:
                self.bench.failed(work, "INTERRUPTED", "the agent was restarted during the order")
        self._sweep_ended()
        if not same_boot:
            self._release_old_permits()

    def _release_old_permits(self) -> None:
        """Give back the permits for copies of an earlier boot: what came by them ended with it."""
        desk = self.desk
        for promise in list(desk.memory.promises.values()):
            waits = promise.standing is Standing.PERMITTED and promise.receive is not None
            if waits and not desk.orders_of(promise.uuid):
                desk.release(promise, EndReason.CRASHED, ran=False)

    def stops(self, uuid: str) -> bool:
        """Say whether something in hand ends this VM, or moves it away, and will persist its release."""
        bodies = (*STOPS, MigrateVm, StartVm)
        return any(w.order.uuid == uuid and isinstance(w.order.body, bodies) for w in self._works.values())


def _is_same(known: Order, order: Order) -> bool:
    """Tell a repeated order from another one of its id: a store that was rolled back gives ids out anew."""
    one, other = as_remembered(known), as_remembered(order)
    return (one.uuid, one.epoch, one.body) == (other.uuid, other.epoch, other.body)
