"""What fails again and again: a VM that loses its node too often, a node that fails too often (safety.md, brakes).

A VM that lost its node more often within an hour than flap.vmPerHourMax is not started before the hour has
passed: whatever brings its nodes down may come with it. A node that failed flap.nodePerDayMax times within a
day gets no VM by itself. Both are said, and a person goes past either (start, uncordon). Pure.
"""

from __future__ import annotations

from aggregator.core.draft import Draft
from aggregator.core.events import NodeFlapping, VmHeld
from aggregator.core.lookups import wants_run
from aggregator.core.state import NodeRecord, VmRecord

HOUR_S = 3600.0
DAY_S = 86400.0


def decide_flaps(draft: Draft) -> None:
    """Hold VMs and mark nodes that fail too often; let both go when their time is over."""
    for vm in draft.state.derived.active_vms:
        if vm.node_losses and not vm.run_open and wants_run(vm) and not vm.start_wanted:
            _hold(draft, vm)
    for node in draft.state.derived.failed:
        _mark(draft, node)


def _hold(draft: Draft, vm: VmRecord) -> None:
    most = draft.state.config.flap.vm_per_hour_max
    lately = [at for at in vm.node_losses if at > draft.now - HOUR_S]
    if len(lately) <= most:
        return
    until = lately[-1 - most] + HOUR_S
    if vm.held_until < until:
        times = "once" if len(lately) == 1 else f"{len(lately)} times"
        why = f"lost its node {times} within an hour, and flap.vmPerHourMax is {most}"
        draft.add(VmHeld(at=draft.now, vm=vm.name, until=until, reason=why, cause=vm.fact))


def _mark(draft: Draft, node: NodeRecord) -> None:
    most = max(1, draft.state.config.flap.node_per_day_max)
    over_at = node.failures[-most] + DAY_S if len(node.failures) >= most else 0.0
    flaps = bool(over_at) and not draft.due(over_at)
    if flaps != node.flaps:
        why = flap_words(node, most) if flaps else "it is given VMs again"
        draft.add(NodeFlapping(at=draft.now, node=node.name, flaps=flaps, reason=why, cause=node.fact))


def flap_words(node: NodeRecord, most: int) -> str:
    """Return why the node is given no VMs by itself, for people."""
    return f"it failed {len(node.failures)} times within a day, and flap.nodePerDayMax is {most}"
