"""The talk with the aggregator: hello, welcome, full state, deltas, beats. Pure.

Knows when a session stands and what the other side was told last. Opening a session is a promise
(safety.md, Sessions): the number is persisted before it is named, and orders of older sessions
are refused from that moment (agent.acceptance). Knows nothing of what orders do.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import structs

from agent.desk import Desk, describe_in_hand
from agent.keeper_types import (
    CloseLink,
    LeadershipSeen,
    LinkClosed,
    LinkOpened,
    RunBegan,
    Send,
    SessionOpened,
)
from agent.kept import tell_kept
from agent.records import MembersTold
from fleet.messages import (
    PROTOCOL_MAX,
    PROTOCOL_MIN,
    Assignment,
    Beat,
    BeatAnswer,
    Delta,
    FromAgent,
    FullState,
    Goodbye,
    Hello,
    OrderReport,
    Refusal,
    Welcome,
)
from fleet.model import (
    Definition,
    Leadership,
    LedgerState,
    NodeFacts,
    NodeLoad,
    OrderOutcome,
    QemuState,
    SessionKey,
    VmReport,
)


class Phase(StrEnum):
    """How far the talk on the present link has come."""

    CLOSED = "Closed"
    GREETED = "Greeted"  # hello sent
    WELCOMED = "Welcomed"  # welcome received, a fresh list is awaited
    STANDING = "Standing"  # full state sent


class Conversation:
    """One talk at a time; a new link ends the old one."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.phase = Phase.CLOSED
        self.link = 0
        self.session: SessionKey | None = None
        self.facts: NodeFacts = desk.settings.facts
        self.load: NodeLoad | None = None
        self.assignments: dict[str, Assignment] = {}
        self.heartbeat_s = 1.0
        self.closed_s = 0.0  # since when there has been no link of our own
        self._since_s = 0.0
        self._generation = 0
        self._told_complete = False
        self.beats = 0  # of this session, sent so far
        self._answered = 0
        self._heard_s = 0.0
        self.beat_s = 0.0  # when the next one is due
        self._told: dict[str, VmReport] = {}
        self._definitions_told: dict[str, Definition] = {}  # without their XML
        self._facts_told: NodeFacts | None = None
        self._asked_what_is_kept = False

    # --- the link

    def opened(self, fact: LinkOpened) -> None:
        """Open a new session: the number first, then the hello, then a fresh look at everything."""
        desk, settings = self.desk, self.desk.settings
        number = desk.memory.session.number + 1 if desk.memory.session else 1
        self.session = SessionKey(settings.boot_id, settings.agent_start, number)
        self.link, self.phase, self._since_s = fact.link, Phase.GREETED, desk.now
        desk.via = fact.via
        desk.persist(SessionOpened(self.session))
        desk.guard.session_opened(direct=not fact.via)
        ledger = LedgerState.LOST if desk.quarantined else settings.ledger
        self._facts_told = self.facts
        self.send(
            Hello(
                protocol_min=PROTOCOL_MIN,
                protocol_max=PROTOCOL_MAX,
                node=settings.node,
                session=self.session,
                facts=self.facts,
                ledger=ledger,
                highest=desk.memory.highest,
            )
        )
        desk.look()

    def closed(self, fact: LinkClosed) -> None:
        """Remember that nobody listens; what is in hand goes on."""
        if fact.link == self.link and self.phase is not Phase.CLOSED:
            self._is_over()
            self.desk.note("link closed")

    def close(self, reason: str, wait_s: float = 0.0) -> None:
        """End the present link."""
        self.desk.out.append(CloseLink(self.link, reason, wait_s))
        self._is_over()
        self.desk.note("link given up", detail=reason, warning=True)

    def _is_over(self) -> None:
        self.phase = Phase.CLOSED
        if not self.desk.via:
            self.closed_s = self.desk.now
        self.desk.via = ""

    def silent_for_s(self) -> float:
        """Return for how long a standing session's beats have not been answered; 0 if none stands."""
        return self.desk.now - self._heard_s if self.phase is Phase.STANDING else 0.0

    @property
    def only_beats(self) -> bool:
        """Whether all is told and every beat was answered: until something happens only beats are said."""
        all_told = self.phase is Phase.STANDING and self._told_complete and not self.desk.via
        return all_told and 0 < self.beats == self._answered

    def beats_passed(self, count: int, heard_s: float, leader: Leadership) -> None:
        """Be as after so many more beats between which nothing happened, the last one answered at heard_s."""
        self.beats += count
        self._answered = self.beats
        self._heard_s = heard_s
        self.beat_s += count * self.heartbeat_s
        self.desk.guard.lease.beat_sent(self.beats, self.beat_s - self.heartbeat_s)
        self.desk.guard.lease.beat_answered(self.beats)
        self.learn(leader)

    def send(self, message: FromAgent) -> None:
        """Send on the present link, if there is one."""
        if self.phase is not Phase.CLOSED:
            self.desk.out.append(Send(self.link, message))

    # --- what the aggregator says

    def welcomed(self, welcome: Welcome) -> None:
        """Take the welcome of our hello; the session stands once a fresh list was sent."""
        if self.phase is not Phase.GREETED:
            return
        if welcome.session != self.session:
            self.close("the welcome names another session")
            return
        if not PROTOCOL_MIN <= welcome.protocol <= PROTOCOL_MAX:
            self.close(f"the aggregator speaks protocol {welcome.protocol}", wait_s=5.0)
            return
        self.learn(welcome.leader)
        self.phase = Phase.WELCOMED
        self.heartbeat_s = max(0.05, welcome.heartbeat_s)
        self.assignments = {a.uuid: a for a in welcome.assignments}
        self._asked_what_is_kept = welcome.rebuild
        self._learn_members(welcome.members)
        self.desk.note("welcomed", detail=f"term {welcome.leader.term}")

    def learn(self, leader: Leadership) -> bool:
        """Persist a leadership if it is higher than any seen; False if it is an older or a second one."""
        highest = self.desk.memory.highest
        if highest is None or (leader.term, leader.position) > (highest.term, highest.position):
            if highest is not None and leader.term == highest.term and leader.instance != highest.instance:
                return False
            self.desk.persist(LeadershipSeen(leader))
            return True
        if leader.proof != highest.proof and leader == structs.replace(highest, proof=leader.proof):
            self.desk.persist(LeadershipSeen(leader))  # the authority was rotated: the old proof is none soon
        return leader.term == highest.term and leader.instance == highest.instance

    def _learn_members(self, members: tuple[str, ...]) -> None:
        if members and members != self.desk.memory.members:
            self.desk.persist(MembersTold(members))

    def answered(self, answer: BeatAnswer) -> None:
        """Count an answered beat."""
        if self.phase is not Phase.STANDING or answer.sequence > self.beats:
            return
        if self.learn(answer.leader):
            self._answered = max(self._answered, answer.sequence)
            self.desk.guard.lease.beat_answered(answer.sequence)
            self._heard_s = self.desk.now
            self._learn_members(answer.members)

    def refused(self, refusal: Refusal) -> None:
        """The aggregator does not want us: say why, try again later."""
        self.desk.note("refused by the aggregator", detail=f"{refusal.code}: {refusal.message}", warning=True)
        self.close(f"refused: {refusal.code}", wait_s=3.0)

    # --- what we say

    def goodbye(self, reason: str) -> None:
        """Say that the agent stops on purpose."""
        if self.phase is Phase.STANDING and self.session is not None:
            self.send(Goodbye(self.session, reason))

    def tell_order(self, order_id: str, uuid: str, epoch: int, outcome: OrderOutcome, why: tuple[str, str]) -> None:
        """Report an order's outcome, with what is true of its VM now. why: code and message."""
        if self.session is None:
            return
        vm = self.desk.report(uuid)
        if vm.state is QemuState.UNKNOWN:
            self._told[uuid] = vm
        self.send(OrderReport(self.session, order_id, uuid, epoch, outcome, why[0], why[1], vm))

    def advance(self) -> None:
        """Send what is due: full state, delta, beat; give up a link that does not answer."""
        desk, settings = self.desk, self.desk.settings
        if self.phase is Phase.GREETED:
            self._give_up_after(self._since_s + settings.welcome_wait_s_max, "no welcome")
        elif self.phase is Phase.WELCOMED:
            due_s = self._since_s + settings.first_list_wait_s_max
            if self._whole or desk.now >= due_s:
                self.beats = self._answered = 0
                self._tell_everything(complete=self._whole)
            else:
                desk.wake_at(due_s)
        elif self.phase is Phase.STANDING and self._whole and not self._told_complete:
            self._tell_everything(complete=True)  # libvirt was silent when the session began
        if self.phase is Phase.STANDING:
            self._tell_changes()
            self._beat()
            relayed_s = settings.relayed_silence_beats_max * self.heartbeat_s
            limit_s = relayed_s if desk.via else settings.answer_silence_s_max
            self._give_up_after(self._heard_s + limit_s, "beats are not answered")
        desk.changed.clear()

    @property
    def told_unknown(self) -> tuple[str, ...]:
        """The VMs of which the aggregator was last told that nobody can tell."""
        return tuple(uuid for uuid, report in self._told.items() if report.state is QemuState.UNKNOWN)

    @property
    def _whole(self) -> bool:
        """Whether the whole node was read since this session was opened."""
        inventory = self.desk.inventory
        return inventory.complete and inventory.complete_asked_s >= self._since_s

    def _give_up_after(self, due_s: float, reason: str) -> None:
        if self.desk.now >= due_s:
            self.close(reason)
        else:
            self.desk.wake_at(due_s)

    def _tell_everything(self, *, complete: bool) -> None:
        desk = self.desk
        if self.session is None:
            return
        self._adopt()
        self.phase = Phase.STANDING
        self._generation = 1
        self._told_complete = complete
        self._heard_s, self.beat_s = desk.now, desk.now
        self._told = {uuid: desk.report(uuid) for uuid in desk.all_uuids()}
        self._definitions_told = {}
        first, rest = self._split_definitions()
        self.send(
            FullState(
                session=self.session,
                generation=1,
                vms=tuple(self._told.values()),
                in_hand=describe_in_hand(desk.memory),
                complete=complete,
                definitions=first,
            )
        )
        for definitions in rest:
            self._delta((), definitions)
        if self._asked_what_is_kept and complete:
            for message in tell_kept(desk.memory, self.session):
                self.send(message)

    def _adopt(self) -> None:
        """Take over a run that is here, that no ledger knows and that the aggregator says is ours."""
        desk = self.desk
        for assignment in self.assignments.values():
            state, known = desk.inventory.state(assignment.uuid), desk.promise(assignment.uuid)
            running = state in (QemuState.RUNNING, QemuState.PAUSED)
            if assignment.here and assignment.epoch > 0 and known is None and running and not desk.quarantined:
                run = RunBegan(assignment.uuid, assignment.name, assignment.epoch, assignment.run, confirmed=True)
                desk.persist(run)
                desk.note("run taken over", assignment.uuid, f"epoch {assignment.epoch} run {assignment.run}")
            elif not assignment.here and state is not QemuState.GONE:
                detail = f"in other hands at epoch {assignment.epoch}, and a QEMU is here: {state}"
                desk.note("vm in other hands", assignment.uuid, detail, warning=True)

    def _split_definitions(self) -> tuple[tuple[Definition, ...], list[tuple[Definition, ...]]]:
        """Return the definitions not told yet, in portions that fit a frame."""
        portions: list[list[Definition]] = [[]]
        room = self.desk.settings.frame_xml_bytes_max
        for uuid, definition in sorted(self.desk.inventory.definitions.items()):
            told = structs.replace(definition, xml="")
            if self._definitions_told.get(uuid) == told:
                continue
            size = len(definition.xml)
            if size > room and portions[-1]:
                portions.append([])
                room = self.desk.settings.frame_xml_bytes_max
            room -= size
            portions[-1].append(definition)
            self._definitions_told[uuid] = told
        return tuple(portions[0]), [tuple(portion) for portion in portions[1:]]

    def tell_definitions(self) -> None:
        """Report definitions that are new at once, ahead of what follows from them."""
        if self.phase is Phase.STANDING:
            first, rest = self._split_definitions()
            for definitions in (first, *rest):
                if definitions:
                    self._delta((), definitions)

    def _tell_changes(self) -> None:
        desk = self.desk
        vms = []
        for uuid in sorted(desk.changed):
            report = desk.report(uuid)
            if self._told.get(uuid) != report:
                self._told[uuid] = report
                vms.append(report)
        facts = self.facts if self.facts != self._facts_told else None
        first, rest = self._split_definitions()
        if vms or first or facts:
            self._facts_told = self.facts
            self._delta(tuple(vms), first, facts)
        for definitions in rest:
            self._delta((), definitions)

    def _delta(
        self, vms: tuple[VmReport, ...], definitions: tuple[Definition, ...], facts: NodeFacts | None = None
    ) -> None:
        if self.session is not None:
            self._generation += 1
            self.send(Delta(self.session, self._generation, vms, definitions, facts))

    def _beat(self) -> None:
        if self.desk.now >= self.beat_s:
            self.beats += 1
            self.desk.guard.lease.beat_sent(self.beats, self.desk.now)
            self.send(Beat(self.beats, self._generation, self._answered, self.load))
            self.beat_s = max(self.beat_s + self.heartbeat_s, self.desk.now + self.heartbeat_s / 2)
        self.desk.wake_at(self.beat_s)
