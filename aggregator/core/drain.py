"""Emptying a node: every VM on it moves, is evicted, or is named as what blocks the drain.

The node's maintenance taint stands from the first moment and survives everything but uncordon.
A drain is over when nothing is bound to its node. Drains of one job go one failure domain after
another: the next one waits until the nodes of the one before are open again. Pure.
"""

from __future__ import annotations

from aggregator.core.arming import acts
from aggregator.core.draft import Draft
from aggregator.core.events import DrainChanged, HostStopBegan, HostStopEnded, MigrationPhase, NodeState
from aggregator.core.eviction import (
    CHECK_AGAIN_S,
    can_be_evicted,
    eviction_method,
    last_failure,
    queue_moves,
    shut_down,
)
from aggregator.core.fold_moves import DRAINS_OPEN
from aggregator.core.lookups import binding_to, bound_to, can_order
from aggregator.core.seats import stays_in_maintenance
from aggregator.core.state import DrainRecord, NodeRecord, State, VmRecord

VERDICT_FRESH_S = 30.0  # what was thought of a fleet that may have changed since


def decide_drains(draft: Draft) -> None:
    """Move every drain on that is not over."""
    if not acts(draft.state):
        return
    for drain in draft.state.drains.values():
        node = draft.state.nodes.get(drain.node)
        if drain.state not in DRAINS_OPEN or node is None:
            continue
        if drain.deadline and draft.due(drain.deadline):
            _change(draft, drain, "Expired", drain.blocked, "its deadline has passed")
        elif drain.state == "Running":
            _advance(draft, drain, node)
        elif drain.state == "Waiting" and not why_waiting(draft.state, drain):
            _change(draft, drain, "Running", {}, "its turn has come" if drain.domain else "")
        if draft.transitions:
            return


def decide_host_stops(draft: Draft) -> None:
    """Begin to empty a node whose host is being shut down, and let it take VMs again when the host is back."""
    for node in draft.state.derived.active_nodes:
        told = node.facts.stopping_s if node.facts is not None else 0.0
        if told and not node.host_stopping and node.connected:
            why = f"its host is being shut down, and waits {told:g} s for its guests"
            draft.add(HostStopBegan(at=draft.now, node=node.name, within_s=told, reason=why, cause=node.fact))
        elif not told and node.host_stopping and node.state is NodeState.UP:
            why = "its host is back"
            draft.add(HostStopEnded(at=draft.now, node=node.name, reason=why, cause=node.fact))


def why_waiting(state: State, drain: DrainRecord) -> str:
    """Return what a drain of a job waits for, empty when its turn has come."""
    if why := why_not_its_turn(state, drain):
        return why
    if not drain.keeps_spare:
        return ""
    if drain.judged_at <= state.now - VERDICT_FRESH_S:
        return "whether another node could be lost while it is empty is being thought through"
    return drain.judged_why


def why_not_its_turn(state: State, drain: DrainRecord) -> str:
    """Return which nodes a drain of a job waits for, empty if for none."""
    for other in state.drains.values():
        node = state.nodes.get(other.node)
        if other.job != drain.job or other.domain == drain.domain or node is None:
            continue
        if other.state in DRAINS_OPEN and other.state != "Waiting":
            return f"{other.node} is still being emptied"
        if node.drain and other.state != "Waiting":
            return f"{other.node} is in maintenance; virtward uncordon {other.node} when it is done"
        if other.state == "Waiting" and (other.since, other.turn) < (drain.since, drain.turn):
            return f"{other.node} comes before it"
    failing = sorted(n.name for n in state.nodes.values() if n.approved and n.state is not NodeState.UP and not n.drain)
    return f"{', '.join(failing[:3])} {'is' if len(failing) == 1 else 'are'} not Up" if failing else ""


def _advance(draft: Draft, drain: DrainRecord, node: NodeRecord) -> None:
    there = bound_to(draft.state, node.name)
    vms = [vm for vm in there if not stays_in_maintenance(vm)]
    if not vms:
        left = "what is left on it tolerates maintenance" if there else "nothing is left on it"
        _change(draft, drain, "Done", {}, left)
        return
    blocked: dict[str, str] = {}
    moving: list[VmRecord] = []
    for vm in vms:
        if can_be_evicted(vm, node.name):
            why = _evict(draft, drain, vm, moving, vms)
            if why:
                blocked[vm.name] = why
        elif why := _stuck_copy(draft.state, vm):
            blocked[vm.name] = why
    blocked |= queue_moves(draft, drain.node, moving, f"{drain.node} is drained", drain=drain.node)
    if blocked:
        draft.look_again(draft.now + CHECK_AGAIN_S)
    if blocked != drain.blocked:
        _change(draft, drain, "Running", blocked, "what blocks it changed")


def _stuck_copy(state: State, vm: VmRecord) -> str:
    """Return why a copy that was called off still binds the VM, empty where there is none or it is being ended."""
    migration = state.migrations.get(vm.migration)
    if migration is None or migration.phase is not MigrationPhase.DISCARDING:
        return ""
    if binding_to(vm, migration.target) is None:
        return ""
    target = state.nodes.get(migration.target)
    if can_order(target):
        return ""
    where = f"{target.name} is {target.state}" if target is not None else "its target is gone"
    return f"its copy at {migration.target} cannot be taken back: {where}"


def _change(draft: Draft, drain: DrainRecord, state: str, blocked: dict[str, str], reason: str) -> None:
    draft.add(
        DrainChanged(
            at=draft.now,
            node=drain.node,
            state=state,
            blocked=blocked,
            reason=reason,
            cause=draft.state.position,
        )
    )


def _evict(draft: Draft, drain: DrainRecord, vm: VmRecord, moving: list[VmRecord], leaving: list[VmRecord]) -> str:
    """Decide how the VM leaves; return why it cannot now, or nothing. moving: takes the VMs that are to migrate."""
    method, why = eviction_method(draft.state, vm)
    if method == "blocked" and not drain.force:
        return why
    if method != "migrate":
        return shut_down(draft, vm, why, leaving)
    if not draft.due(drain.retry_at.get(vm.name, 0.0)):
        return last_failure(draft.state, vm)
    moving.append(vm)
    return ""
