"""How long a VM that went down with its node waits for it: as long as it tolerates `virtward/unreachable:NoExecute`.

The proof that the node is inert is not shortened by it, and not waited for any longer (product.md, node states).
Pure.
"""

from __future__ import annotations

from math import inf

from aggregator.core.moments import rfc3339
from aggregator.core.objects import Taint, TaintEffect, Toleration
from aggregator.core.state import State, VmRecord
from aggregator.placement.selectors import tolerates

UNREACHABLE = Taint(key="virtward/unreachable", effect=TaintEffect.NO_EXECUTE)


def tolerated_s(tolerations: tuple[Toleration, ...], taint: Taint) -> float:
    """Return for how long a taint is tolerated: the smallest of what matches, inf where none of it ends, else 0."""
    matching = [each for each in tolerations if tolerates((each,), taint)]
    return min((inf if each.toleration_seconds is None else each.toleration_seconds for each in matching), default=0.0)


def tolerated_until(state: State, vm: VmRecord) -> float:
    """Return until when the VM waits for the node it was lost with; 0: not at all, inf: until that one returns."""
    node = state.nodes.get(vm.lost_with)
    if node is None or vm.run_open:
        return 0.0
    for taint in node.taints:
        if (taint.key, taint.effect) == (UNREACHABLE.key, UNREACHABLE.effect):
            waits_s = tolerated_s(vm.spec.tolerations, UNREACHABLE)
            return float(taint.time_added or 0.0) + waits_s if waits_s > 0 else 0.0
    return 0.0


def tolerating_words(state: State, now: float, vm: VmRecord) -> str:
    """Return for what the VM waits by its toleration, empty if for nothing."""
    until = tolerated_until(state, vm)
    if until <= now:
        return ""
    ends = "is back" if until == inf else f"is back, at most until {rfc3339(until)}"
    return f"it tolerates {UNREACHABLE.key}:{UNREACHABLE.effect}, so it waits until {vm.lost_with} {ends}"
