"""How a VM leaves a node on which it may not stay: by live migration, by a shutdown, or not by itself.

One table for drains and for NoExecute taints (product.md, eviction). It never speaks of dead nodes:
there the run strategy alone decides. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from aggregator.core.draft import Draft
from aggregator.core.events import MigrationQueued, RunOutcome, StopDecided
from aggregator.core.migratable import why_not_migratable
from aggregator.core.seats import place_moves
from aggregator.core.state import State, VmRecord
from fleet.model import EvictionStrategy

PRIORITY_EVICTION = 100
MOVED_LIVE = (EvictionStrategy.LIVE_MIGRATE, EvictionStrategy.LIVE_MIGRATE_IF_POSSIBLE)
CHECK_AGAIN_S = 2.0
EXTERNAL = "its eviction strategy is External: somebody else has to move it (its status names the node to leave)"


def eviction_of(state: State, vm: VmRecord) -> EvictionStrategy:
    """Return the VM's eviction strategy, the cluster's where it has none."""
    return vm.spec.eviction_strategy or EvictionStrategy(state.config.eviction_strategy)


def eviction_method(state: State, vm: VmRecord) -> tuple[str, str]:
    """Return (method, why) of how this VM would leave its node: migrate, shut down, or blocked."""
    strategy = eviction_of(state, vm)
    if strategy is EvictionStrategy.EXTERNAL:
        return "blocked", EXTERNAL
    if strategy is EvictionStrategy.NONE:
        return "shut down", "its eviction strategy is None"
    problem = why_not_migratable(state, vm)
    if not problem:
        return "migrate", "it can be live-migrated"
    if strategy is EvictionStrategy.LIVE_MIGRATE_IF_POSSIBLE:
        return "shut down", f"it cannot be live-migrated: {problem}"
    return "blocked", f"it cannot be live-migrated: {problem}"


def way_out(state: State, vm: VmRecord) -> str:
    """Return what a person can do about a VM that blocks, empty where nothing but waiting helps."""
    if eviction_of(state, vm) is EvictionStrategy.EXTERNAL:
        return f"virtward migrate {vm.name}, or virtward stop {vm.name}"
    if why_not_migratable(state, vm):
        return f"virtward stop {vm.name}, or evictionStrategy: LiveMigrateIfPossible, or drain with --force"
    return ""


def can_be_evicted(vm: VmRecord, node: str) -> bool:
    """Return whether the VM runs on the node and nothing else is being done with it."""
    return vm.owner == node and vm.run_open and not vm.migration and vm.stopping is None


def shut_down(draft: Draft, vm: VmRecord, why: str, leaving: Sequence[VmRecord]) -> str:
    """Decide that the VM is shut down; return what it waits for, or nothing.

    leaving: the VMs that leave the node with it. What depends on it is shut down before it.
    """
    first = [
        other.name
        for other in leaving
        if other is not vm
        and other.run_open
        and any(need.vm == vm.name for need in other.spec.depends_on)
        and eviction_method(draft.state, other)[0] == "shut down"
        and not any(need.vm == other.name for need in vm.spec.depends_on)  # of a circle nobody waits
    ]
    if first:
        return f"it is shut down after {', '.join(first)}, which depends on it"
    draft.add(StopDecided(at=draft.now, vm=vm.name, outcome=RunOutcome.EVICTED, reason=why, cause=vm.fact))
    return ""


def queue_moves(  # noqa: PLR0913 (what each of the three who evict says of its moves)
    draft: Draft,
    node: str,
    moving: Sequence[VmRecord],
    reason: str,
    *,
    drain: str = "",
    priority: int = PRIORITY_EVICTION,
    rescue: bool = False,
) -> dict[str, str]:
    """Queue the moves of VMs off a node, targets chosen for all of them together; return why some have none."""
    blocked: dict[str, str] = {}
    for vm, verdict in zip(moving, place_moves(draft.state, moving, node) if moving else (), strict=True):
        if verdict.node is None:
            blocked[vm.name] = no_target_words(verdict.rejected)
            continue
        draft.add(
            MigrationQueued(
                at=draft.now,
                migration=draft.new_id("mig"),
                vm=vm.name,
                source=node,
                planned=verdict.node,
                priority=priority,
                drain=drain,
                rescue=rescue,
                reason=reason,
                cause=vm.fact,
            )
        )
    return blocked


def no_target_words(rejected: dict[str, tuple[str, ...]]) -> str:
    """Return why a VM cannot move, with the rules per node."""
    reasons = "; ".join(f"{node}: {', '.join(rules)}" for node, rules in sorted(rejected.items()))
    return f"no node takes it ({reasons})"


def last_failure(state: State, vm: VmRecord) -> str:
    """Return why the VM's last migration failed, for one that waits for its next try."""
    for migration in reversed(state.migrations.values()):
        if migration.vm == vm.name:
            return f"its last migration failed ({migration.reason}); it is tried again"
    return "its last migration failed; it is tried again"
