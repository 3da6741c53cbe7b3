"""What a beat can change, and what its absence will: so that calm beats cost no look at the fleet. Pure.

A beat moves one number, its node's last sign of life. While a node is Up that only puts off the
moment at which silence makes it Suspect; a decision waits for it just where somebody compares that
number with something else (proofs.py, evidence.py, nodes.py). Whoever adds such a comparison adds
it here, erring towards "awaited": tests/simulation/test_quiet.py looks for beats that were not.
"""

from __future__ import annotations

from collections.abc import Container
from math import inf

from aggregator.core.contradictions import RECONNECT_DELAY_S_MAX
from aggregator.core.events import NodeState, PowerAnswer
from aggregator.core.lookups import counts_from
from aggregator.core.state import NodeRecord, State


def silence_due_at(state: State, beating: Container[str] = ()) -> float:
    """Return when the first node that is Up falls silent if no more beats come. beating: nodes to leave out."""
    last = min(
        (n.last_sign for n in state.nodes.values() if n.state is NodeState.UP and n.name not in beating), default=inf
    )
    if last > state.doubted_at:
        return max(last, counts_from(state)) + state.config.suspect_after
    up = (n for n in state.nodes.values() if n.state is NodeState.UP and n.name not in beating)
    return min(falls_silent_at(state, node) for node in up)


def falls_silent_at(state: State, node: NodeRecord) -> float:
    """Return when a node that is Up becomes Suspect if no more beats come.

    Its agent may have given us up while we stood still: then it gets the time to come back, too.
    """
    heard = max(node.last_sign, counts_from(state), state.doubted_at)
    away = heard == state.doubted_at and not node.connected
    return heard + state.config.suspect_after + (RECONNECT_DELAY_S_MAX if away else 0.0)


def beats_awaited(state: State, now: float) -> frozenset[str]:
    """Return the nodes whose next beat may lead to a decision; of all others it only puts off silence."""
    overdue = now - state.config.suspect_after
    off_said_at = max((_off_said_at(node) for node in state.nodes.values() if node.suspicion is not None), default=-inf)
    return frozenset(
        node.name
        for node in state.nodes.values()
        if node.state is not NodeState.UP
        or node.last_sign <= overdue  # spared by a doubt: nothing is asked about its devices before it beats
        or node.last_sign <= off_said_at
        or any(ready.off_at for ready in node.readiness)
    )


def _off_said_at(node: NodeRecord) -> float:
    """Return when the node's devices last said off: others must have beaten since, for the off may be theirs."""
    if node.suspicion is None:
        return -inf
    said = max((read.answered_at for read in node.suspicion.reads if read.answer is PowerAnswer.OFF), default=-inf)
    return max(said, node.attempt.off_sent_at) if node.attempt is not None and said > -inf else said
