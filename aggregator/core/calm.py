"""Whether nothing in the fleet is failing, doubted, or being changed: only then is anything moved for balance. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from aggregator.core.arming import acts
from aggregator.core.events import NodeState, VmPhase
from aggregator.core.fold_moves import DRAINS_OPEN, ENDED
from aggregator.core.lookups import doubt_over_at, grace_over, takes_vms
from aggregator.core.state import MigrationRecord, NodeRecord, State

_UNDER_WAY = (
    VmPhase.PENDING,
    VmPhase.STARTING,
    VmPhase.STOPPING,
    VmPhase.RECOVERING,
    VmPhase.CRASH_LOOP_BACK_OFF,
    VmPhase.UNKNOWN,
)


def why_not_calm(state: State, now: float, own: Sequence[MigrationRecord] = ()) -> str:
    """Return the first thing that is wrong or under way, empty if all is calm. own: migrations that do not count."""
    return (
        _why_held(state, now)
        or next(filter(None, map(_why_node, state.nodes.values())), "")
        or _why_moving(state, own)
        or next((f"VM {vm.name} is {vm.phase}" for vm in state.vms.values() if vm.phase in _UNDER_WAY), "")
    )


def _why_held(state: State, now: float) -> str:
    if not acts(state):
        return "the fleet only observes (mode Observe)"
    if state.disarmed:
        return "something is disarmed"
    if state.behind or state.breach:
        return state.behind or "an invariant was broken"
    if not grace_over(state, now):
        return "the start-up grace is not over"
    if state.brake_closed:
        return "the brake is closed"
    if state.doubted_at and now < doubt_over_at(state):
        return f"the aggregator doubts itself ({state.doubt})"
    found = next((record.name for record in state.incidents.values() if not record.closed), "")
    return f"incident {found} is open" if found else ""


def _why_node(node: NodeRecord) -> str:
    if node.state is NodeState.JOINING:
        return ""
    if node.state is not NodeState.UP:
        return f"{node.name} is {node.state}"
    troubled = node.suspicion is not None or node.attempt is not None or node.inert is not None or node.incident
    if troubled or node.storage_lost or not takes_vms(node):
        return f"{node.name} is not quite well"
    return ""


def _why_moving(state: State, own: Sequence[MigrationRecord]) -> str:
    if drain := next((record.node for record in state.drains.values() if record.state in DRAINS_OPEN), ""):
        return f"{drain} is being drained"
    mine = {migration.name for migration in own}
    for migration in state.migrations.values():
        if migration.phase not in ENDED and migration.name not in mine:
            return f"{migration.name} moves {migration.vm}"
    evicted = next((vm.name for vm in state.vms.values() if vm.eviction is not None), "")
    return f"VM {evicted} has to leave its node" if evicted else ""
