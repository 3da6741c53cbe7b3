"""VMs are moved off a node whose agent is gone for good and whose host is not, through that host's libvirtd.

After `rescueAfter` the node is tainted virtward/agent-lost:NoExecute, one node at a time, and what does not
tolerate that is live-migrated, if it can be and its eviction strategy wants it. The rest runs on, and says why.
Nothing that may run is fenced for it. When nothing is left there that may run, and the node still keeps a VM down, as
by a start that was never answered, it is fenced (agentLost: leave does not). An agent that wakes finds its VMs in other
hands. Pure.
"""

from __future__ import annotations

from aggregator.core.arming import acts, why_held
from aggregator.core.draft import Draft
from aggregator.core.events import NodeState, RescueDue
from aggregator.core.eviction import MOVED_LIVE, eviction_of, last_failure, queue_moves
from aggregator.core.fencing import why_not_shot, would_move
from aggregator.core.fold_moves import ENDED
from aggregator.core.lookups import bound_to
from aggregator.core.nodes import may_convict, step
from aggregator.core.rescuable import cannot_be_rescued
from aggregator.core.state import NodeRecord, State, VmRecord
from aggregator.core.taint_eviction import leaving_now, say_why
from fleet.model import QemuState

PRIORITY_RESCUE = 1000
RESCUE_THEN_FENCE = "rescueThenFence"
REMAINS_S = 30.0  # what is left on a node so long after its rescue began is what remains


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
        _advance(draft, node)
        _free_what_remains(draft, node)
        if draft.transitions or _is_under_way(state, node):
            return  # the next node waits; one of which nothing can leave now holds nobody up


def _advance(draft: Draft, node: NodeRecord) -> None:
    leaving = leaving_now(draft, node)
    whys = {vm.name: _why_it_stays(draft, vm, node) for vm in leaving}
    moving = [vm for vm in leaving if not whys[vm.name]]
    reason = f"the agent on {node.name} is gone"
    whys |= queue_moves(draft, node.name, moving, reason, priority=PRIORITY_RESCUE, rescue=True)
    say_why(draft, leaving, whys)


def _free_what_remains(draft: Draft, node: NodeRecord) -> None:
    """Fence the node for VMs that it keeps down, once nothing is left there that may run."""
    state = draft.state
    if draft.transitions or state.config.agent_lost != RESCUE_THEN_FENCE:
        return
    down = would_move(state, node)
    strangers = any(report.state is not QemuState.GONE for report in state.foreign.get(node.name, {}).values())
    if not down or strangers or any(_may_run_there(vm, node) for vm in bound_to(state, node.name)):
        return
    if draft.due(node.rescue_since + REMAINS_S) and not why_not_shot(draft, node):
        why = f"its agent is gone, nothing is known to run there, and {', '.join(down)} would start elsewhere"
        step(draft, node, NodeState.FENCING, why)


def _may_run_there(vm: VmRecord, node: NodeRecord) -> bool:
    """Return whether the VM may run on the node for all that is known; a start that was never confirmed does not."""
    seen = vm.reports.get(node.name)
    if vm.migration or (seen is not None and seen.report.state is not QemuState.GONE):
        return True
    return seen is None and vm.owner == node.name and vm.run_open and vm.run_reached_running


def _is_under_way(state: State, node: NodeRecord) -> bool:
    return any(m.rescue and m.source == node.name and m.phase not in ENDED for m in state.migrations.values())


def _why_it_stays(draft: Draft, vm: VmRecord, node: NodeRecord) -> str:
    strategy = eviction_of(draft.state, vm)
    if strategy not in MOVED_LIVE:
        return f"its eviction strategy is {strategy}, so it runs on without an agent"
    if why := cannot_be_rescued(vm, node):
        return f"it cannot be moved without its agent: {why}"
    if vm.eviction is not None and not draft.due(vm.eviction.retry_at):
        return last_failure(draft.state, vm)
    return ""
