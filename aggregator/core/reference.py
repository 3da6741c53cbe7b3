"""Small fleets and the aggregator's own host: whose word is not enough to convict anybody.

In a fleet under JUDGES_MIN the one that is cut off may as well be the aggregator: it convicts nobody
unless a configured reference address, outside of the fleet, answers it meanwhile. And one that runs on
a host of the fleet never convicts that host: it is alive, or nobody would judge. Pure.
"""

from __future__ import annotations

from aggregator.core.actions import AskReference
from aggregator.core.draft import Draft
from aggregator.core.events import NodeState, ReferenceAsked
from aggregator.core.state import NodeRecord, State

JUDGES_MIN = 3
ASK_EVERY_S = 1.0
FRESH_S_MAX = 5.0
_IN_QUESTION = (NodeState.UNSEEN, NodeState.SUSPECT, NodeState.AGENT_LOST, NodeState.LOST, NodeState.FENCING)


def too_few_to_judge(state: State) -> bool:
    """Return whether the fleet is so small that the one that is cut off may as well be the aggregator."""
    return sum(1 for node in state.nodes.values() if node.approved and node.machine_id) < JUDGES_MIN


def reference_doubt(draft: Draft) -> str:
    """Return why a small fleet may convict nobody now; empty if its reference address answers, or it is none."""
    state = draft.state
    if not too_few_to_judge(state):
        return ""
    address = state.config.reference_address
    if not address:
        few = f"a fleet of fewer than {JUDGES_MIN} nodes cannot tell whose network is cut"
        return f"{few}; set referenceAddress to something that always answers"
    fresh_s = min(FRESH_S_MAX, state.config.lost_after / 2)  # one cut that hits both is never judged by what was before
    if not state.reference_heard_at or draft.due(state.reference_heard_at + fresh_s):
        return f"the reference address {address} does not answer, so the network that is cut may be our own"
    return ""


def runs_here(state: State, node: NodeRecord) -> bool:
    """Return whether this aggregator runs on that very node."""
    return bool(state.own_machine_id) and node.machine_id == state.own_machine_id


def decide_reference(draft: Draft) -> None:
    """Ask the reference address while a node of a small fleet is silent."""
    state = draft.state
    address = state.config.reference_address
    if not address or not too_few_to_judge(state):
        return
    if not any(node.state in _IN_QUESTION and node.suspicion is not None for node in state.nodes.values()):
        return
    if draft.due(state.reference_asked_at + ASK_EVERY_S):
        draft.add(ReferenceAsked(at=draft.now, address=address))
        draft.act(AskReference(decided_at=draft.now, address=address))
