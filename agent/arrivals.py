"""The target's side of a migration: the permit, the source's notice, the resume. Pure.

A copy is resumed only when its source is Released: by the source's own notice with the right
secret and epochs, or by the order ResumeVm; never on libvirt's word. The notice may come before
the copy is complete: it is persisted and the resume follows the arrival. RunBegan is persisted
before the resume is called, since from then on the copy may have run.
"""

from __future__ import annotations

from msgspec import Struct

from agent.desk import Desk
from agent.keeper_types import AnswerPeer, CallReturned, NoticeTaken, PeerNoticeReceived, Resume, RunBegan
from agent.records import Promise, Standing
from fleet.messages import ReleasedNotice, ReleasedReceipt, ResumeVm
from fleet.model import QemuState

SECRET_BYTES_MIN = 8


class Resuming(Struct):
    """A resume under way. due_s: monotonic time of the next try."""

    call_id: int
    tries: int
    due_s: float


class Arrivals:
    """All copies that wait or are being resumed, by VM."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._resuming: dict[str, Resuming] = {}

    def noticed(self, fact: PeerNoticeReceived) -> None:
        """Judge a notice, persist it if it is good, answer it."""
        notice = fact.notice
        refusal = self._judge(notice)
        promise = self.desk.promise(notice.uuid)
        if not refusal and promise is not None and promise.receive is not None and not promise.notice_taken:
            self.desk.persist(NoticeTaken(notice.uuid, notice.migration))
            self.desk.note("source released", notice.uuid, f"told by {notice.source}")
        if refusal:
            self.desk.note("hand-over refused", notice.uuid, refusal, warning=True)
        receipt = ReleasedReceipt(notice.uuid, not refusal, self.desk.state(notice.uuid), refusal)
        self.advance(notice.uuid)
        self.desk.out.append(AnswerPeer(fact.request, receipt))

    def _judge(self, notice: ReleasedNotice) -> str:
        """Return why the notice is not taken; empty: it is."""
        promise = self.desk.promise(notice.uuid)
        if self.desk.quarantined:
            return "this node has lost its ledger"
        if promise is None or promise.epoch != notice.target_epoch:
            return f"this node holds no copy at epoch {notice.target_epoch}"
        receive = promise.receive
        if receive is None:
            return "" if promise.standing is Standing.RUNS else "this node holds no permit for that copy"
        known = (receive.migration, receive.source, receive.source_epoch)
        if known != (notice.migration, notice.source, notice.source_epoch):
            return "the permit here names another migration, source or epoch"
        if not same_secret(receive.handover_secret, notice.handover_secret):
            return "the secret of the hand-over is wrong"
        return ""

    def wanted(self, promise: Promise) -> bool:
        """Say whether the copy shall run: the source is Released, by its notice or by order."""
        ordered = self.desk.in_hand(promise.uuid, ResumeVm)
        return promise.notice_taken or (ordered is not None and ordered.epoch == promise.epoch)

    def advance(self, uuid: str) -> None:
        """Resume a copy that arrived and whose source is Released; try again what failed."""
        desk, promise = self.desk, self.desk.promise(uuid)
        if promise is None or promise.receive is None or not self.wanted(promise):
            return
        state, resuming = desk.state(uuid), self._resuming.get(uuid)
        if promise.standing is Standing.RUNS and state is QemuState.RUNNING:
            self._confirm(promise)
        elif state not in (QemuState.ARRIVED, QemuState.PAUSED):
            return
        elif resuming is None:
            if promise.standing is Standing.PERMITTED:
                desk.persist(RunBegan(uuid, promise.name, promise.epoch, promise.run))
            self._resuming[uuid] = Resuming(desk.call(uuid, Resume()), 1, 0.0)
        elif resuming.call_id == 0 and resuming.tries < desk.settings.resume_tries_max:
            if desk.now >= resuming.due_s:
                self._resuming[uuid] = Resuming(desk.call(uuid, Resume()), resuming.tries + 1, 0.0)
            else:
                desk.wake_at(resuming.due_s)

    def renew(self, uuid: str) -> None:
        """Let a new order try again what was given up."""
        if self.gave_up(uuid):
            del self._resuming[uuid]

    def returned(self, uuid: str, fact: CallReturned) -> bool:
        """Take the end of a resume; False if it is none of ours."""
        resuming, promise = self._resuming.get(uuid), self.desk.promise(uuid)
        if resuming is None or resuming.call_id != fact.call_id:
            return False
        resuming.call_id = 0
        resuming.due_s = self.desk.now + self.desk.settings.resume_again_after_s
        if fact.ok and promise is not None:
            self._confirm(promise)
            self.desk.look()
        else:
            self.desk.note("resume failed", uuid, f"{fact.code} {fact.message}", warning=True)
        return True

    def uuids(self) -> list[str]:
        """Return the VMs whose resume is under way."""
        return list(self._resuming)

    def gave_up(self, uuid: str) -> bool:
        """Say whether every try to resume the copy has failed."""
        resuming = self._resuming.get(uuid)
        return resuming is not None and resuming.call_id == 0 and resuming.tries >= self.desk.settings.resume_tries_max

    def ended(self, uuid: str) -> None:
        """Forget a copy that is gone."""
        self._resuming.pop(uuid, None)

    def _confirm(self, promise: Promise) -> None:
        self._resuming.pop(promise.uuid, None)
        if promise.receive is not None and promise.standing is Standing.RUNS:
            self.desk.persist(RunBegan(promise.uuid, promise.name, promise.epoch, promise.run, confirmed=True))
            self.desk.note("copy resumed", promise.uuid, f"epoch {promise.epoch} run {promise.run}")
            self.desk.changed.add(promise.uuid)


def same_secret(one: str, other: str) -> bool:
    """Compare two secrets in a time that does not tell where they differ; short ones never match."""
    if len(one) < SECRET_BYTES_MIN or len(one) != len(other):
        return False
    difference = 0
    for a, b in zip(one, other, strict=True):
        difference |= ord(a) ^ ord(b)
    return difference == 0
