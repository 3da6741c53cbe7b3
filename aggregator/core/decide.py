"""decide(state, now): everything the aggregator decides, in the order it is decided. Pure.

Each stage looks at the state as all earlier decisions left it: the first stage that decides
anything ends the look, the caller folds it and asks again until nothing is left to decide
(settle.py). So no stage needs to know what another one has just decided.
"""

from __future__ import annotations

from collections.abc import Callable

from aggregator.core.arming import decide_arming
from aggregator.core.breach import decide_breach
from aggregator.core.draft import Decision, Draft
from aggregator.core.drain import decide_drains, decide_host_stops
from aggregator.core.duplicates import decide_duplicates, decide_second_runs
from aggregator.core.evidence import decide_evidence, decide_readiness, decide_trust
from aggregator.core.fencing import decide_fencing
from aggregator.core.flapping import decide_flaps
from aggregator.core.health import decide_health
from aggregator.core.identity import decide_identities
from aggregator.core.incidents import decide_incidents
from aggregator.core.incidents_vm import decide_vm_incidents
from aggregator.core.isolation import decide_isolation
from aggregator.core.leftovers import decide_leftovers
from aggregator.core.migrate import decide_migrations
from aggregator.core.nodes import decide_brake, decide_nodes
from aggregator.core.orphans import decide_orphans
from aggregator.core.phases import decide_phases
from aggregator.core.rebalance import decide_rebalance
from aggregator.core.reconcile import decide_reconcile
from aggregator.core.recovery import decide_starts, decide_stops
from aggregator.core.reference import decide_reference
from aggregator.core.relays import decide_relays
from aggregator.core.rescue import decide_rescues
from aggregator.core.rest import refresh
from aggregator.core.runs import decide_bindings, decide_doubts, decide_orders, decide_runs
from aggregator.core.state import State
from aggregator.core.storage_loss import decide_storage, decide_storage_recovery
from aggregator.core.taint_eviction import decide_taint_evictions

STAGES: tuple[Callable[[Draft], None], ...] = (
    decide_arming,
    decide_breach,
    decide_brake,
    decide_nodes,
    decide_orders,
    decide_bindings,
    decide_reconcile,
    decide_runs,
    decide_doubts,
    decide_second_runs,
    decide_duplicates,
    decide_leftovers,
    decide_orphans,
    decide_incidents,
    decide_identities,
    decide_trust,
    decide_reference,
    decide_evidence,
    decide_relays,
    decide_fencing,
    decide_storage,
    decide_storage_recovery,
    decide_stops,
    decide_isolation,
    decide_health,
    decide_host_stops,
    decide_drains,
    decide_taint_evictions,
    decide_rescues,
    decide_rebalance,
    decide_migrations,
    decide_flaps,
    decide_starts,
    decide_phases,
    decide_vm_incidents,
    decide_readiness,
)
_DEEDS = (
    decide_runs,
    decide_doubts,
    decide_duplicates,
    decide_leftovers,
    decide_orphans,
    decide_fencing,
    decide_storage_recovery,
    decide_stops,
    decide_isolation,
    decide_health,
    decide_host_stops,
    decide_drains,
    decide_taint_evictions,
    decide_rescues,
    decide_rebalance,
    decide_migrations,
    decide_starts,
)
"""What rests while this aggregator only reconciles."""
_STAGES_BEHIND = tuple(stage for stage in STAGES if stage not in _DEEDS)


def decide(state: State, now: float) -> Decision:
    """Return what the first stage with something to decide decides, or nothing.

    now: fleet time in seconds. look_again_at is the earliest time at which anything could be
    decided without a new fact, but for nodes that stop beating (beats.py); inf if there is none.
    """
    refresh(state)
    draft = Draft(state, now)
    for stage in STAGES if not state.behind else _STAGES_BEHIND:
        stage(draft)
        if draft.transitions:
            break
    return draft.decision()
