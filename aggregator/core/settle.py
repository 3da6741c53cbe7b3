"""One turn of the loop, without its I/O: fold the facts, decide until nothing changes.

The aggregator's loop and the simulator both call this, so they cannot differ. What must be
journalled, and what may then be done, comes back in the order it happened.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from aggregator.core.actions import Action
from aggregator.core.decide import decide
from aggregator.core.events import BeatHeard, Event, NodeState
from aggregator.core.fold import fold
from aggregator.core.journal_form import VOLATILE
from aggregator.core.state import State

ROUNDS_MAX = 2000


class Settled(Struct, frozen=True):
    """events: to be journalled in one transaction before any of the actions is performed."""

    events: tuple[Event, ...]
    actions: tuple[Action, ...]
    look_again_at: float


class NeverSettlesError(RuntimeError):
    """The core kept deciding without coming to rest: a defect, the process must stop."""


def settle(state: State, facts: Sequence[Event], now: float, calm_until: float = 0.0) -> Settled:
    """Fold facts into state, then decide and fold until there is nothing to decide.

    now: fleet time, not before any fact's `at`. calm_until: look_again_at of the last turn, if
    nothing happened since; beats alone are then folded without a look at the whole fleet.
    """
    if now < calm_until and _only_calm_beats(state, facts):
        for fact in facts:
            fold(state, fact)
        return Settled((), (), calm_until)
    happened: list[Event] = []
    for fact in facts:
        fold(state, fact)
        if not isinstance(fact, VOLATILE):
            happened.append(fact)
    actions: list[Action] = []
    for _ in range(ROUNDS_MAX):
        decision = decide(state, now)
        for transition in decision.transitions:
            fold(state, transition)
        happened.extend(decision.transitions)
        actions.extend(decision.actions)
        if not decision.transitions:
            return Settled(tuple(happened), tuple(actions), decision.look_again_at)
    raise NeverSettlesError(f"no rest after {ROUNDS_MAX} rounds; last: {happened[-3:]!r}")


def _only_calm_beats(state: State, facts: Sequence[Event]) -> bool:
    """Return whether the facts are beats, and no node is in a state in which a beat of another matters."""
    return all(isinstance(fact, BeatHeard) for fact in facts) and all(
        node.state is NodeState.UP and not any(ready.off_at for ready in node.readiness)
        for node in state.nodes.values()
    )
