"""TopologySpread: matching VMs stay even over the values of a topology key.

Semantics: kube-scheduler's PodTopologySpread plugin with its default inclusion policies: only nodes
that match the VM's own nodeSelector and required nodeAffinity and carry all keys are counted.
"""

from __future__ import annotations

import numpy as np

from aggregator.core.labels import HOSTNAME
from aggregator.placement.columns import BoolArray, FloatArray, IntArray, LabelColumn
from aggregator.placement.compiled import CompiledVm, Spread
from aggregator.placement.rules.base import SCORE_MAX, all_pass
from aggregator.placement.table import Table
from aggregator.placement.tallies import count_by_value


class TopologySpread:
    name = "TopologySpread"

    def mask(self, vm: CompiledVm, table: Table) -> BoolArray:
        passes = all_pass(table)
        if vm.spread_hard:
            eligible = table.matching(vm.nodes) & _keyed(vm.spread_hard, table)
            for spread in vm.spread_hard:
                skew = _skew(spread, table, eligible)
                passes &= (table.columns.label(spread.key).ids >= 0) & (skew <= spread.max_skew)
        return passes

    def why(self, vm: CompiledVm, table: Table, slot: int) -> str:
        eligible = table.matching(vm.nodes) & _keyed(vm.spread_hard, table)
        for spread in vm.spread_hard:
            if table.columns.label(spread.key).ids[slot] < 0:
                return f"the node has no label {spread.key}, over which the VM is to be spread"
            skew = int(_skew(spread, table, eligible)[slot])
            if skew > spread.max_skew:
                return f"over {spread.key} the skew would be {skew}; at most {spread.max_skew} is allowed"
        return "the VM would be spread unevenly"

    def score(self, vm: CompiledVm, table: Table, feasible: BoolArray) -> IntArray:
        raw = np.zeros(table.columns.capacity)
        if not vm.spread_soft:
            return raw.astype(np.int64)
        keyed = _keyed(vm.spread_soft, table)
        scored = feasible & keyed
        eligible = table.matching(vm.nodes) & keyed
        for spread in vm.spread_soft:
            raw += _crowding(spread, table, scored, eligible)
        return _emptiest_best(np.floor(raw + 0.5).astype(np.int64), scored)


def _keyed(spreads: tuple[Spread, ...], table: Table) -> BoolArray:
    """Return which nodes carry every topology key of the constraints."""
    keyed = table.columns.present
    for spread in spreads:
        keyed = keyed & (table.columns.label(spread.key).ids >= 0)
    return keyed


def _skew(spread: Spread, table: Table, eligible: BoolArray) -> IntArray:
    """Return per slot how far its domain would be above the emptiest one with the VM in it."""
    column = table.columns.label(spread.key)
    counts = _counts(spread, column, table, eligible)
    domains = _domains(column, eligible)
    if not domains.any():  # nothing to be uneven against
        return np.full(table.columns.capacity, -1, dtype=np.int64)
    return counts[column.ids] + (spread.self_match - int(counts[domains].min()))


def _counts(spread: Spread, column: LabelColumn, table: Table, eligible: BoolArray) -> IntArray:
    return count_by_value(column, table.matches.tally((spread.selector,)).by_node, eligible)


def _domains(column: LabelColumn, among: BoolArray) -> BoolArray:
    """Return per value whether one of these nodes has it; the element past the last is no value."""
    there = np.zeros(len(column.values) + 1, dtype=np.bool_)
    there[column.ids[among]] = True
    return there


def _crowding(spread: Spread, table: Table, scored: BoolArray, eligible: BoolArray) -> FloatArray:
    """Return per slot the raw score of one constraint: the more matching VMs, the higher."""
    column = table.columns.label(spread.key)
    if spread.key == HOSTNAME:
        size = int(scored.sum())
        crowd = table.matches.tally((spread.selector,)).by_node
    else:
        domains = _domains(column, scored)
        size = int(domains.sum())
        crowd = (_counts(spread, column, table, eligible) * domains)[column.ids]
    return crowd.astype(np.float64) * float(np.log(size + 2)) + (spread.max_skew - 1)


def _emptiest_best(raw: IntArray, scored: BoolArray) -> IntArray:
    """Turn round: the least crowded scored node has the most; unscored nodes have 0."""
    among = raw[scored]
    if not among.size:
        return np.zeros_like(raw)
    low, high = int(among.min()), int(among.max())
    turned = np.full_like(raw, SCORE_MAX) if high == 0 else SCORE_MAX * (high + low - raw) // high
    return np.where(scored, turned, 0)
