"""Migration as its source sees it: call migrate, wait for the pid, persist Released, tell the peer. Pure.

The trigger of the hand-over is the end of the source's QEMU (PidGone), never the return of the
migrate call, which comes more than a second later. A call that failed is an answer only together
with a look from after its return: RUNNING means that the guest goes on here, FINISHED that libvirt
has not decided yet, GONE that it was handed over although the reply was lost.
"""

from __future__ import annotations

from agent.course import Course
from agent.keeper_types import AbortJob, CallReturned, Migrate, MigrationMoved, SetDowntime
from agent.records import Standing
from agent.work import Bench, Step, Work
from fleet.messages import MigrateVm, ReleasedNotice
from fleet.model import EndReason, QemuState

ABORT_AGAIN_S = 30.0
CALL_SLACK_S = 90.0  # the call outlives the migration's own time-out by libvirt's keepalive and the abort
GIVEN_UP = ("TIMED_OUT", "NO_PROGRESS")  # we aborted it, so libvirt's own words say nothing new
ENCRYPTED = ("qemu+tls://", "qemu://", "qemu+ssh://")
ALIVE = (QemuState.RUNNING, QemuState.PAUSED)


def begin(bench: Bench, work: Work, body: MigrateVm) -> None:
    """Begin the job; over TLS or not at all, where that is set."""
    settings = bench.desk.settings
    if settings.migration_tls and not body.peer_uri.startswith(ENCRYPTED):
        bench.failed(work, "NOT_ENCRYPTED", f"{body.target} names {body.peer_uri} for its libvirt, without TLS")
        return
    work.step = Step.MOVING
    work.since_s = bench.desk.now
    work.due_s = bench.desk.now + body.timeout_s
    work.course = Course(bench.desk.now, body.downtime_ms_max)
    deed = Migrate(
        body.peer_uri,
        body.migration_address,
        body.bandwidth_bytes_per_s,
        work.course.downtime_ms,
        body.auto_converge,
        body.parallel_connections,
        tls=settings.migration_tls,
        tls_name=body.target if settings.migration_tls_by_name else "",
    )
    bench.call(work, deed, body.timeout_s + CALL_SLACK_S)


def recover(bench: Bench, work: Work) -> None:
    """Take up a migration that the agent was killed in: libvirt carries the job on without us."""
    work.code, work.message = "INTERRUPTED", "the agent was restarted during the migration"
    work.step, work.look_s = Step.LOOKING, bench.desk.now


def returned(bench: Bench, work: Work, fact: CallReturned) -> None:
    """Take the end of the migrate call (the abort's own return says nothing)."""
    if fact.ok:
        work.code, work.message = "RESULT_UNKNOWN", "libvirt called the migration complete and the VM is still here"
    elif work.code not in GIVEN_UP:
        work.code, work.message = fact.code or "MIGRATION_FAILED", fact.message
    if work.step is not Step.ENDED:
        bench.look(work, Step.LOOKING)


def moved(bench: Bench, work: Work, fact: MigrationMoved) -> int:
    """Take in how far it is: allow a longer pause, or give up; return the pause allowed by now, in ms."""
    body, course, desk = work.order.body, work.course, bench.desk
    if course is None or not isinstance(body, MigrateVm) or work.step is not Step.MOVING:
        return 0
    if course.moved(desk.now, fact):
        desk.note("migration stalls", fact.uuid, f"a pause of {course.downtime_ms} ms is allowed now")
        desk.call(fact.uuid, SetDowntime(course.downtime_ms))
    if work.code not in GIVEN_UP and course.stands_still_s(desk.now) >= body.progress_timeout_s:
        work.code, work.message = "NO_PROGRESS", f"no progress for {body.progress_timeout_s:g} s{_why(work)}"
        _abort(bench, work)
    return course.downtime_ms


def _why(work: Work) -> str:
    return f": {why}" if work.course is not None and (why := work.course.words()) else ""


def _abort(bench: Bench, work: Work) -> None:
    """Abort the job; the call may hang like any other, so it is made anew until the job is seen to have ended."""
    desk, uuid = bench.desk, work.order.uuid
    desk.note("migration aborted", uuid, work.message, warning=True)
    desk.call(uuid, AbortJob(), timeout_s=ABORT_AGAIN_S)
    work.due_s = desk.now + ABORT_AGAIN_S


def advance(bench: Bench, work: Work) -> None:
    """Hand over when the QEMU is gone; fail when a look shows that it goes on here."""
    desk, uuid = bench.desk, work.order.uuid
    body = work.order.body
    if not isinstance(body, MigrateVm):
        return
    if desk.inventory.is_gone(uuid) and desk.end_settled(uuid):
        _gone(bench, work, body)
    elif work.step is Step.MOVING:
        if desk.now >= work.due_s:
            if work.code not in GIVEN_UP:
                work.code, work.message = "TIMED_OUT", f"not complete after {body.timeout_s:g} s{_why(work)}"
            _abort(bench, work)
        desk.wake_at(work.due_s)
    elif work.step is Step.LOOKING:
        seen = desk.inventory.seen.get(uuid)
        decided = desk.state(uuid) in ALIVE and seen is not None and not seen.vm.busy
        if bench.looked(work) and decided:
            bench.failed(work)
        else:
            bench.look_again(work)


def _gone(bench: Bench, work: Work, body: MigrateVm) -> None:
    """The source's QEMU is gone: why decides whether this is a hand-over."""
    desk, order = bench.desk, work.order
    seen = desk.inventory.seen.get(order.uuid)
    end = seen.vm.end if seen is not None else EndReason.NOT_ENDED
    if end is EndReason.NOT_ENDED and (seen is None or not seen.vm.defined):
        end = EndReason.MIGRATED  # libvirt removed the definition, which only a completed migration does
    promise = desk.promise(order.uuid)
    if promise is not None and promise.standing is not Standing.RELEASED:
        desk.release(promise, end or EndReason.CRASHED, ran=True)
    if end is EndReason.MIGRATED:
        # Only then: a source that crashed may have run on after the copy was complete.
        bench.tells.tell(body, _notice(bench, work, body))
        bench.done(work)
    else:
        bench.failed(work, "ENDED", f"the VM ended during its migration: {end or EndReason.CRASHED}")


def _notice(bench: Bench, work: Work, body: MigrateVm) -> ReleasedNotice:
    return ReleasedNotice(
        uuid=work.order.uuid,
        migration=body.migration,
        source=bench.desk.settings.node,
        source_epoch=work.order.epoch,
        target_epoch=body.target_epoch,
        handover_secret=body.handover_secret,
        leader=work.order.leader,
    )
