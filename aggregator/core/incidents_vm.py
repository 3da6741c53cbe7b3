"""Troubles of one VM that a person has to know of: it runs twice, it is paused between two nodes, nobody can tell.

Pure. What a node's failure does to its VMs is in the node's own incident (incidents.py).
"""

from __future__ import annotations

from aggregator.core.draft import Draft
from aggregator.core.duplicates import second_run_words
from aggregator.core.events import (
    IncidentClosed,
    IncidentNoted,
    IncidentOpened,
    MigrationPhase,
    NodeState,
    RunOutcome,
    VmPhase,
)
from aggregator.core.health import HUNG, failed_words, why_spared
from aggregator.core.state import State, VmRecord

HAND_OVER_S_MAX = 5.0
UNKNOWN_S_MAX = 300.0


def decide_vm_incidents(draft: Draft) -> None:
    """Open, annotate and close the incidents of VMs."""
    for vm in draft.state.derived.active_vms:
        title, way = _trouble(draft, vm)
        incident = draft.state.incidents.get(vm.incident)
        if incident is None and title:
            opened = draft.new_id("inc")
            draft.add(IncidentOpened(at=draft.now, incident=opened, vm=vm.name, title=title, cause=vm.fact))
        elif incident is not None and not title:
            why = f"{vm.name} is {vm.phase}"
            draft.add(IncidentClosed(at=draft.now, incident=incident.name, reason=why, cause=vm.fact))
        elif incident is not None and (incident.stuck, incident.way_out) != (title, way):
            draft.add(
                IncidentNoted(at=draft.now, incident=incident.name, text=title, way_out=way, reason="a person can help")
            )


def _trouble(draft: Draft, vm: VmRecord) -> tuple[str, str]:
    """Return (what is wrong, what a person can do), two empty texts if nothing is."""
    state = draft.state
    second = vm.second_run
    if second is not None and not second.over_at:
        return second_run_words(draft, vm, second)
    if vm.stopping is RunOutcome.FAILED or failed_words(state, vm):
        return _liveness_words(draft, vm)
    migration = state.migrations.get(vm.migration)
    if migration is not None and migration.phase is MigrationPhase.HANDING_OVER:
        if not draft.due(migration.handed_over + HAND_OVER_S_MAX):
            return "", ""
        source, target = migration.source, migration.target
        way = f"see that virtward-agent runs on {target}; its copy there may be resumed by hand as well"
        title = f"{vm.name} is paused: {source} has released it and {target} has not resumed it"
        return title, f"{way}: virsh resume {vm.name}"
    if vm.phase is VmPhase.UNKNOWN and not _told_by_node(state, vm) and draft.due(vm.phase_since + UNKNOWN_S_MAX):
        where = ", ".join(dict.fromkeys(binding.node for binding in vm.bindings)) or "no node"
        way = f"look on {where} (virsh list, virtward-agent's log); if it runs nowhere: virtward confirm-gone {vm.name}"
        return f"nobody can tell whether {vm.name} runs: {vm.phase_reason}", way
    return second_run_words(draft, vm, second) if second is not None else ("", "")


def _liveness_words(draft: Draft, vm: VmRecord) -> tuple[str, str]:
    failed = failed_words(draft.state, vm) or HUNG
    title = f"{vm.name}'s {failed.removeprefix('its ')}"
    spared = why_spared(draft.state, vm) if vm.stopping is None else ""
    if spared:
        return title, f"it is left running, because {spared}; to end it: virtward stop {vm.name} --force"
    return title, f"nothing: its run is ended as failed, and runStrategy {vm.spec.run_strategy} says what follows"


def _told_by_node(state: State, vm: VmRecord) -> bool:
    """Return whether a node it is bound to is not well: then that is the trouble, and its incident says so."""
    nodes = [state.nodes.get(binding.node) for binding in vm.bindings]
    return any(node is not None and node.state is not NodeState.UP for node in nodes)
