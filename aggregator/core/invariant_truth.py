"""The invariants that only ground truth can judge, over plain facts: what really runs, and where.

The simulator gives them from its model of the world, the laboratory from the process table. Each function returns
what is wrong in one sentence, or nothing. Pure. What the state alone can show is in invariants.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aggregator.core.lookups import wants_run
from aggregator.core.policy import lost_nodes_max
from aggregator.core.state import NodeRecord, State, VmRecord


def runs_once(vm: str, running: Sequence[str]) -> str:
    """S1. running: the nodes on which a QEMU of it runs whose CPUs may run; a frozen one may go on at any time."""
    return f"{vm} runs on {' and '.join(sorted(running))}" if len(running) > 1 else ""


def nothing_is_left(vm: str, node: str, left: Mapping[str, str]) -> str:
    """S2, at a start on `node`. left: by node, what of the VM is there or is being made."""
    where, what = next(iter(left.items()), ("", ""))
    return f"{vm} is ordered to start on {node} while {where} {what}" if where else ""


def epoch_is_new(vm: str, epoch: int, highest: int) -> str:
    """S3. highest: at which it was ever started, or any agent has obeyed."""
    return f"{vm} is started at epoch {epoch}, which is not new" if epoch <= highest else ""


def shot_within_brake(state: State, shot_at: Mapping[str, float], node: NodeRecord, now: float) -> str:
    """S6, at an off order to `node`. shot_at: when each node was last ordered off, with this order in it."""
    lately = sorted(name for name, at in shot_at.items() if at > now - state.config.brake.window)
    limit = lost_nodes_max(state.config, len(state.nodes), _largest_domain(state))
    if len(lately) <= limit or node.fence_wanted:
        return ""
    return f"off was ordered for {', '.join(lately)}; the brake is {limit}"


def _largest_domain(state: State) -> int:
    places = [
        (key, node.labels[key])
        for node in state.nodes.values()
        for key in ("virtward/rack", "virtward/zone")
        if key in node.labels
    ]
    return max(map(places.count, places), default=0)


def runs_at_last(state: State, vm: VmRecord, running: Sequence[str]) -> str:
    """S14, with the faults over for long enough: it runs once, where the aggregator says, or is held by name."""
    should = (vm.run_open and vm.stopping is None) or wants_run(vm)
    waits = vm.postponed is not None and vm.postponed.until > state.now
    if not should or waits or vm.held_until > state.now or vm.pause_asked is not None or vm.rejected:
        return ""
    if not running:
        return f"{vm.name} does not run: {_described(vm)}"
    return "" if vm.owner == running[0] else f"{vm.name} runs on {running[0]}, but: {_described(vm)}"


def _described(vm: VmRecord) -> str:
    bound = ", ".join(f"{b.node} ({b.why})" for b in vm.bindings) or "nothing"
    run = f"run {vm.run} {'open' if vm.run_open else vm.outcome}"
    return f"it is {vm.phase} ({vm.phase_reason}), {run}, bound to {bound}"
