"""Runs one story: the world, its faults and people at their times, and what is written down.

Knows how a story is played; reading one is story.py's, making one up swarm.py's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from msgspec import Struct

from aggregator.core import events as ev
from aggregator.core import history
from aggregator.core.events import Event, Transition
from aggregator.core.state import State
from simulator.checkers import Checkers, Violation
from simulator.faults import THERE, AnyFault, strike, struck_at
from simulator.plan import WorldPlan
from simulator.render import Fence, Line, Summary, fault_text, line_of, summary_of
from simulator.truth import VmTruth
from simulator.verbs import perform
from simulator.world import World


class Happening(Struct, frozen=True, kw_only=True):
    """One item of a story's `events`: a fault, or a person's verb. words: as people read it.

    when: from `at` on it waits for this to happen first: an event that is durable (StartDecided:
    before any deed that follows from it), or a QEMU's state (Finished); empty: it does not wait.
    later: what strikes so many seconds (their `at`) after that moment.
    """

    at: float
    when: str = ""
    words: str
    fault: AnyFault | None = None
    verb: str = ""
    arguments: dict[str, object] = {}
    later: tuple[AnyFault, ...] = ()


class Expectation(Struct, frozen=True, kw_only=True):
    """An event that has to come. earliest and latest: world seconds.

    violation: an invariant that has to be broken instead, where a person of the story breaks it with a false word.
    """

    earliest: float
    latest: float
    words: str
    fields: dict[str, object]
    violation: str = ""
    vm: str = ""  # of the violation

    def is_met_by(self, line: Line) -> bool:
        if self.violation or not self.earliest <= line.t <= self.latest:
            return False
        shown = line.json()
        return all(shown.get(key) == value for key, value in self.fields.items())

    def foresees(self, bad: Violation) -> bool:
        in_time = self.earliest <= bad.t <= self.latest
        return in_time and bad.invariant == self.violation and bad.text.startswith(f"{self.vm} ")


class Story(Struct, frozen=True, kw_only=True):
    """A world, what happens to it, and what is expected of it."""

    name: str
    plan: WorldPlan
    happenings: tuple[Happening, ...] = ()
    expectations: tuple[Expectation, ...] = ()
    until: float = 300.0


class Performance(Struct):
    """What came of a story."""

    text: list[str]
    lines: list[Line]
    summary: Summary
    unmet: list[Expectation]
    steps: int
    world: World

    unforeseen: list[Violation]

    @property
    def good(self) -> bool:
        return not self.unforeseen and not self.unmet


class Player:
    """Plays one story."""

    def __init__(self, story: Story, *, prepare: Callable[[World], None] | None = None) -> None:
        self.story = story
        self.world = World(story.plan)
        if prepare is not None:
            prepare(self.world)
        self.checkers = Checkers(self.world)
        self.text: list[str] = []
        self.lines: list[Line] = []
        self._fences: list[Fence] = []
        self._questions: dict[str, Fence] = {}
        self._armed: list[Happening] = []
        self._over = False
        self.world.on_commit.append(self._committed)
        self.world.truth.watchers.append(self._qemu_changed)
        self.world.teller = self._tell
        for happening in sorted(story.happenings, key=lambda h: h.at):
            self.world.queue.at(happening.at, partial(self._happen, happening))

    def play(self) -> Performance:
        self.world.run_until(self.story.until)
        return self.performance()

    def performance(self) -> Performance:
        expected, broken = self.story.expectations, self.checkers.violations
        return Performance(
            text=self.text,
            lines=self.lines,
            summary=summary_of(self.world, self._fences, broken),
            unmet=[e for e in expected if not any(map(e.is_met_by, self.lines)) and not any(map(e.foresees, broken))],
            steps=self.world.queue.steps,
            world=self.world,
            unforeseen=[bad for bad in broken if not any(e.foresees(bad) for e in expected)],
        )

    def _happen(self, happening: Happening) -> None:
        if happening.when and self._over:
            return
        if happening.when:
            self._armed.append(happening)
        else:
            self._strike(happening)

    def disarm(self) -> None:
        """Let nothing strike any more that still waits for its moment, or comes after one."""
        self._armed.clear()
        self._over = True

    def _tell(self, words: str) -> None:
        """Write down what happens among the aggregators."""
        if self.world.queue.now >= 0:
            self.text.append(f"{self.world.queue.now:9.3f}  {words}")

    def _strike_armed(self, what: str, place: str) -> None:
        due = [happening for happening in self._armed if happening.when == what]
        self._armed = [happening for happening in self._armed if happening.when != what]
        for happening in due:
            self._strike(happening, place)
            for fault in happening.later:
                self.world.queue.after(fault.at, partial(self._strike_later, fault, place))

    def _qemu_changed(self, vm: VmTruth, _why: str) -> None:
        if self._armed:
            for state, host in [(str(qemu.state), qemu.host) for qemu in vm.qemus]:
                # a step of the world ends before the next thing happens to it
                self.world.queue.after(0.0, partial(self._strike_armed, state, host))

    def _strike(self, happening: Happening, place: str = "") -> None:
        where = f" (there: {place})" if happening.later or THERE in happening.words else ""
        self.text.append(fault_text(self.world.queue.now, happening.words + where))
        if happening.fault is None:
            self.person(happening.verb, happening.arguments)
            return
        fault = struck_at(happening.fault, place)
        if fault is not None:
            strike(self.world, fault)

    def _strike_later(self, fault: AnyFault, place: str) -> None:
        struck = struck_at(fault, place)
        if struck is not None and not self._over:
            self.text.append(fault_text(self.world.queue.now, str(struck)))
            strike(self.world, struck)

    def person(self, verb: str, arguments: dict[str, object]) -> None:
        """Have a person do something; a refusal is written down."""
        refusal = perform(self.world, verb, arguments)
        if refusal:
            self.text.append(fault_text(self.world.queue.now, f"refused: {refusal}"))

    def _committed(self, event: Event, state: State) -> None:
        now = self.world.queue.now
        if now < 0:
            return
        self._note_fence(event, now)
        if isinstance(event, Transition) and not history.is_quiet(event):
            line = line_of(event, state, now)
            self.lines.append(line)
            self.text.append(line.text())
        if self._armed:
            self._strike_armed(history.kind_of(event), _place_of(event, state))

    def _note_fence(self, event: Event, now: float) -> None:
        if isinstance(event, ev.FenceAsked) and event.question == "off":
            fence = Fence(round(now, 3), event.node, event.rung + 1, "Asked", None)
            self._fences.append(fence)
            self._questions[event.question_id] = fence
        elif isinstance(event, ev.FenceAnswered) and event.question_id in self._questions:
            self._questions.pop(event.question_id).outcome = str(event.answer)
        elif isinstance(event, ev.NodeProven):
            mine = [fence for fence in self._fences if fence.node == event.node and fence.proof is None]
            if mine:
                mine[-1].proof = str(event.proof)
            else:
                self._fences.append(Fence(round(now, 3), event.node, 0, "NotNeeded", str(event.proof)))


def _place_of(event: Event, state: State) -> str:
    """Return the node that an event is about, or that has the VM it is about."""
    node = getattr(event, "node", "")
    if isinstance(node, str) and node:
        return node
    vm = state.vms.get(str(getattr(event, "vm", "")))
    return vm.owner if vm is not None else ""
