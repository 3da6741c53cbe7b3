"""One order in hand, and how it ends. Pure.

A work is advanced whenever anything about its VM was learnt or its time has come; each kind's
`advance` looks at the present state and takes the next step (agent.work_start, agent.work_stop,
agent.work_migrate). So a lost or doubled fact does no harm.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from agent.arrivals import Arrivals
from agent.conversation import Conversation
from agent.course import Course
from agent.desk import Desk, order_kind
from agent.keeper_types import AnyDeed, OrderEnded
from agent.tells import Tells
from fleet.messages import Order
from fleet.model import OrderOutcome


class Step(StrEnum):
    """Where a work stands."""

    BEGUN = "Begun"
    DEFINING = "Defining"
    CREATING = "Creating"
    CONFIRMING = "Confirming"  # the call returned well; a look shall show it
    LOOKING = "Looking"  # the call failed or its end is unknown; a fresh look decides
    BARRIER = "Barrier"  # undefining, so that a create on its way can no longer succeed
    RESTORING = "Restoring"  # defining again what the barrier undefined
    ASKED = "Asked"  # the guest was asked to power off
    PICTURING = "Picturing"  # what the screen shows is asked for, before it is gone
    DESTROYING = "Destroying"
    MOVING = "Moving"
    CALLING = "Calling"  # a single call is on its way
    ENDED = "Ended"


class Work(Struct):
    """An order in hand. Times are monotonic seconds; `look_s`: a look must be asked for later than this."""

    order: Order
    step: Step = Step.BEGUN
    since_s: float = 0.0
    due_s: float = float("inf")
    look_s: float = 0.0
    again_s: float = float("inf")  # when to ask the guest again
    tries: int = 0
    call_id: int = 0  # of the call in flight, 0: none
    ask_id: int = 0  # of the question to another host that is in flight, 0: none
    code: str = ""
    message: str = ""
    course: Course | None = None  # of a migration


class Bench:
    """What every kind of work needs: begin a call, wait for a look, end."""

    def __init__(self, desk: Desk, conversation: Conversation) -> None:
        self.desk = desk
        self.conversation = conversation
        self.tells = Tells(desk)
        self.arrivals = Arrivals(desk)

    def call(self, work: Work, deed: AnyDeed, timeout_s: float | None = None) -> None:
        """Begin a deed for this work."""
        work.call_id = self.desk.call(work.order.uuid, deed, work.order.order_id, timeout_s)

    def look(self, work: Work, step: Step) -> None:
        """Go to a step that waits for a look asked for from now on."""
        work.step, work.look_s = step, self.desk.now
        self.desk.look()
        work.due_s = self.desk.now + self.desk.settings.look_wait_s_max

    def look_again(self, work: Work) -> None:
        """Ask for another look when the last one did not come or did not tell."""
        if self.desk.now >= work.due_s:
            self.desk.look()
            work.due_s = self.desk.now + self.desk.settings.look_wait_s_max
        self.desk.wake_at(work.due_s)

    def looked(self, work: Work) -> bool:
        """Say whether a look asked for after look_s has come (complete, or at this VM alone)."""
        inventory, uuid = self.desk.inventory, work.order.uuid
        seen = inventory.seen.get(uuid)
        if seen is not None and seen.asked_s >= work.look_s:
            return True
        return inventory.complete and inventory.complete_asked_s >= work.look_s

    def begun(self, work: Work) -> None:
        """Tell that the order was begun (its record is persisted by now)."""
        order = work.order
        why = ("", "")
        self.conversation.tell_order(order.order_id, order.uuid, order.epoch, OrderOutcome.ACCEPTED, why)
        self.desk.note("order begun", order.uuid, f"{order_kind(order)} {order.order_id} epoch {order.epoch}")

    def end(self, work: Work, outcome: OrderOutcome, code: str = "", message: str = "") -> None:
        """Persist the end of an order, then report it."""
        order = work.order
        work.step = Step.ENDED
        self.desk.persist(OrderEnded(order.order_id, outcome, code, message))
        self.conversation.tell_order(order.order_id, order.uuid, order.epoch, outcome, (code, message))
        self.desk.changed.add(order.uuid)
        detail = f"{order_kind(order)} {order.order_id} {outcome} {code} {message}".rstrip()
        self.desk.note("order ended", order.uuid, detail, warning=outcome is OrderOutcome.FAILED)

    def done(self, work: Work) -> None:
        """End well."""
        self.end(work, OrderOutcome.DONE)

    def failed(self, work: Work, code: str = "", message: str = "") -> None:
        """End badly, with the given reason or the one noted in the work."""
        self.end(work, OrderOutcome.FAILED, code or work.code, message or work.message)
