"""Starting a VM: persist, define, report the definition, persist again, create, look. Pure.

A create that failed is believed when a look from after its return shows no QEMU; one whose end
is unknown (time-out, connection or agent lost) needs the barrier first: the definition is removed,
so that a create still on its way inside libvirtd finds nothing to start.
"""

from __future__ import annotations

from agent.deeds import CODE_STARTER_DEAD
from agent.keeper_types import CODE_NOT_FOUND, CODE_UNKNOWN, CallReturned, Create, Define, RunBegan, Undefine
from agent.records import Standing
from agent.work import Bench, Step, Work
from fleet.messages import DestroyVm, StartVm
from fleet.model import EndReason, QemuState

CONFIRM_S_MAX = 3.0
BARRIER_AGAIN_S = 5.0
CALL_TIMEOUT_START_S = 120.0
ALIVE = (QemuState.RUNNING, QemuState.PAUSED)


def begin(bench: Bench, work: Work, body: StartVm) -> None:
    """Define the XML, if there is one; nothing can run yet."""
    if not body.xml:
        _create(bench, work, body)
        return
    work.step = Step.DEFINING
    bench.call(work, Define(body.xml))


def recover(work: Work, *, ran: bool) -> None:
    """Take up a start that the agent was killed in."""
    work.code, work.message = "INTERRUPTED", "the agent was restarted during the start"
    work.step = Step.LOOKING
    work.tries = 0 if ran else 1  # no create was called: no barrier is needed


def returned(bench: Bench, work: Work, fact: CallReturned) -> None:
    """Take the end of the call in flight."""
    if work.step is Step.DEFINING:
        _defined(bench, work, fact)
    elif work.step is Step.CREATING:
        _created(bench, work, fact)
    elif work.step is Step.BARRIER:
        if fact.ok or fact.code in (CODE_NOT_FOUND, CODE_STARTER_DEAD):
            work.tries = 1
            bench.desk.inventory.touch(work.order.uuid, bench.desk.now)
            bench.look(work, Step.LOOKING)
        else:
            work.due_s = bench.desk.now + BARRIER_AGAIN_S
    elif work.step is Step.RESTORING:
        bench.done(work)


def _defined(bench: Bench, work: Work, fact: CallReturned) -> None:
    desk, order = bench.desk, work.order
    body = order.body
    overruled = desk.in_hand(order.uuid, DestroyVm) is not None
    if not fact.ok or overruled or not isinstance(body, StartVm):
        promise = desk.promise(order.uuid)
        if promise is not None:
            desk.release(promise, EndReason.CRASHED, ran=False)
        if overruled:
            bench.failed(work, "OVERRULED", "the VM was ordered to end before it was created")
        else:
            bench.failed(work, fact.code or "DEFINE_FAILED", fact.message)
        return
    if fact.definition is not None:
        desk.inventory.take_definition(fact.definition)
        bench.conversation.tell_definitions()
    _create(bench, work, body)


def _create(bench: Bench, work: Work, body: StartVm) -> None:
    order = work.order
    bench.desk.persist(RunBegan(order.uuid, order.name, order.epoch, body.run))
    work.step = Step.CREATING
    bench.call(work, Create(body.force_boot), CALL_TIMEOUT_START_S)


def _created(bench: Bench, work: Work, fact: CallReturned) -> None:
    desk, uuid = bench.desk, work.order.uuid
    desk.inventory.touch(uuid, desk.now)
    if fact.ok:
        if desk.inventory.state(uuid) in ALIVE:
            bench.done(work)
            return
        bench.look(work, Step.CONFIRMING)
        work.since_s = desk.now
        return
    work.code, work.message = fact.code or "CREATE_FAILED", fact.message
    work.tries = 0 if fact.code == CODE_UNKNOWN else 1
    bench.look(work, Step.LOOKING)


def advance(bench: Bench, work: Work) -> None:
    """Judge by the newest look."""
    desk, uuid = bench.desk, work.order.uuid
    if work.step is Step.CONFIRMING:
        overdue = desk.now >= work.since_s + CONFIRM_S_MAX
        if desk.inventory.state(uuid) is not QemuState.UNKNOWN and (bench.looked(work) or overdue):
            bench.done(work)
        else:
            bench.look_again(work)
    elif work.step is Step.LOOKING:
        _judge(bench, work)
    elif work.step is Step.BARRIER and work.call_id == 0:
        if desk.now >= work.due_s:
            bench.call(work, Undefine())
        else:
            desk.wake_at(work.due_s)


def _judge(bench: Bench, work: Work) -> None:
    desk, uuid = bench.desk, work.order.uuid
    state = desk.inventory.state(uuid)
    if not bench.looked(work):
        bench.look_again(work)
    elif state in ALIVE:
        _found_running(bench, work)
    elif not desk.inventory.is_gone(uuid, work.look_s):
        bench.look_again(work)
    elif work.tries == 0:
        work.step = Step.BARRIER
        desk.forbid(uuid)
        bench.call(work, Undefine())
    else:
        promise = desk.promise(uuid)
        if promise is not None and promise.standing is not Standing.RELEASED:
            desk.release(promise, EndReason.CRASHED, ran=False)
        bench.failed(work)


def _found_running(bench: Bench, work: Work) -> None:
    """The create succeeded after all, or (code says so) failed although a QEMU is here."""
    uuid = work.order.uuid
    definition = bench.desk.inventory.definitions.get(uuid)
    seen = bench.desk.inventory.seen.get(uuid)
    if seen is not None and not seen.vm.defined and definition is not None:
        work.step = Step.RESTORING
        bench.call(work, Define(definition.xml))
        return
    bench.done(work)
