"""A rescue as its target sees it: move the VM here through the source's libvirtd, and read there how it ended. Pure.

The agent at the source is gone, so nobody there tells that the QEMU is: as soon as the copy here is complete
the source's libvirtd is asked, again and again. "Shut off (migrated)" is its Released: that QEMU is gone, and
nobody starts it again, since its agent acts alone only under a fresh lease. Then the copy is resumed.
"""

from __future__ import annotations

from agent.deeds import AWAY_ALIVE, AWAY_GONE, AWAY_MIGRATED, CODE_NOT_FOUND
from agent.desk import CallInFlight
from agent.keeper_types import AbortJob, AskState, CallReturned, Elsewhere, Migrate, NoticeTaken, Undefine
from agent.records import Standing
from agent.work import Bench, Step, Work
from agent.work_migrate import ABORT_AGAIN_S, CALL_SLACK_S, ENCRYPTED
from fleet.messages import RescueVm
from fleet.model import QemuState

ASK_EVERY_S = 0.2
LOOK_EVERY_S = 1.0
LOOK_S_MAX = 300.0  # how long a source's libvirtd is asked for an answer after the call has ended
ARRIVED = (QemuState.ARRIVED, QemuState.PAUSED)


def begin(bench: Bench, work: Work, body: RescueVm) -> None:
    """Begin the job at the source; over TLS or not at all, where that is set."""
    settings, desk = bench.desk.settings, bench.desk
    if settings.migration_tls and not body.peer_uri.startswith(ENCRYPTED):
        bench.failed(work, "NOT_ENCRYPTED", f"this node names {body.peer_uri} for its libvirt, without TLS")
        return
    work.step, work.since_s = Step.MOVING, desk.now
    work.due_s = desk.now + body.timeout_s
    work.again_s = desk.now
    deed = Migrate(
        body.peer_uri,
        body.migration_address,
        body.bandwidth_bytes_per_s,
        body.downtime_ms_max,
        body.auto_converge,
        body.parallel_connections,
        tls=settings.migration_tls,
        tls_name=settings.node if settings.migration_tls_by_name else "",
        keep_definition=True,
    )
    bench.call(work, there(body, deed), body.timeout_s + CALL_SLACK_S)


def there(body: RescueVm, deed: Migrate | AbortJob | AskState | Undefine) -> Elsewhere:
    """Return the deed as it is done through the source's libvirtd."""
    return Elsewhere(body.source_uri, body.source_host_uuid, deed)


def recover(bench: Bench, work: Work) -> None:
    """Take up a rescue that the agent was killed in: the source's libvirtd carries it on without us."""
    work.code, work.message = "INTERRUPTED", "the agent was restarted during the rescue"
    _look(bench, work)


def _look(bench: Bench, work: Work) -> None:
    work.step, work.again_s = Step.LOOKING, bench.desk.now
    work.due_s = bench.desk.now + LOOK_S_MAX


def returned(bench: Bench, work: Work, call: CallInFlight, fact: CallReturned) -> None:
    """Take the end of the migrate call, or the source's answer."""
    deed = call.deed.deed if isinstance(call.deed, Elsewhere) else None
    if isinstance(deed, Migrate):
        if fact.ok:
            work.code, work.message = "RESULT_UNKNOWN", "libvirt called the migration complete, and it is not"
        elif work.code != "TIMED_OUT":
            work.code, work.message = fact.code or "MIGRATION_FAILED", fact.message
        _look(bench, work)
    elif isinstance(deed, AskState):
        work.ask_id = 0
        _answered(bench, work, fact.code)


def _answered(bench: Bench, work: Work, code: str) -> None:
    body, uuid = work.order.body, work.order.uuid
    if not isinstance(body, RescueVm) or work.step is Step.ENDED:
        return
    if code == AWAY_MIGRATED and bench.desk.state(uuid) in ARRIVED:
        _handed_over(bench, work, body)
    elif work.step is not Step.LOOKING:
        return
    elif code == AWAY_ALIVE:
        bench.failed(work)
    elif code in (AWAY_GONE, CODE_NOT_FOUND) or (code == AWAY_MIGRATED and bench.desk.inventory.is_gone(uuid)):
        bench.failed(work, "SOURCE_GONE", f"it has ended on {body.source}, and no complete copy is here")


def _handed_over(bench: Bench, work: Work, body: RescueVm) -> None:
    desk, uuid = bench.desk, work.order.uuid
    promise = desk.promise(uuid)
    if promise is None or promise.receive is None or promise.standing is not Standing.PERMITTED:
        bench.failed(work, "NO_PERMIT", "this node holds no permit for the copy any more")
        return
    desk.persist(NoticeTaken(uuid, body.migration))
    desk.note("source released", uuid, f"read through the libvirtd of {body.source}")
    bench.arrivals.advance(uuid)
    bench.done(work)
    desk.call(uuid, there(body, Undefine()))  # that of a run that is over; its agent would find it otherwise


def advance(bench: Bench, work: Work) -> None:
    """Ask the source while the copy waits; give up when its time is over."""
    desk, uuid, body = bench.desk, work.order.uuid, work.order.body
    if not isinstance(body, RescueVm):
        return
    promise = desk.promise(uuid)
    if promise is None or promise.standing is Standing.RELEASED:
        bench.failed(work, work.code or "GONE", work.message or "the copy is gone")
        return
    if work.step is Step.MOVING and desk.now >= work.due_s:
        work.code, work.message = "TIMED_OUT", f"not complete after {body.timeout_s:g} s"
        desk.note("rescue aborted", uuid, work.message, warning=True)
        desk.call(uuid, there(body, AbortJob()), timeout_s=ABORT_AGAIN_S)
        work.due_s = desk.now + ABORT_AGAIN_S
    elif work.step is Step.LOOKING and desk.now >= work.due_s:
        bench.failed(work, "UNKNOWN", f"the libvirtd of {body.source} has not said for {LOOK_S_MAX:g} s how it ended")
        return
    asks = work.step is Step.LOOKING or desk.state(uuid) in ARRIVED
    if asks and work.ask_id == 0:
        if desk.now >= work.again_s:
            work.ask_id = desk.call(uuid, there(body, AskState()), work.order.order_id)
            work.again_s = desk.now + (ASK_EVERY_S if work.step is Step.MOVING else LOOK_EVERY_S)
        else:
            desk.wake_at(work.again_s)
    desk.wake_at(work.due_s)
