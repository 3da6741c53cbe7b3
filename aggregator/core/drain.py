"""Emptying a node: every VM on it moves, is evicted, or is named as what blocks the drain.

The node's maintenance taint stands from the first moment and survives everything but uncordon.
A drain is over when nothing is bound to its node. Pure.
"""

from __future__ import annotations

from aggregator.core.arming import acts
from aggregator.core.draft import Draft
from aggregator.core.events import DrainChanged, MigrationPhase, MigrationQueued, RunOutcome, StopDecided
from aggregator.core.lookups import binding_to, bound_to, can_order
from aggregator.core.migrate import why_not_migratable
from aggregator.core.seats import place_moves, stays_in_maintenance
from aggregator.core.state import DrainRecord, NodeRecord, State, VmRecord
from fleet.model import EvictionStrategy

PRIORITY_EVICTION = 100
CHECK_AGAIN_S = 2.0


def eviction_of(state: State, vm: VmRecord) -> EvictionStrategy:
    """Return the VM's eviction strategy, the cluster's where it has none."""
    return vm.spec.eviction_strategy or EvictionStrategy(state.config.eviction_strategy)


def eviction_method(state: State, vm: VmRecord) -> tuple[str, str]:
    """Return (method, why) of how this VM would leave its node: migrate, shut down, or blocked."""
    strategy = eviction_of(state, vm)
    if strategy is EvictionStrategy.EXTERNAL:
        return "blocked", "its eviction strategy is External: somebody else has to move it"
    if strategy is EvictionStrategy.NONE:
        return "shut down", "its eviction strategy is None"
    problem = why_not_migratable(state, vm)
    if not problem:
        return "migrate", "it can be live-migrated"
    if strategy is EvictionStrategy.LIVE_MIGRATE_IF_POSSIBLE:
        return "shut down", f"it cannot be live-migrated: {problem}"
    return "blocked", f"it cannot be live-migrated: {problem}"


def decide_drains(draft: Draft) -> None:
    """Move every running drain on."""
    if not acts(draft.state):
        return
    for drain in draft.state.drains.values():
        node = draft.state.nodes.get(drain.node)
        if drain.state == "Running" and node is not None:
            _advance(draft, drain, node)


def _advance(draft: Draft, drain: DrainRecord, node: NodeRecord) -> None:
    there = bound_to(draft.state, node.name)
    vms = [vm for vm in there if not stays_in_maintenance(vm)]
    if not vms:
        left = "what is left on it tolerates maintenance" if there else "nothing is left on it"
        _change(draft, drain, "Done", {}, left)
        return
    if drain.deadline and draft.due(drain.deadline):
        _change(draft, drain, "Expired", drain.blocked, "its deadline has passed")
        return
    blocked: dict[str, str] = {}
    moving: list[VmRecord] = []
    for vm in vms:
        if vm.owner == node.name and vm.run_open and not vm.migration and vm.stopping is None:
            why = _evict(draft, drain, vm, moving)
            if why:
                blocked[vm.name] = why
        elif why := _stuck_copy(draft.state, vm):
            blocked[vm.name] = why
    blocked |= _move(draft, drain, moving)
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


def _evict(draft: Draft, drain: DrainRecord, vm: VmRecord, moving: list[VmRecord]) -> str:
    """Decide how the VM leaves; return why it cannot now, or nothing. moving: takes the VMs that are to migrate."""
    method, why = eviction_method(draft.state, vm)
    if method == "blocked" and not drain.force:
        return why
    if method != "migrate":
        draft.add(StopDecided(at=draft.now, vm=vm.name, outcome=RunOutcome.EVICTED, reason=why, cause=vm.fact))
        return ""
    if not draft.due(drain.retry_at.get(vm.name, 0.0)):
        return _last_failure(draft.state, vm)
    moving.append(vm)
    return ""


def _move(draft: Draft, drain: DrainRecord, moving: list[VmRecord]) -> dict[str, str]:
    """Queue the moves, targets chosen for all of them together; return why some have none."""
    blocked: dict[str, str] = {}
    for vm, verdict in zip(moving, place_moves(draft.state, moving, drain.node) if moving else (), strict=True):
        if verdict.node is None:
            blocked[vm.name] = no_target_words(verdict.rejected)
            continue
        draft.add(
            MigrationQueued(
                at=draft.now,
                migration=draft.new_id("mig"),
                vm=vm.name,
                source=drain.node,
                planned=verdict.node,
                priority=PRIORITY_EVICTION,
                drain=drain.node,
                reason=f"{drain.node} is drained",
                cause=vm.fact,
            )
        )
    return blocked


def no_target_words(rejected: dict[str, tuple[str, ...]]) -> str:
    """Return why a VM cannot move, with the rules per node."""
    reasons = "; ".join(f"{node}: {', '.join(rules)}" for node, rules in sorted(rejected.items()))
    return f"no node takes it ({reasons})"


def _last_failure(state: State, vm: VmRecord) -> str:
    for migration in reversed(state.migrations.values()):
        if migration.vm == vm.name:
            return f"its last migration failed ({migration.reason}); it is tried again"
    return "its last migration failed; it is tried again"
