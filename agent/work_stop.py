"""Ending a VM: shutdown with grace then destroy, destroy, discarding a copy that never ran. Pure.

All three end the same way: the QEMU is proven gone, Released is persisted, then reported. What a
call returned is never believed (a destroy has been seen to fail although the guest died).
"""

from __future__ import annotations

from msgspec import structs

from agent.deeds import PICTURE_S_MAX, Screenshot
from agent.keeper_types import CODE_NOT_PAUSED, CODE_NOT_RUNNING, AskShutdown, CallReturned, Destroy, DestroyIncoming
from agent.records import Promise, Standing
from agent.work import Bench, Step, Work
from fleet.messages import DestroyVm, DiscardIncoming, GuestPictured, OrderBody, ShutdownVm, StartVm
from fleet.model import EndReason, QemuState

DESTROY_TIMEOUT_S = 40.0  # GRACEFUL destroys of a frozen QEMU were measured at 25 s


def begin(bench: Bench, work: Work) -> None:
    """Look whether there is anything to end, else begin ending it."""
    desk, uuid = bench.desk, work.order.uuid
    work.since_s = desk.now
    if desk.in_hand(uuid, StartVm) is not None:
        work.step = Step.DESTROYING
        if desk.create_in_flight(uuid):
            _destroy(bench, work)
    elif desk.inventory.is_gone(uuid) and _is_released(bench, work):
        bench.done(work)
    elif desk.state(uuid) is QemuState.GONE:
        bench.look(work, Step.LOOKING)
    elif isinstance(work.order.body, DestroyVm) and work.order.body.picture and not work.tries:
        work.step = Step.PICTURING
        bench.call(work, Screenshot(), PICTURE_S_MAX)
    elif isinstance(work.order.body, ShutdownVm):
        work.step = Step.ASKED
        work.due_s = desk.now + work.order.body.grace_s
        bench.call(work, AskShutdown())
    else:
        _destroy(bench, work)


def _is_released(bench: Bench, work: Work) -> bool:
    order, promise = work.order, bench.desk.promise(work.order.uuid)
    if promise is None or promise.standing is not Standing.RELEASED:
        return False
    return (promise.epoch, promise.run) >= (order.epoch, _run_of(order.body, promise.run))


def recover(bench: Bench, work: Work) -> None:
    """Take up an ending that the agent was killed in; a grace begins anew."""
    work.step, work.look_s = Step.LOOKING, bench.desk.now


def returned(bench: Bench, work: Work, fact: CallReturned) -> None:
    """Take the end of the call in flight; only a look or the pid says whether the VM is gone."""
    desk = bench.desk
    if work.step is Step.PICTURING:
        _pictured(bench, work, fact)
        return
    if not fact.ok:
        work.code, work.message = fact.code, fact.message
        desk.note("call failed", work.order.uuid, f"{fact.code} {fact.message}", warning=True)
    if fact.code == CODE_NOT_PAUSED:
        bench.failed(work, "HAS_RUN")
        return
    if work.step is Step.DESTROYING:
        work.due_s = desk.now + desk.settings.destroy_again_after_s
        desk.look()
    elif work.step is Step.ASKED:
        work.again_s = desk.now + desk.settings.ask_again_after_s
        if fact.code == CODE_NOT_RUNNING:
            desk.look()


def _pictured(bench: Bench, work: Work, fact: CallReturned) -> None:
    """Tell what the screen showed, or why nobody knows, and end the guest either way."""
    uuid = work.order.uuid
    bench.conversation.send(GuestPictured(uuid, _run_of(work.order.body, 0), fact.picture, message=fact.message))
    if bench.desk.state(uuid) is QemuState.GONE:
        bench.look(work, Step.LOOKING)
    else:
        _destroy(bench, work)


def advance(bench: Bench, work: Work) -> None:
    """End when the QEMU is gone; else go on by the clock. A start in hand is waited for."""
    desk, uuid = bench.desk, work.order.uuid
    if desk.in_hand(uuid, StartVm) is not None:
        return
    if desk.inventory.is_gone(uuid, work.look_s):
        _gone(bench, work)
    elif work.step is Step.LOOKING:
        if bench.looked(work) and desk.state(uuid) is not QemuState.GONE:
            work.look_s = 0.0
            begin(bench, work)
        else:
            bench.look_again(work)
    elif work.step is Step.ASKED:
        _wait_for_guest(bench, work)
    elif work.step is Step.DESTROYING and work.call_id == 0:
        _destroy_again(bench, work)


def _wait_for_guest(bench: Bench, work: Work) -> None:
    desk = bench.desk
    if desk.now >= work.due_s:
        desk.note("grace is over", work.order.uuid, "the guest did not power off")
        _destroy(bench, work)
        return
    if desk.now >= work.again_s and work.call_id == 0:
        work.again_s = float("inf")
        bench.call(work, AskShutdown())
    desk.wake_at(min(work.due_s, work.again_s))


def _destroy_again(bench: Bench, work: Work) -> None:
    desk = bench.desk
    if work.tries and desk.now < work.due_s:
        desk.wake_at(work.due_s)
    elif work.tries >= desk.settings.destroy_tries_max:
        text = f"the QEMU is still there after {work.tries} tries: {work.message}"
        bench.failed(work, "STILL_THERE", text.rstrip(": "))
    else:
        _destroy(bench, work)


def _destroy(bench: Bench, work: Work) -> None:
    work.step = Step.DESTROYING
    work.tries += 1
    deed = DestroyIncoming() if isinstance(work.order.body, DiscardIncoming) else Destroy()
    bench.call(work, deed, DESTROY_TIMEOUT_S)


def _gone(bench: Bench, work: Work) -> None:
    """Persist Released at the order's epoch and run, or the higher ones this node knows."""
    desk, order = bench.desk, work.order
    if not _is_released(bench, work):
        promise = desk.promise(order.uuid)
        known = promise or Promise(order.uuid, order.name, order.epoch, 0, Standing.PERMITTED)
        run = _run_of(order.body, known.run)
        newest = max((known.epoch, known.run), (order.epoch, run))
        ordered = order.body.end if isinstance(order.body, (ShutdownVm, DestroyVm)) else EndReason.ORDERED
        end = EndReason.NOT_ENDED if known.standing is Standing.PERMITTED else ordered
        known = structs.replace(known, epoch=newest[0], run=newest[1])
        desk.release(known, end, ran=known.ran)
    bench.done(work)


def _run_of(body: OrderBody, known: int) -> int:
    """Return the run an ending closes: the order's, or for a copy the one this node knows."""
    return body.run if isinstance(body, (ShutdownVm, DestroyVm)) else known
