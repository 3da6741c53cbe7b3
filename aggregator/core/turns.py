"""Whether the fleet could still bear the loss of a node while a failure domain is empty (N+1), for drains in turn.

In two halves as core/whatif.py: `ask_turns` copies what it needs out of the state, `answer_turns` thinks about it on
another thread. Only a turn that would begin now is asked about. Nothing here changes the state. Pure.
"""

from __future__ import annotations

from msgspec import Struct

from aggregator.core.drain import why_not_its_turn
from aggregator.core.events import TurnJudged
from aggregator.core.seats import place_lost
from aggregator.core.state import State
from aggregator.core.whatif import AllQuestions, ask_all
from aggregator.placement.table import Table

NAMED_MAX = 3
ALL_THE_SAME = "to empty it all the same: virtward drain NODE --cancel, then virtward drain NODE"


class Turn(Struct, frozen=True):
    """One failure domain of a job. nodes: that would be empty; others: whose loss must be borne meanwhile."""

    job: str
    domain: str
    nodes: tuple[str, ...]
    others: tuple[str, ...]


class TurnQuestions(Struct, frozen=True):
    """All that the judging needs, copied out of the state."""

    fleet: AllQuestions
    turns: tuple[Turn, ...]


def ask_turns(state: State, now: float) -> TurnQuestions | None:
    """Copy what the turns that would begin now are to be thought through with; None where there are none."""
    found: dict[tuple[str, str], list[str]] = {}
    for drain in state.drains.values():
        if drain.state == "Waiting" and drain.keeps_spare and not why_not_its_turn(state, drain):
            found.setdefault((drain.job, drain.domain), []).append(drain.node)
    if not found:
        return None
    approved = [node.name for node in state.nodes.values() if node.approved]
    turns = (
        Turn(job, domain, tuple(nodes), tuple(name for name in approved if name not in nodes))
        for (job, domain), nodes in found.items()
    )
    return TurnQuestions(ask_all(state, now), tuple(turns))


def answer_turns(questions: TurnQuestions, now: float) -> tuple[TurnJudged, ...]:
    """Think the turns through; return a verdict on each."""
    table = questions.fleet.seats.table()
    return tuple(
        TurnJudged(at=now, job=turn.job, domain=turn.domain, why_not=_why_not(questions.fleet, table, turn))
        for turn in questions.turns
    )


def _why_not(fleet: AllQuestions, table: Table, turn: Turn) -> str:
    """Return which loss could be borne now and not while the domain is empty, empty if there is none."""
    alone = _unplaced(fleet, table, turn.nodes, "")
    for other in turn.others:
        more = _unplaced(fleet, table, turn.nodes, other) - alone - _unplaced(fleet, table, (), other)
        if more:
            named = ", ".join(sorted(more)[:NAMED_MAX]) + (" and others" if len(more) > NAMED_MAX else "")
            empty = ", ".join(turn.nodes[:NAMED_MAX])
            words = f"while {empty} is empty the loss of {other} could not be borne"
            return f"{words}: {named} would find no node; {ALL_THE_SAME}"
    return ""


def _unplaced(fleet: AllQuestions, table: Table, emptied: tuple[str, ...], lost: str) -> set[str]:
    """Return the VMs that have no place where these nodes are emptied and that one is lost."""
    leaving = [vm for name in emptied for vm in fleet.seats.seated.get(name, ())]
    leaving += fleet.lost.get(lost, ())
    gone = (*emptied, lost) if lost else emptied
    if not leaving:
        return set()
    unique = {vm.name: vm for vm in leaving}
    return {v.vm for v in place_lost(table, fleet.seats, gone, list(unique.values())) if v.node is None}
