"""The loop: facts in, settle, journal, then deeds. The only caller of settle() in the running aggregator.

Knows the order of things (safety.md): nothing is done before what it follows from is durable, and nothing
at all once the store has failed or the core has raised. Knows neither sockets nor SQL nor fence programs.
"""

from __future__ import annotations

import asyncio
import hashlib
import traceback
from collections.abc import Sequence

import structlog

from aggregator.act.hand import Hands
from aggregator.breach_files import BreachFiles
from aggregator.clock import FleetClock
from aggregator.core.events import (
    Event,
    FenceFailed,
    IncidentOpened,
    InvariantBroken,
    SecondRunSeen,
    SelfDoubted,
    Transition,
)
from aggregator.core.history import detail_of, is_quiet
from aggregator.core.journal_form import VOLATILE, encode_state
from aggregator.core.settle import Settled, settle
from aggregator.core.state import State
from aggregator.fact_queue import Check, FactQueue, Waiting
from aggregator.fault_point import FaultPoint
from aggregator.fleet_access import NotServingError
from aggregator.journal_row import row_of
from aggregator.self_watch import SelfWatch
from aggregator.store.protocol import Store, StoredEvent, StoreError

SNAPSHOT_EVENTS = 5_000
LOOK_S_MIN = 0.01  # a decision that is due at once again is due in a moment
LOOK_S_MAX = 3600.0
ALARMING = (FenceFailed, IncidentOpened, InvariantBroken, SecondRunSeen, SelfDoubted)

_log = structlog.get_logger("aggregator.loop")


class CoreFailedError(Exception):
    """The core raised: a defect. The process must stop; systemd starts it again and it asks anew."""


class Loop:
    """Owns the state. Everything else reads it, on this thread, between two awaits."""

    def __init__(
        self, state: State, store: Store, clock: FleetClock, fault_point: FaultPoint, breach_files: BreachFiles
    ) -> None:
        self.state = state
        self.durable_position = state.position
        self.turns = 0
        self._store, self._clock, self._fault_point = store, clock, fault_point
        self._breach_files = breach_files
        self._hands: Hands | None = None
        self._queue = FactQueue()
        self._watch = SelfWatch(clock)
        self._leading = False
        self._stopping = False
        self._ended = False
        self._rest = asyncio.Event()
        self._changed = asyncio.Event()
        self._snapshot_position = state.position
        self._calm_until = 0.0  # nothing can be decided before, unless something but calm beats happens

    # --- for the shell around it

    @property
    def leading(self) -> bool:
        """Whether deeds are allowed and beats may be answered now: asked just before each of them."""
        return self._leading and self._store.leads()

    def offer(self, fact: Event) -> bool:
        """Take an agent's fact; False where there is no room: its session must be closed."""
        return not self._ended and self._queue.offer(fact)

    def report(self, fact: Event) -> None:
        """Take a fact that must not be lost: a hand's answer, a session's end."""
        if not self._ended:
            self._queue.put(Waiting(fact))

    async def submit(self, fact: Event, check: Check | None = None) -> int:
        """Fold a person's fact; return its journal position once it is durable. See FleetAccess.submit."""
        if not self.leading or self._queue.full:
            raise NotServingError("the aggregator takes no writes now; try again in a few seconds")
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._queue.put(Waiting(fact, check, done))
        return await done

    async def at_rest(self) -> None:
        """Return when nothing is folded that is not durable yet."""
        while not self._rest.is_set() and not self._ended:
            await self._rest.wait()

    async def first_turn_or_end(self) -> None:
        """Return when this life is journalled, or will never be."""
        while not self.turns and not self._ended:
            await self._changed.wait()

    async def wait_for_change(self, since_position: int) -> int:
        """Return the durable position once it is above since_position; NotServingError when the loop has ended."""
        while self.durable_position <= since_position:
            if self._ended:
                raise NotServingError("the aggregator is stopping")
            await self._changed.wait()
        return self.durable_position

    def wake(self) -> None:
        """Turn now, whether or not anything is due: who watches over the loop counts its turns."""
        self._queue.wake()

    def stop(self) -> None:
        """End after the present turn."""
        self._stopping = True
        self._queue.wake()

    # --- the turns

    async def run(self, first: Sequence[Event], hands: Hands) -> None:
        """Fold the first facts (the start of this life), then turn until stop(). StoreError, CoreFailedError."""
        self._hands = hands
        self._watch.start()
        try:
            look_again_at = await self._turn([Waiting(fact) for fact in first])
            while not self._stopping:
                await self._queue.wait(min(max(look_again_at - self._clock.now(), LOOK_S_MIN), LOOK_S_MAX))
                look_again_at = await self._turn(self._queue.take())
                await self._keep_snapshot(SNAPSHOT_EVENTS)
            self._leading = False
            await self._keep_snapshot(1)
        finally:
            self._leading, self._ended = False, True
            self._queue.give_up(NotServingError("the aggregator is stopping; try again in a few seconds"))
            self._announce()
            self._rest.set()
            await self._watch.close()

    async def _turn(self, taken: Sequence[Waiting]) -> float:
        accepted = [waiting for waiting in taken if self._passes(waiting)]
        before, now = self.state.position, self._clock.now()
        facts = [*self._doubts(), *(waiting.fact for waiting in accepted)]
        settled = self._settle(facts, now)
        if any(isinstance(event, InvariantBroken) for event in settled.events):
            self._tell_breach(settled, facts)
        self._rest.clear()
        rows = [row_of(self.state, event, before + number) for number, event in enumerate(settled.events, 1)]
        try:
            await self._store.append(rows)
        except StoreError as error:
            self._leading = False
            self._fail(accepted, NotServingError("the aggregator lost its store and stops; nothing was changed"))
            _log.critical("store lost, nothing more is done", error=str(error), position=before)
            raise
        self.durable_position = self.state.position
        self._leading = not self._stopping  # the first turn journals that this life has begun
        self._rest.set()
        self._answer(accepted, len(facts) - len(accepted), before)
        self._tell(rows, settled.events)
        self._fault_point.journalled(
            [(row.kind, type(e).__name__) for row, e in zip(rows, settled.events, strict=True)]
        )
        for action in settled.actions:
            if self._hands is not None:
                self._hands.perform(action)
        await self._fault_point.handed_over()
        self.turns += 1
        if rows:
            self._announce()
        self._calm_until = settled.calm_until
        return settled.look_again_at

    def _passes(self, waiting: Waiting) -> bool:
        if waiting.done is not None and waiting.done.cancelled():
            return False
        if waiting.check is None:
            return True
        try:
            waiting.check(self.state)
        except Exception as error:  # noqa: BLE001 (whatever it is, it belongs to whoever asked)
            if waiting.done is not None:
                waiting.done.set_exception(error)
            return False
        return True

    def _doubts(self) -> list[Event]:
        doubt = self._watch.doubt(self.state.config.self_lag_max, overflowed=self._queue.overflowed)
        self._queue.overflowed = False
        return [doubt] if doubt is not None else []

    def _settle(self, facts: Sequence[Event], now: float) -> Settled:
        before = self.state.position
        try:
            settled = settle(self.state, facts, now, self._calm_until)
            if self.state.position != before + len(settled.events):
                raise RuntimeError(f"position {self.state.position} after {len(settled.events)} events from {before}")
        except Exception as error:  # noqa: BLE001 (whatever the core raises, it must not act on)
            self._leading = False
            steps = traceback.extract_tb(error.__traceback__)
            _log.critical(
                "the core failed, nothing more is done; this is a defect",
                error=f"{type(error).__name__}: {error}",
                where=[f"{step.filename.rpartition('/')[2]}:{step.lineno} {step.name}" for step in steps[-6:]],
                position=before,
                facts=[type(fact).__name__ for fact in facts[:20]],
                digest=hashlib.blake2b(encode_state(self.state), digest_size=8).hexdigest(),
            )
            raise CoreFailedError(f"{type(error).__name__} in the core") from None
        return settled

    def _tell_breach(self, settled: Settled, facts: Sequence[Event]) -> None:
        """The core decided what it must not, and was held back (core/breach.py): say so with the state it did it in."""
        digest, written = self._breach_files.keep(encode_state(self.state))
        for breach in settled.breaches:
            _log.critical(
                "a decision would have broken an invariant: it was not carried out, and the fleet is disarmed",
                invariant=breach.number,
                text=breach.text,
                position=self.state.position,
                facts=[type(fact).__name__ for fact in facts[:20]],
                digest=digest,
                state=written,
            )

    def _answer(self, accepted: Sequence[Waiting], ahead: int, before: int) -> None:
        """Give each waiting person the position of the fact. ahead: facts of our own before the first."""
        position = before + ahead
        for waiting in accepted:
            if not isinstance(waiting.fact, VOLATILE):
                position += 1
            if waiting.done is not None and not waiting.done.done():
                waiting.done.set_result(position)

    @staticmethod
    def _fail(accepted: Sequence[Waiting], error: Exception) -> None:
        for waiting in accepted:
            if waiting.done is not None and not waiting.done.done():
                waiting.done.set_exception(error)

    @staticmethod
    def _tell(rows: Sequence[StoredEvent], events: Sequence[Event]) -> None:
        for row, event in zip(rows, events, strict=True):
            say = _log.debug if is_quiet(event) else _log.warning if isinstance(event, ALARMING) else _log.info
            told: dict[str, object] = {"node": row.node, "vm": row.vm, "detail": detail_of(event)}
            if isinstance(event, Transition):
                told |= {"reason": event.reason, "cause": event.cause}
            say(row.kind, position=row.position, **{name: value for name, value in told.items() if value})

    def _announce(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _keep_snapshot(self, events: int) -> None:
        if self.state.position - self._snapshot_position < events:
            return
        self._snapshot_position = self.state.position
        keep_since = self._clock.now() - self.state.config.events.keep
        try:
            await self._store.snapshot(self.state.position, encode_state(self.state), keep_since)
        except StoreError as error:
            self._leading = False
            _log.critical("store lost, nothing more is done", error=str(error), position=self.state.position)
            raise
