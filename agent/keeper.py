"""The agent's protocol behaviour, pure: one fact in, effects out.

Read agent.keeper_types first (the words and the driver's contract), then:
agent.conversation (the session), agent.acceptance (what may begin), agent.works (what is in hand),
agent.arrivals (the target of a migration). Here: the dispatch, and the one rule that needs no
order: a run whose QEMU is gone is Released.
"""

from __future__ import annotations

from msgspec import structs

from agent.alone import Alone
from agent.conversation import Conversation, Phase
from agent.desk import Desk
from agent.guest_watch import GuestWatch
from agent.inventory import Ended
from agent.isolated import Isolated
from agent.keeper_types import (
    CallReturned,
    CheckMove,
    CheckXml,
    DefinitionRead,
    DomainChanged,
    DomainsListed,
    Effect,
    Fact,
    FactsRead,
    GuestProbed,
    KeeperSettings,
    LinkClosed,
    LinkOpened,
    LoadRead,
    LookAgainAt,
    MessageReceived,
    MigrationMoved,
    MoveLooked,
    PeerAnswered,
    PeerNoticeReceived,
    PictureGuest,
    PictureTaken,
    PidGone,
    Probe,
    ProbeReturned,
    RelayOffered,
    Stopping,
    Tick,
    XmlChecked,
)
from agent.memory import Memory
from agent.records import Standing
from agent.relaying import Relaying
from agent.works import Works
from fleet.messages import (
    BeatAnswer,
    Challenge,
    CheckArrival,
    CheckDefinition,
    CheckDeparture,
    DefinitionChecked,
    FromAggregator,
    GuestPictured,
    MigrateVm,
    MigrationProgress,
    OfferRelay,
    Order,
    ProbeReport,
    ProbeRequest,
    Refusal,
    TakePicture,
    Welcome,
)
from fleet.model import EndReason, Leadership, QemuState

PROGRESS_EVERY_S = 1.0


class Keeper:
    """Decides all an agent says and does.

    memory is what the ledger holds (`agent.memory.recall`); the keeper folds every record that
    it persists into it. After a crash build a new one from the records that were synced.
    """

    def __init__(self, settings: KeeperSettings, memory: Memory) -> None:
        self.settings = settings
        self.memory = memory
        self._desk = Desk(settings, memory)
        self._conversation = Conversation(self._desk)
        self._relaying = Relaying(self._desk, self._conversation)
        self._works = Works(self._desk, self._conversation)
        self._isolated = Isolated(self._desk, self._works)
        self._guests = GuestWatch(self._desk)
        self._alone = Alone(self._desk, self._conversation, self._works)
        self._recovered = False
        self._probing: set[str] = set()
        self._progress_s: dict[str, float] = {}

    def step(self, now: float, fact: Fact) -> list[Effect]:
        """Take one fact in; return what has to be done about it, in order."""
        desk = self._desk
        desk.now, desk.out, desk.wake_s = now, [], None
        if not self._recovered:
            self._recovered = True
            desk.raise_wall()
            desk.guard.begun(now)
            self._conversation.closed_s = now
            self._works.recover()
        self._take(fact)
        self._works.advance_all()
        self._isolated.advance()
        self._guests.advance()
        for uuid in list(desk.end_due_s):
            self._release_ended(uuid)
        self._conversation.advance()
        if desk.wake_s is not None:
            desk.out.append(LookAgainAt(max(desk.wake_s, now)))
        return desk.out

    @property
    def session_stands(self) -> bool:
        """Say whether the aggregator has welcomed us and knows what is here."""
        return self._conversation.phase is Phase.STANDING

    # --- quiet time

    @property
    def only_beats(self) -> bool:
        """Say whether nothing is in hand or awaited: until a fact comes, only beats are said."""
        desk, works = self._desk, self._works
        quiet = self._conversation.only_beats and not desk.calls and not desk.end_due_s
        return quiet and works.idle and self._guests.idle

    @property
    def beat_s(self) -> float:
        """Say when the next beat is due."""
        return self._conversation.beat_s

    @property
    def heartbeat_s(self) -> float:
        """Say how far apart beats are."""
        return self._conversation.heartbeat_s

    @property
    def beats(self) -> int:
        """Say how many beats the session has sent."""
        return self._conversation.beats

    def beats_passed(self, count: int, heard_s: float, leader: Leadership) -> list[Effect]:
        """Be as after so many more beats, the last one answered at heard_s, with nothing else since the last step."""
        self._desk.out = []
        self._conversation.beats_passed(count, heard_s, leader)
        return self._desk.out

    def _take(self, fact: Fact) -> None:
        match fact:
            case LinkOpened():
                self._conversation.opened(fact)
            case LinkClosed():
                self._conversation.closed(fact)
            case MessageReceived(link=link, message=message):
                if link == self._conversation.link:
                    self._hear(message)
            case CallReturned(call_id=call_id):
                call = self._desk.calls.pop(call_id, None)
                if call is not None:
                    self._desk.changed.add(call.uuid)
                    self._works.returned(call, fact)
            case Stopping(reason=reason):
                self._conversation.goodbye(reason)
            case Tick():
                pass
            case PeerNoticeReceived() | PeerAnswered() | ProbeReturned() | XmlChecked() | PictureTaken() | MoveLooked():
                self._take_answer(fact)
            case RelayOffered():
                self._relaying.offered(fact)
            case _:
                self._see(fact)

    def _take_answer(
        self, fact: PeerNoticeReceived | PeerAnswered | ProbeReturned | XmlChecked | PictureTaken | MoveLooked
    ) -> None:
        match fact:
            case PeerNoticeReceived():
                self._works.bench.arrivals.noticed(fact)
                self._desk.changed.add(fact.notice.uuid)
            case PeerAnswered():
                self._works.bench.tells.answered(fact)
            case ProbeReturned():
                self._probed(fact)
            case XmlChecked(check_id=check_id, ok=ok, message=message):
                self._conversation.send(DefinitionChecked(check_id, ok, message))
            case PictureTaken(request=request, uuid=uuid, png=png, message=message):
                promise = self._desk.promise(uuid)
                run = promise.run if promise is not None else 0
                self._conversation.send(GuestPictured(uuid, run, png, request, message))
            case MoveLooked(answer=answer):
                self._conversation.send(answer)

    def _see(self, fact: Fact) -> None:
        """Take in what the hypervisor and the node show."""
        inventory = self._desk.inventory
        match fact:
            case DomainsListed():
                for uuid in sorted(inventory.take_list(fact)):
                    self._changed(uuid)
                self._desk.changed.update(self._conversation.told_unknown)
                self._sweep()
            case DomainChanged(vm=vm, asked_s=asked_s):
                if inventory.take(vm, asked_s):
                    self._changed(vm.uuid)
            case DefinitionRead(definition=definition):
                inventory.take_definition(definition)
            case PidGone():
                self._pid_gone(fact)
            case MigrationMoved():
                self._moved(fact)
            case GuestProbed():
                self._guests.answered(fact)
            case LoadRead(load=load):
                self._conversation.load = load
            case FactsRead(facts=facts):
                self._conversation.facts = facts
            case _:
                raise AssertionError(f"nobody takes a {type(fact).__name__}")

    def _hear(self, message: FromAggregator) -> None:
        match message:
            case Welcome():
                self._conversation.welcomed(message)
            case BeatAnswer():
                self._conversation.answered(message)
            case Order():
                self._works.ordered(message)
            case ProbeRequest():
                self._probe(message)
            case OfferRelay():
                self._relaying.asked(message)
            case CheckDefinition(check_id=check_id, xml=xml):
                self._desk.out.append(CheckXml(check_id, xml))
            case TakePicture(request=request, uuid=uuid):
                self._desk.out.append(PictureGuest(request, uuid))
            case CheckArrival() | CheckDeparture():
                self._desk.out.append(CheckMove(message))
            case Refusal():
                self._conversation.refused(message)
            case Challenge():
                self._conversation.close("a challenge came in the middle of the talk")  # the link answers the first

    # --- what was seen

    def _changed(self, uuid: str) -> None:
        self._desk.changed.add(uuid)
        self._works.advance(uuid)
        self._release_ended(uuid)

    def _pid_gone(self, fact: PidGone) -> None:
        desk, uuid = self._desk, fact.uuid
        before, end = desk.state(uuid), fact.end
        if not end and before is QemuState.FINISHED and desk.in_hand(uuid, MigrateVm) is not None:
            end = EndReason.MIGRATED  # libvirt ends a finished source only to confirm the hand-over
        if not desk.inventory.take_gone(uuid, fact.qemu, Ended(end, fact.reason), desk.now):
            return
        desk.note("qemu gone", uuid, f"{before} {end} {fact.reason}".rstrip())
        if not end:
            desk.end_due_s[uuid] = desk.now + self.settings.end_wait_s_max
        promise = desk.promise(uuid)
        if promise is not None and promise.standing is Standing.PERMITTED and promise.receive is not None:
            self._works.advance(uuid)
            promise = desk.promise(uuid)
            if promise is not None and promise.standing is Standing.PERMITTED:
                desk.release(promise, end, ran=False)
        self._works.bench.arrivals.ended(uuid)
        self._changed(uuid)

    def _release_ended(self, uuid: str) -> None:
        """Persist Released for a run whose QEMU is gone and that no order in hand speaks for."""
        desk = self._desk
        promise = desk.promise(uuid)
        if promise is None or promise.standing is Standing.RELEASED or self._works.stops(uuid):
            return
        if not desk.inventory.is_gone(uuid) or not desk.end_settled(uuid):
            return
        if promise.standing is Standing.PERMITTED and promise.receive is not None:
            return  # the copy may yet come
        seen = desk.inventory.seen.get(uuid)
        end = (seen.vm.end if seen is not None else EndReason.NOT_ENDED) or EndReason.CRASHED
        if self._alone.starts_again(promise, end):
            return
        desk.release(promise, end, ran=promise.ran)
        self._works.bench.arrivals.ended(uuid)

    def _sweep(self) -> None:
        """After a list: release what is gone, forget what is neither here nor promised."""
        desk = self._desk
        for uuid in sorted(desk.memory.promises):
            self._release_ended(uuid)
        for uuid, seen in sorted(desk.inventory.seen.items()):
            idle = seen.vm.state is QemuState.GONE and not seen.vm.defined
            if idle and uuid not in desk.memory.promises and uuid not in desk.changed:
                desk.inventory.forget(uuid)

    def _moved(self, fact: MigrationMoved) -> None:
        order = self._desk.in_hand(fact.uuid, MigrateVm)
        downtime_ms = self._works.moved(fact)
        last_s = self._progress_s.get(fact.uuid, float("-inf"))
        if order is None or self._desk.now < last_s + PROGRESS_EVERY_S:
            return
        self._progress_s = {fact.uuid: self._desk.now} | {
            uuid: at_s for uuid, at_s in self._progress_s.items() if uuid != fact.uuid and at_s > self._desk.now - 60
        }
        far = {name: value for name, value in structs.asdict(fact).items() if name != "uuid"}
        self._conversation.send(MigrationProgress(fact.uuid, order.order_id, **far, downtime_ms=downtime_ms))

    # --- probes

    def _probe(self, request: ProbeRequest) -> None:
        if len(self._probing) < self.settings.probes_in_flight_max:
            self._probing.add(request.probe_id)
            self._desk.out.append(Probe(request.probe_id, request.target, request.addresses))

    def _probed(self, fact: ProbeReturned) -> None:
        self._probing.discard(fact.probe_id)
        session = self._conversation.session
        if session is not None and self.session_stands:
            ago_s = max(0.0, self._desk.now - fact.asked_s)
            results = tuple(structs.replace(result, asked_ago_s=ago_s) for result in fact.results)
            self._conversation.send(ProbeReport(session, fact.probe_id, fact.target, results))
