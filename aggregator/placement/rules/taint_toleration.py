"""TaintToleration: NoSchedule and NoExecute taints keep a VM away, PreferNoSchedule makes a node worse.

Semantics: kube-scheduler's TaintToleration plugin.
"""

from __future__ import annotations

import numpy as np

from aggregator.core.objects import Taint, TaintEffect, Toleration
from aggregator.placement.columns import BoolArray, IntArray, TaintSet
from aggregator.placement.compiled import CompiledVm
from aggregator.placement.rules.base import SCORE_MAX, share_of_highest
from aggregator.placement.selectors import tolerates
from aggregator.placement.table import Table

_FORBIDDING = (TaintEffect.NO_SCHEDULE, TaintEffect.NO_EXECUTE)


class TaintToleration:
    name = "TaintToleration"

    def mask(self, vm: CompiledVm, table: Table) -> BoolArray:
        sets = table.columns.taint_sets
        if len(sets) == 1:
            return table.columns.everywhere
        allowed = [_first_forbidding(taints, vm.rules.demands.tolerations) is None for taints in sets]
        return np.array(allowed, dtype=np.bool_)[table.columns.taint_ids]

    def why(self, vm: CompiledVm, table: Table, slot: int) -> str:
        taints = table.columns.taint_sets[int(table.columns.taint_ids[slot])]
        taint = _first_forbidding(taints, vm.rules.demands.tolerations)
        return f"the VM does not tolerate the taint {written(taint)}" if taint else "a taint is not tolerated"

    def score(self, vm: CompiledVm, table: Table, feasible: BoolArray) -> IntArray | int:
        sets = table.columns.taint_sets
        if len(sets) == 1:
            return SCORE_MAX
        concerned = tuple(t for t in vm.rules.demands.tolerations if t.effect in ("", TaintEffect.PREFER_NO_SCHEDULE))
        bad = np.array([_discouraging(taints, concerned) for taints in sets], dtype=np.int64)
        return SCORE_MAX - share_of_highest(bad[table.columns.taint_ids], feasible)


def written(taint: Taint) -> str:
    """Return a taint as `virtward taint` takes it."""
    return f"{taint.key}={taint.value}:{taint.effect}" if taint.value else f"{taint.key}:{taint.effect}"


def _first_forbidding(taints: TaintSet, tolerations: tuple[Toleration, ...]) -> Taint | None:
    return next((t for t in taints if t.effect in _FORBIDDING and not tolerates(tolerations, t)), None)


def _discouraging(taints: TaintSet, tolerations: tuple[Toleration, ...]) -> int:
    return sum(t.effect == TaintEffect.PREFER_NO_SCHEDULE and not tolerates(tolerations, t) for t in taints)
