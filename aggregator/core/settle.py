"""One turn of the loop, without its I/O: fold the facts, decide until nothing changes.

The aggregator's loop and the simulator both call this, so they cannot differ. What must be
journalled, and what may then be done, comes back in the order it happened.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from aggregator.core import breach
from aggregator.core.actions import Action
from aggregator.core.beats import beats_awaited, silence_due_at
from aggregator.core.decide import decide
from aggregator.core.events import BeatHeard, Event
from aggregator.core.fold import fold
from aggregator.core.invariants import Breach, broken_by
from aggregator.core.journal_form import VOLATILE
from aggregator.core.state import State

ROUNDS_MAX = 2000


class Settled(Struct, frozen=True):
    """events: to be journalled in one transaction before any of the actions is performed.

    look_again_at: when to turn at the latest. calm_until: nothing is decided before, as long as every
    node that is Up goes on beating. awaited: the nodes whose next beat may be decided upon all the same.
    breaches: invariants that a decision would have broken, which therefore is not among the events (breach.py).
    """

    events: tuple[Event, ...]
    actions: tuple[Action, ...]
    look_again_at: float
    calm_until: float
    awaited: frozenset[str]
    breaches: tuple[Breach, ...] = ()


class NeverSettlesError(RuntimeError):
    """The core kept deciding without coming to rest: a defect, the process must stop."""


def settle(state: State, facts: Sequence[Event], now: float, calm_until: float = 0.0) -> Settled:
    """Fold facts into state, then decide and fold until there is nothing to decide.

    now: fleet time, not before any fact's `at`. calm_until: of the last turn, if nothing happened
    since; beats alone are then folded without a look at the whole fleet.
    """
    calm = now < calm_until and _only_calm_beats(state, facts, now)
    happened: list[Event] = []
    for fact in facts:
        fold(state, fact)
        if not isinstance(fact, VOLATILE):
            happened.append(fact)
    if calm and now < silence_due_at(state):
        return _rest(state, now, calm_until)
    actions: list[Action] = []
    for _ in range(ROUNDS_MAX):
        decision = decide(state, now)
        breaches = broken_by(state, decision.transitions)
        if breaches:
            return _stopped(state, now, happened, actions, tuple(breaches))
        for transition in decision.transitions:
            fold(state, transition)
        happened.extend(decision.transitions)
        actions.extend(decision.actions)
        if not decision.transitions:
            return _rest(state, now, decision.look_again_at, tuple(happened), tuple(actions))
    raise NeverSettlesError(f"no rest after {ROUNDS_MAX} rounds; last: {happened[-3:]!r}")


def _rest(
    state: State, now: float, calm_until: float, happened: tuple[Event, ...] = (), actions: tuple[Action, ...] = ()
) -> Settled:
    look_again_at = min(calm_until, silence_due_at(state))
    return Settled(happened, actions, look_again_at, calm_until, beats_awaited(state, now))


def _stopped(
    state: State, now: float, happened: list[Event], actions: list[Action], breaches: tuple[Breach, ...]
) -> Settled:
    """What was about to happen must not: keep what is sound, hold every deed back."""
    instead = breach.events_of(state, breaches, actions, now)
    for event in instead:
        fold(state, event)
    look_at = now + breach.LOOK_AGAIN_S
    left = breach.harmless(actions)
    return Settled((*happened, *instead), left, look_at, look_at, beats_awaited(state, now), breaches)


def _only_calm_beats(state: State, facts: Sequence[Event], now: float) -> bool:
    """Return whether the facts are beats, and none that anybody waits for."""
    if not all(isinstance(fact, BeatHeard) for fact in facts):
        return False
    awaited = beats_awaited(state, now)
    return not any(fact.node in awaited for fact in facts if isinstance(fact, BeatHeard))
