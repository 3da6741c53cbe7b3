"""One aggregator process: the shipped core in a loop of facts → settle → journal → deeds.

The journal lies in a store that survives kills; what was settled and not yet committed is lost
with the process. A kill may land between any two steps: before the commit, between commit and
the first deed, between two deeds. Who comes to lead reads snapshot and journal back through fold
and the codec, then settles with AggregatorStarted; one of several that does not lead reads nothing
and takes no agent. Decides nothing itself.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from math import inf
from typing import TYPE_CHECKING

from aggregator.act.fence_answer import ProgramEnded, judge, telling_line
from aggregator.core import events as ev
from aggregator.core.actions import (
    ACTION_AGE_S_MAX,
    Action,
    AskFence,
    AskReference,
    CloseSession,
    SendArrivalCheck,
    SendOrder,
    SendProbe,
    SendRelayOffer,
)
from aggregator.core.beats import silence_due_at
from aggregator.core.events import BeatHeard, Event
from aggregator.core.fold import fold
from aggregator.core.journal_form import VOLATILE, decode_event, decode_state, encode_event
from aggregator.core.settle import settle
from aggregator.core.state import State
from fleet.messages import FromAgent
from fleet.model import Leadership
from simulator.clock import LocalClock
from simulator.connection import Connection, Ending
from simulator.intake import Intake
from simulator.process import Process
from simulator.seat import Seat
from simulator.store import Opened

if TYPE_CHECKING:
    from simulator.clock import Timer
    from simulator.quiet import QuietLink
    from simulator.world import World

TURN_S = (0.0005, 0.003)
COMMIT_S = (0.001, 0.006)
DEED_S = 0.0002
SUPERVISED_S = 2.0
SILENT_CHECK_S = 5.0
FIRST_TURN_S = 1.5
BEAT_WAIT_S_MAX = 0.1  # as the shipped queue of facts


class SimulatedAggregator(Process):
    """One aggregator of the world. number: from 1."""

    def __init__(self, world: World, number: int, state: State, wall: LocalClock) -> None:
        super().__init__(world.queue)
        self.world = world
        self.name = "aggregator" if number == 1 else f"aggregator@{number}"
        self._random = world.random_of(self.name)
        self.state = state
        self.alone = world.plan.aggregators == 1
        self.seat = Seat(self, world.store, alone=self.alone)
        self.wall = wall
        self.intake = Intake(self)
        self._monotonic = LocalClock(world.queue, shows=state.now)
        self._gap = 0.0
        self._facts: deque[Event] = deque()
        self._beats: dict[str, Event] = {}
        self._busy = False
        self.quiet: dict[str, QuietLink] = {}  # by node
        self.awaited: frozenset[str] = frozenset()  # nodes whose next beat wakes the loop: settle's own word
        self._calm_until = 0.0
        self._durable: list[tuple[float, int]] = [(world.queue.now, state.position)]  # since when which position was
        self._beat_turn = False
        self._look: Timer | None = None
        self._look_at = 0.0
        self._stopped_at: float | None = None
        self.position = state.position  # of the last event that is durable

    # --- its life

    def begin_quietly(self) -> None:
        """The life that was already running at the beginning of the story."""
        self.begin_life()
        self.seat.take_quietly()
        self._gap = self.wall.now() - self._monotonic.now()
        self._busy = True
        self.later(FIRST_TURN_S, self._turn)  # by then every agent has connected
        self.later(SILENT_CHECK_S, self._drop_silent)

    def start(self) -> None:
        """A new life."""
        if not self.alive:
            self.begin_life()
            self.seat.begin()

    def lead(self, opened: Opened, instance: str) -> None:
        """Lead from here on: read the journal, then ask, then decide."""
        self.world.leader = self
        self.state = decode_state(opened.snapshot)
        for data in opened.events:
            fold(self.state, decode_event(data))
        self.position = self.state.position
        self.intake = Intake(self)
        self._monotonic = LocalClock(self.queue, shows=max(self.wall.now(), self.state.now))
        self._gap = self.wall.now() - self._monotonic.now()
        self._facts.clear()
        self._beats.clear()
        self._busy = self._beat_turn = False
        self._look, self.awaited, self._calm_until = None, frozenset(), 0.0
        self._durable = [(self.queue.now, self.position)]
        leader = Leadership(max(opened.term, self.state.leader.term + 1), instance, self.state.position)
        if not self.alone:
            self.world.tell(f"{self.name} leads in term {leader.term}")
        self.fact(
            ev.AggregatorStarted(
                at=self.now(),
                leader=leader,
                machine_id=self.state.own_machine_id,
                away_s=max(0.0, self.now() - self.state.now),
                store_mark=opened.mark,
            )
        )
        self.later(SILENT_CHECK_S, self._drop_silent)

    def kill(self) -> None:
        if self.alive:
            self._end_quiet()
            self.intake.close_all()
            self.seat.stand_up()
        self.end_life()

    def give_up(self, why: str) -> None:
        """End this life, as the shipped process does; systemd begins the next one."""
        self.world.tell(f"{self.name} ends: {why}")
        self.kill()
        life = self.life
        self.queue.after(SUPERVISED_S, lambda: self.start() if self.life == life else None)

    def may_act(self) -> bool:
        """Say whether this process still leads; one that does not is over. Asked before each deed and each answer."""
        if self.seat.is_fresh():
            return True
        self.give_up("its lease is over")
        return False

    @property
    def takes_agents(self) -> bool:
        """Would an agent be let in now?"""
        return self.answers and self.seat.leads

    def pause(self, why: str = "itself") -> None:
        self._end_quiet()
        if not self.paused:
            self._stopped_at = self.queue.now
        super().pause(why)

    def resumed(self) -> None:
        """The first thing a process notices after a pause is its own lag (S9)."""
        lag_s = self.queue.now - (self._stopped_at or self.queue.now)
        if self.seat.taken and lag_s > self.state.config.self_lag_max:
            self.fact(ev.SelfDoubted(at=self.now(), kind="lag", detail=f"the loop stood still for {lag_s:.1f} s"))

    def now(self) -> float:
        """Return fleet time."""
        return self._monotonic.now()

    def shows(self, when: float) -> float:
        """Return fleet time at a world time of this life."""
        return self._monotonic.shows(when)

    def set_rate(self, rate: float) -> None:
        self._end_quiet()
        for clock in (self._monotonic, self.wall, self.seat.machine):
            clock.set_rate(rate)

    def draw(self, span_s: tuple[float, float]) -> float:
        """Return how long something takes this time."""
        return self._random.uniform(*span_s)

    def jump(self, by_s: float) -> None:
        """Somebody sets the machine's wall clock."""
        self.wall.jump(by_s)
        if self.seat.taken:
            self.fact(ev.SelfDoubted(at=self.now(), kind="clock", detail=f"the wall clock jumped by {by_s:+.1f} s"))

    # --- facts in

    def accept(self, connection: Connection) -> None:
        self.intake.accept(connection)

    def take(self, connection: Connection, item: FromAgent | Ending) -> None:
        self.intake.take(connection, item)

    def fact(self, fact: Event) -> None:
        """Queue a fact. A beat alone wakes the loop late, and not at all unless it is awaited: it moves a number."""
        if not isinstance(fact, ev.BeatHeard):
            self._facts.append(fact)
            self._turn_soon()
            return
        self._beats[fact.node] = fact
        if fact.node in self.awaited and not self._beat_turn:
            self._beat_turn = True
            self.later(BEAT_WAIT_S_MAX, self._turn_soon)

    def leadership_at(self, when: float) -> Leadership:
        """Return what beats heard at a world time of this life were answered."""
        position = self._durable[max(0, bisect_right(self._durable, (when, self.position)) - 1)][1]
        return Leadership(self.state.leader.term, self.state.leader.instance, position)

    @property
    def rests_until(self) -> float:
        """Until when, in fleet time, nothing will be decided unless something but a calm beat happens."""
        turning = self._busy or self._beat_turn or self.paused or not self.alive
        return 0.0 if turning else min(self._calm_until, silence_due_at(self.state, self.quiet))

    def heard(self) -> list[Event]:
        """Return the beats that no turn has folded yet, also those of quiet time."""
        now = self.queue.now
        for link in self.quiet.values():
            if link.news_at <= now and (beat := link.news()) is not None:
                self._beats[beat.node] = beat
        return list(self._beats.values())

    def listen_again(self, beat: BeatHeard | None) -> None:
        """A link is quiet no more: from now on its node may fall silent."""
        if beat is not None:
            self._beats[beat.node] = beat
        if self.alive and not self._busy and silence_due_at(self.state, self.quiet) < self._look_at:
            self._rest()

    def _end_quiet(self) -> None:
        for link in list(self.quiet.values()):
            link.end()

    def _drop_silent(self) -> None:
        self.intake.drop_silent()
        self.later(SILENT_CHECK_S, self._drop_silent)

    # --- the loop

    def _turn_soon(self) -> None:
        if not self._busy and self.alive:
            self._busy = True
            self.later(self._random.uniform(*TURN_S), self._turn)

    def _turn(self) -> None:
        """Fold and decide; what was decided is not yet true for anybody else."""
        facts = [*self.heard(), *self._facts]
        facts.sort(key=lambda fact: fact.at)
        self._beats.clear()
        self._facts.clear()
        self._beat_turn = False
        if self._look is not None:
            self._look.cancel()
        settled = settle(self.state, facts, self.now(), self._calm_until)
        self._calm_until, self.awaited = settled.calm_until, settled.awaited
        for link in [link for node, link in self.quiet.items() if node in self.awaited]:
            link.end()
        if self.step_boundary():
            return
        if settled.events or settled.actions:
            self._send_to_store(settled.events, settled.actions)
        else:
            self._rest()

    def _send_to_store(self, events: tuple[Event, ...], actions: tuple[Action, ...]) -> None:
        """SQLite writes while this process runs; etcd does so while it is paused, too."""
        life, delay_s = self.life, self._random.uniform(*COMMIT_S)
        if self.alone:
            self.later(delay_s, lambda: self._commit(events, actions))
        else:
            self.queue.after(delay_s, lambda: self._commit(events, actions) if self.life == life else None)

    def _commit(self, events: tuple[Event, ...], actions: tuple[Action, ...]) -> None:
        """The transaction is durable: from here on it has happened."""
        durable = [event for event in events if not isinstance(event, VOLATILE)]
        failed = self.seat.append(self.position, [encode_event(event) for event in durable])
        if failed:
            self.when_running(lambda: self.give_up(failed))
            return
        life, restores = self.life, self.world.store.restores
        for event in events:
            if self.world.store.restores != restores:
                break  # a backup took the store's place: the rest never happened
            for watch in self.world.on_commit:
                watch(event, self.state)
        if self.life == life:
            self.when_running(lambda: self._committed(len(durable), actions))

    def _committed(self, durable: int, actions: tuple[Action, ...]) -> None:
        if durable:
            self.position += durable
            self._durable.append((self.queue.now, self.position))
        self.seat.leads = True
        if not self.step_boundary():
            self.when_running(lambda: self._act(deque(actions)))

    def _act(self, actions: deque[Action]) -> None:
        while actions:
            if not self.may_act():
                return
            self._do(actions.popleft())
            if self.step_boundary():
                return
            if actions:
                self.later(DEED_S, lambda: self._act(actions))
                return
        self._rest()

    def _rest(self) -> None:
        self._busy = False
        if self._facts:
            self._turn_soon()
            return
        if self._look is not None:
            self._look.cancel()
            self._look = None
        self._look_at = min(self._calm_until, silence_due_at(self.state, self.quiet))
        if self._look_at < inf:
            delay_s = self._monotonic.when(self._look_at) - self.queue.now
            self._look = self.later(max(0.0, delay_s) + 1e-6, self._turn_soon)

    # --- deeds

    def _do(self, action: Action) -> None:
        world = self.world
        match action:
            case SendOrder(node=node, order=order):
                talk = self.intake.standing(node)
                if talk is None or talk.session != order.session:
                    self._dropped(order.order_id, "the session is over")
                elif self.now() - action.decided_at > ACTION_AGE_S_MAX:
                    self._dropped(order.order_id, "the decision is too old")
                else:
                    world.acted(self, f"{order.order_id} to {node}")
                    talk.connection.aggregator_sends(order)
            case (
                SendProbe(prober=node, request=message)
                | SendRelayOffer(peer=node, offer=message)
                | SendArrivalCheck(node=node, question=message)
            ):
                if (talk := self.intake.standing(node)) is not None:
                    talk.connection.aggregator_sends(message)
            case CloseSession(node=node):
                self.intake.close(node)
            case AskFence():
                self._ask_fence(action, world)
            case AskReference():
                self._ask_reference(world)
            case _:
                raise AssertionError(f"no hand for a {type(action).__name__}")

    def _dropped(self, order_id: str, why: str) -> None:
        self.fact(ev.OrderDropped(at=self.now(), order_id=order_id, why=why))

    def _ask_reference(self, world: World) -> None:
        asked_at, answered = self.now(), world.reference_answers
        detail = "" if answered else "no answer within 1 s"
        delay_s = 0.005 if answered else 1.0
        self.later(
            delay_s,
            lambda: self.fact(ev.ReferenceAnswered(at=self.now(), asked_at=asked_at, answered=answered, detail=detail)),
        )

    def _ask_fence(self, action: AskFence, world: World) -> None:
        asked_at, life = self.now(), self.life

        def answered(ended: ProgramEnded) -> None:
            if self.life == life:
                self.when_running(lambda: self.fact(_fence_answer(action, asked_at, self.now(), ended)))

        too_old = asked_at - action.decided_at > ACTION_AGE_S_MAX
        if too_old and action.question in ("off", "on"):
            answered(ProgramEnded(None, trouble="dropped"))
            return
        if action.question in ("off", "on"):
            world.acted(self, f"{action.question} to {action.node}'s device")
        world.fence_orders.append((self.queue.now, action.node, action.question))
        device = world.device_at(action.rung.params)
        device.ask(action.question, action.timeout_s, answered)


def _fence_answer(action: AskFence, asked_at: float, at: float, ended: ProgramEnded) -> ev.FenceAnswered:
    return ev.FenceAnswered(
        at=at,
        node=action.node,
        question_id=action.question_id,
        answer=judge(action.question, ended),
        asked_at=asked_at,
        exit_code=ended.exit_code,
        line=telling_line(ended, ()),
    )
