"""When a guest is asked how it is, and what its answers come to: the probes of the runs on this node. Pure.

Whoever asks (agent.guest_probing) says yes, no or nothing; nothing, where libvirt or the network between did not let
the guest be asked, counts neither way. What a failed liveness probe does to the run is the aggregator's to decide.
"""

from __future__ import annotations

from msgspec import Struct, structs

from agent.desk import Desk
from agent.keeper_types import GuestProbed, ProbeGuest
from agent.records import Promise, Standing
from fleet.guest_health import GuestHealth, GuestProbe, GuestProbes, ProbeKind
from fleet.model import QemuState

ANSWER_SPARE_S = 10.0  # beyond a probe's own time-out, before a question counts as lost
NOT_ASKED = "the guest has not been asked yet"


class Question(Struct):
    """One probe of one run. in_flight_until_s: None while no answer is awaited. good, bad: answers in a row."""

    probe: GuestProbe
    next_s: float
    number: int = 0
    in_flight_until_s: float | None = None
    good: int = 0
    bad: int = 0
    holds: bool | None = None
    words: str = ""


class Watched(Struct):
    """A run whose guest is asked."""

    run: int
    probes: GuestProbes
    questions: dict[ProbeKind, Question]


class GuestWatch:
    """All probes of this node's runs."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._watched: dict[str, Watched] = {}
        self._listed_of = -1  # how many records were persisted when the runs were listed
        self._runs: tuple[str, ...] = ()

    @property
    def idle(self) -> bool:
        """Whether nobody is to be asked."""
        return not self._list()

    def advance(self) -> None:
        """Ask what is due; forget runs that are over."""
        runs = self._list()
        for uuid in [uuid for uuid in self._watched if uuid not in runs]:
            del self._watched[uuid]
            self._tell(uuid)
        for uuid in runs:
            promise = self.desk.memory.promises[uuid]
            watched = self._watched.get(uuid)
            if watched is None or watched.run != promise.run or watched.probes != promise.probes:
                watched = self._watched[uuid] = self._begun(promise, watched)
                self._tell(uuid)
            running = self.desk.state(uuid) is QemuState.RUNNING
            for kind, question in watched.questions.items():
                self._ask(promise, kind, question, running=running)

    def answered(self, fact: GuestProbed) -> None:
        """Count an answer. An old one says nothing, nor does one that came while the guest stood still."""
        watched = self._watched.get(fact.uuid)
        question = watched.questions.get(fact.kind) if watched is not None else None
        if question is None or question.number != fact.number or question.in_flight_until_s is None:
            return
        question.in_flight_until_s = None
        if fact.good is None or self.desk.state(fact.uuid) is not QemuState.RUNNING:
            return
        question.words = fact.words or f"fewer than {question.probe.success_threshold} good answers in a row"
        question.good, question.bad = (question.good + 1, 0) if fact.good else (0, question.bad + 1)
        if question.good >= question.probe.success_threshold:
            question.holds = True
        elif question.bad >= question.probe.failure_threshold:
            if question.holds is not False:
                detail = f"{question.bad} times in a row: {fact.words}"
                self.desk.note(f"{fact.kind} probe failed", fact.uuid, detail, warning=True)
            question.holds = False
        self._tell(fact.uuid)

    def _list(self) -> tuple[str, ...]:
        desk = self.desk
        if self._listed_of != desk.persisted:
            self._listed_of = desk.persisted
            promises = desk.memory.promises.items()
            none = GuestProbes()
            self._runs = tuple(u for u, p in promises if p.standing is Standing.RUNS and p.probes != none)
        return self._runs

    def _begun(self, promise: Promise, before: Watched | None) -> Watched:
        """Begin to ask, and keep what is known of a probe that stays the same."""
        kept = before.questions if before is not None and before.run == promise.run else {}
        questions = {}
        for kind, probe in (
            (ProbeKind.LIVENESS, promise.probes.liveness),
            (ProbeKind.READINESS, promise.probes.readiness),
        ):
            if probe is None:
                continue
            old = kept.get(kind)
            delay_s = 0.0 if promise.receive is not None else probe.initial_delay_s  # a guest that arrived has booted
            questions[kind] = (
                old if old is not None and old.probe == probe else Question(probe, self.desk.now + delay_s)
            )
        return Watched(promise.run, promise.probes, questions)

    def _ask(self, promise: Promise, kind: ProbeKind, question: Question, *, running: bool) -> None:
        desk, probe = self.desk, question.probe
        if question.in_flight_until_s is not None:
            if desk.now < question.in_flight_until_s:
                desk.wake_at(question.in_flight_until_s)
                return
            question.in_flight_until_s = None
        if not running:  # a guest that stands still is asked a period after it goes on
            if question.number:
                question.next_s = max(question.next_s, desk.now + probe.period_s)
            return
        if desk.now < question.next_s:
            desk.wake_at(question.next_s)
            return
        question.number += 1
        question.next_s = desk.now + probe.period_s
        question.in_flight_until_s = desk.now + probe.timeout_s + ANSWER_SPARE_S
        desk.out.append(ProbeGuest(promise.uuid, kind, question.number, probe))
        desk.wake_at(question.in_flight_until_s)

    def _tell(self, uuid: str) -> None:
        health = self._health(uuid)
        if self.desk.health.get(uuid, GuestHealth()) != health:
            self.desk.health[uuid] = health
            self.desk.changed.add(uuid)
        if health == GuestHealth():
            self.desk.health.pop(uuid, None)

    def _health(self, uuid: str) -> GuestHealth:
        watched = self._watched.get(uuid)
        if watched is None:
            return GuestHealth()
        health = GuestHealth()
        ready = watched.questions.get(ProbeKind.READINESS)
        if ready is not None:
            why = "" if ready.holds else ready.words or NOT_ASKED
            health = structs.replace(health, ready="True" if ready.holds else "False", why=why)
        alive = watched.questions.get(ProbeKind.LIVENESS)
        if alive is not None and alive.holds is False:
            health = structs.replace(health, failed=alive.words or "no answer")
        return health
