"""What follows when the core decides what an invariant forbids: a defect, so nothing more is done by itself.

The decision is neither folded nor journalled nor done. What was decided soundly earlier in the same turn is
journalled, but its deeds do not leave either, and the journal says so. The fleet is disarmed until a person arms
it. While the core goes on deciding the same, every turn ends here: facts are kept, deeds there are none. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from aggregator.core.actions import Action, AskFence, CloseSession, SendOrder
from aggregator.core.draft import Draft
from aggregator.core.events import (
    Disarmed,
    Event,
    FenceAnswered,
    IncidentClosed,
    IncidentNoted,
    IncidentOpened,
    InvariantBroken,
    OrderDropped,
    PowerAnswer,
)
from aggregator.core.invariants import Breach
from aggregator.core.state import State

ABOUT_INVARIANT = "invariant"
WHO = "virtward"
LOOK_AGAIN_S = 5.0
WAY_OUT = (
    "keep the journal and the state that was written down, and report this defect; look at every VM and node it names; "
    "then run: virtward arm"
)


def events_of(state: State, breaches: Sequence[Breach], actions: Sequence[Action], now: float) -> list[Event]:
    """Return what is journalled instead of the decision. actions: of what was decided in the same turn before it."""
    why = f"{breaches[0].number} would have been broken in the same turn"
    found: list[Event] = []
    for action in actions:
        if isinstance(action, SendOrder):
            found.append(OrderDropped(at=now, order_id=action.order.order_id, why=why))
        elif isinstance(action, AskFence):
            found.append(_not_asked(action, why, now))
    draft = Draft(state, now)
    is_new = [breach for breach in breaches if state.breach != f"{breach.number}: {breach.text}"]
    for breach in is_new[:1]:  # of one decision; the others are its company
        draft.add(InvariantBroken(at=now, invariant=breach.number, text=breach.text))
        _open_incident(draft, breach)
    held = state.disarmed.get("")
    if held is None or held.who != WHO:
        found.append(Disarmed(at=now, until=0.0, who=WHO))
    return [*found, *draft.transitions]


def _open_incident(draft: Draft, breach: Breach) -> None:
    incident = draft.state.incidents.get(draft.state.breach_incident)
    name = incident.name if incident is not None else draft.new_id("inc")
    if incident is None:
        title = f"a decision would have broken {breach.number}: nothing is done by itself until somebody arms the fleet"
        draft.add(IncidentOpened(at=draft.now, incident=name, title=title, about=ABOUT_INVARIANT, reason=breach.text))
    draft.add(IncidentNoted(at=draft.now, incident=name, text=f"{breach.number}: {breach.text}", way_out=WAY_OUT))


def _not_asked(action: AskFence, why: str, now: float) -> FenceAnswered:
    return FenceAnswered(
        at=now,
        node=action.node,
        question_id=action.question_id,
        answer=PowerAnswer.ERROR,
        asked_at=now,
        line=f"dropped: {action.question} was not sent, {why}",
    )


def harmless(actions: Sequence[Action]) -> tuple[Action, ...]:
    """Return what may be done all the same: a session that is closed only asks its agent anew."""
    return tuple(action for action in actions if isinstance(action, CloseSession))


def decide_breach(draft: Draft) -> None:
    """Close the incident once a person has armed the fleet again."""
    name = draft.state.breach_incident
    if name and "" not in draft.state.disarmed:
        draft.add(IncidentClosed(at=draft.now, incident=name, reason="a person armed the fleet again"))
