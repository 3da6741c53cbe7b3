"""The fleet in a few lines: what `virtward status` and the top of the page show.

Pure. Counts by state, what is wrong, and every setting that differs from its default.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from aggregator.core.arming import acts, arm_command, disarmed_words
from aggregator.core.fold_moves import ENDED
from aggregator.core.lookups import counts_from, grace_over
from aggregator.core.moments import rfc3339
from aggregator.core.policy import ClusterConfig, write_config
from aggregator.core.state import State
from aggregator.core.views import Plain
from aggregator.core.views_balance import rebalance_view
from aggregator.core.views_vm import BACK_BY_ITSELF, unprotected


def fleet_view(state: State, now: float) -> Plain:
    """Return the summary of the fleet. holds: sentences on what keeps virtward from acting."""
    moving = [record.name for record in state.migrations.values() if record.phase not in ENDED]
    return {
        "mode": state.config.mode,
        "leader": {"term": state.leader.term, "position": state.position, "since": rfc3339(state.started_at)},
        "nodes": {"total": len(state.nodes), **_counts(node.state for node in state.nodes.values())},
        "vms": {"total": len(state.vms), **_counts(vm.phase for vm in state.vms.values())},
        "unprotected": sum(
            vm.spec.run_strategy in BACK_BY_ITSELF and bool(unprotected(state, vm)[0]) for vm in state.vms.values()
        ),
        "incidents": [
            {"name": record.name, "title": record.title, "opened": rfc3339(record.opened), "wayOut": record.way_out}
            for record in state.incidents.values()
            if not record.closed
        ],
        "drains": [
            {"name": record.node, "blocked": sorted(record.blocked)}
            for record in state.drains.values()
            if record.state == "Running"
        ],
        "migrations": moving,
        "rebalance": rebalance_view(state, now)["words"],
        "holds": holds(state, now),
        "settings": changed_settings(state.config),
    }


def _counts(words: Iterable[str]) -> dict[str, int]:
    return {str(word): count for word, count in sorted(Counter(words).items())}


def holds(state: State, now: float) -> list[str]:
    """Return what keeps virtward from acting now, a sentence each; empty if nothing does."""
    found = []
    if not acts(state):
        found.append("the fleet only observes (mode Observe): nothing is fenced, started or moved")
    found += [
        f"{disarmed_words(held)}: nothing of it is fenced, started or moved without a person ({arm_command(held)})"
        for held in state.disarmed.values()
    ]
    if state.nodes and not grace_over(state, now):
        until = rfc3339(counts_from(state) + state.config.startup_grace.at_most)
        found.append(f"start-up grace until {until}, or until {state.config.startup_grace.seen} of the nodes were seen")
    if state.brake_closed:
        found.append(
            "the brake is closed: too many nodes fell silent within brake.window, so nothing is fenced without a person"
        )
    if state.doubted_at and now < state.doubted_at + state.config.lost_after:
        found.append(f"the aggregator doubts itself ({state.doubt}); verdicts wait one window")
    return found


def changed_settings(config: ClusterConfig) -> Plain:
    """Return the settings that differ from their defaults, as a part of a ClusterConfig."""
    return _difference(write_config(config), write_config(ClusterConfig()))


def _difference(now: Plain, default: Plain) -> Plain:
    found: Plain = {}
    for key, value in now.items():
        usual = default.get(key)
        if isinstance(value, dict) and isinstance(usual, dict):
            if below := _difference(value, usual):
                found[key] = below
        elif value != usual:
            found[key] = value
    return found
