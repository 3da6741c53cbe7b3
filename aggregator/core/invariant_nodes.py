"""What must be so when a node is convicted or ordered off: the brake, this life, no doubt. Pure. See invariants.py."""

from __future__ import annotations

from collections.abc import Sequence

from aggregator.core import events as ev
from aggregator.core.events import NodeState, Transition
from aggregator.core.lookups import counts_from, doubt_over_at
from aggregator.core.policy import lost_nodes_max
from aggregator.core.state import NodeRecord, State

Decided = Sequence[Transition]
WORDS_OF_DOMAINS = ("virtward/rack", "virtward/zone")


def _convicts(state: State, event: ev.NodeStateChanged) -> NodeRecord | None:
    """Return the node if this convicts it; Fencing that failed goes back to Lost, which convicts nobody anew."""
    node = state.nodes.get(event.node)
    if node is None or event.state is not NodeState.LOST or node.state is NodeState.FENCING:
        return None
    return node


def brake_is_open(state: State, event: ev.NodeStateChanged, _decided: Decided) -> str:
    """S6: while the brake is closed nobody is convicted."""
    closed = _convicts(state, event) is not None and state.brake_closed
    return f"{event.node} is convicted while the brake is closed" if closed else ""


def off_within_brake(state: State, event: ev.FenceAsked, _decided: Decided) -> str:
    """S6: an off order that nobody asked for is within the brake's number."""
    node = state.nodes.get(event.node)
    if event.question != "off" or node is None or node.fence_wanted:
        return ""
    if state.brake_closed and not node.first_off_at:
        return f"{event.node} is ordered off while the brake is closed"
    window = state.config.brake.window
    others = [n for n in state.nodes.values() if n.first_off_at and n.first_off_at > event.at - window]
    hit = sorted({event.node, *(n.name for n in others if not n.fence_wanted)})
    limit = _limit(state)
    return (
        f"{event.node} is ordered off; with it {', '.join(hit)} were, and the brake is {limit}"
        if len(hit) > limit
        else ""
    )


def _limit(state: State) -> int:
    members = [node for node in state.nodes.values() if node.approved]
    domains = [(key, node.labels[key]) for node in members for key in WORDS_OF_DOMAINS if key in node.labels]
    return lost_nodes_max(state.config, len(members), max(map(domains.count, domains), default=0))


def silent_in_this_life(state: State, event: ev.NodeStateChanged, _decided: Decided) -> str:
    """S7: nobody is convicted for a silence of before this life, or of before the last arming."""
    node = _convicts(state, event)
    if node is None:
        return ""
    silent_s = event.at - max(node.last_sign, counts_from(state))
    least_s = state.config.lost_after
    if node.state is NodeState.UNSEEN:
        silent_s, least_s = event.at - counts_from(state), state.config.unseen_at_least
    return f"{event.node} is convicted after {silent_s:.1f} s of this life" if silent_s < least_s else ""


def nobody_doubted(state: State, event: ev.NodeStateChanged, _decided: Decided) -> str:
    """S9: nobody is convicted for a window after the aggregator doubted itself."""
    doubted = _convicts(state, event) is not None and event.at < doubt_over_at(state)
    return f"{event.node} is convicted while the aggregator doubts itself: {state.doubt}" if doubted else ""
