"""VMs are moved off a node whose agent is gone for good and whose host is not, through that host's libvirtd.

After `rescueAfter` the node is tainted virtward/agent-lost:NoExecute, one node at a time, and what does not
tolerate that is live-migrated, if it can be and its eviction strategy wants it. The rest runs on, and says why.
Nothing is fenced for it. An agent that wakes finds its VMs in other hands. Pure.
"""

from __future__ import annotations

from aggregator.core.arming import acts, why_held
from aggregator.core.draft import Draft
from aggregator.core.events import NodeState, RescueDue
from aggregator.core.eviction import CHECK_AGAIN_S, can_be_evicted, eviction_of, last_failure, queue_moves
from aggregator.core.fold_moves import ENDED
from aggregator.core.lookups import bound_to
from aggregator.core.nodes import may_convict
from aggregator.core.rescuable import cannot_be_rescued
from aggregator.core.state import NodeRecord, State, VmRecord
from aggregator.core.taint_eviction import executing, leaves_at, say
from fleet.model import EvictionStrategy

PRIORITY_RESCUE = 1000
LIVE = (EvictionStrategy.LIVE_MIGRATE, EvictionStrategy.LIVE_MIGRATE_IF_POSSIBLE)


def decide_rescues(draft: Draft) -> None:
    """Begin the rescue that is due, and move on the one that has begun."""
    state = draft.state
    lost = [node for node in state.derived.active_nodes if node.state is NodeState.AGENT_LOST and node.approved]
    if not lost or not acts(state) or may_convict(draft):
        return
    for node in sorted(lost, key=lambda n: (n.rescue_since == 0.0, n.rescue_since, n.state_since, n.name)):
        if node.impostor is not None or why_held(state, node=node.name):
            continue
        if not node.rescue_since:
            if draft.due(node.state_since + state.config.rescue_after):
                why = f"its agent has not come back in {state.config.rescue_after:g} s"
                draft.add(RescueDue(at=draft.now, node=node.name, reason=why, cause=node.fact))
            return
        if _advance(draft, node) or draft.transitions:
            return


def _advance(draft: Draft, node: NodeRecord) -> bool:
    """Move the rescue of a node on; return whether it is still going, so that the next node waits."""
    leaving, moving = [], []
    whys: dict[str, str] = {}
    for vm in bound_to(draft.state, node.name):
        when, taint = leaves_at(vm, executing(node))
        if taint is None or not can_be_evicted(vm, node.name) or not draft.due(when):
            continue
        leaving.append(vm)
        if vm.eviction is None:
            say(draft, vm, reason=f"{node.name} has the taint {taint.key}:{taint.effect}")
    if draft.transitions:
        return True
    for vm in leaving:
        whys[vm.name] = _why_it_stays(draft, vm, node)
        if not whys[vm.name]:
            moving.append(vm)
    reason = f"the agent on {node.name} is gone"
    whys |= queue_moves(draft, node.name, moving, reason, priority=PRIORITY_RESCUE, rescue=True)
    if any(whys.values()):
        draft.look_again(draft.now + CHECK_AGAIN_S)
    for vm in leaving:
        if vm.eviction is not None and whys.get(vm.name, "") != vm.eviction.blocked:
            say(draft, vm, blocked=whys.get(vm.name, ""), reason=whys.get(vm.name) or "it leaves")
    return bool(moving) or _is_under_way(draft.state, node)


def _is_under_way(state: State, node: NodeRecord) -> bool:
    return any(m.rescue and m.source == node.name and m.phase not in ENDED for m in state.migrations.values())


def _why_it_stays(draft: Draft, vm: VmRecord, node: NodeRecord) -> str:
    strategy = eviction_of(draft.state, vm)
    if strategy not in LIVE:
        return f"its eviction strategy is {strategy}, so it runs on without an agent"
    if why := cannot_be_rescued(vm, node):
        return f"it cannot be moved without its agent: {why}"
    if vm.eviction is not None and not draft.due(vm.eviction.retry_at):
        return last_failure(draft.state, vm)
    return ""
