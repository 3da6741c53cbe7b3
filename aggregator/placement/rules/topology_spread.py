"""TopologySpread: matching VMs stay even over the values of a topology key.

Semantics: kube-scheduler's PodTopologySpread plugin with its default inclusion policies: only nodes
that match the VM's own nodeSelector and required nodeAffinity and carry all keys are counted.
"""

from __future__ import annotations

import numpy as np

from aggregator.core.labels import HOSTNAME
from aggregator.placement.columns import BoolArray, FloatArray, IntArray, LabelColumn
from aggregator.placement.compiled import CompiledVm, Spread
from aggregator.placement.masks import Eligible, domains_of
from aggregator.placement.rules.base import SCORE_MAX
from aggregator.placement.table import Table


class TopologySpread:
    name = "TopologySpread"

    def mask(self, vm: CompiledVm, table: Table) -> BoolArray:
        passes = table.columns.everywhere
        if vm.rules.spread_hard:
            eligible = _eligible(vm.rules.spread_hard, vm, table)
            for spread in vm.rules.spread_hard:
                column = table.columns.label(spread.key)
                allowed = _skew(spread, column, table, eligible) <= spread.max_skew
                allowed[0] = False  # no label: no domain
                passes = passes & column.spread_out(allowed)
        return passes

    def why(self, vm: CompiledVm, table: Table, slot: int) -> str:
        eligible = _eligible(vm.rules.spread_hard, vm, table)
        for spread in vm.rules.spread_hard:
            column = table.columns.label(spread.key)
            value = column.ids[slot]
            if not value:
                return f"the node has no label {spread.key}, over which the VM is to be spread"
            skew = int(_skew(spread, column, table, eligible)[value])
            if skew > spread.max_skew:
                return f"over {spread.key} the skew would be {skew}; at most {spread.max_skew} is allowed"
        return "the VM would be spread unevenly"

    def score(self, vm: CompiledVm, table: Table, feasible: BoolArray) -> IntArray | int:
        if not vm.rules.spread_soft:
            return 0
        eligible = _eligible(vm.rules.spread_soft, vm, table)
        scored = feasible & eligible.nodes
        raw = np.zeros(table.columns.capacity)
        for spread in vm.rules.spread_soft:
            raw += _crowding(spread, table, scored, eligible)
        return _emptiest_best(np.floor(raw + 0.5).astype(np.int64), scored)


def _eligible(spreads: tuple[Spread, ...], vm: CompiledVm, table: Table) -> Eligible:
    """Return the nodes that count: those that the VM demands and that carry every key of the constraints."""
    return table.masks.eligible(vm.rules.demands.nodes, tuple(spread.key for spread in spreads))


def _skew(spread: Spread, column: LabelColumn, table: Table, eligible: Eligible) -> IntArray:
    """Return per value of the key how far it would be above the emptiest domain with the VM in it."""
    counts = _counts(spread, column, table, eligible)
    domains = counts[eligible.domains(column)]
    if not domains.size:  # nothing to be uneven against
        return np.full_like(counts, -1)
    return counts + (spread.self_match - int(domains.min()))


def _counts(spread: Spread, column: LabelColumn, table: Table, eligible: Eligible) -> IntArray:
    return table.matches.tally((spread.selector,)).by_value(column, eligible.nodes)


def _crowding(spread: Spread, table: Table, scored: BoolArray, eligible: Eligible) -> FloatArray:
    """Return per slot the raw score of one constraint: the more matching VMs, the higher."""
    if spread.key == HOSTNAME:
        size = int(scored.sum())
        crowd = table.matches.tally((spread.selector,)).per_node(table.columns.own)
    else:
        column = table.columns.label(spread.key)
        domains = domains_of(column, scored)
        size = int(domains.sum())
        crowd = column.spread_out(_counts(spread, column, table, eligible) * domains)
    return crowd.astype(np.float64) * float(np.log(size + 2)) + (spread.max_skew - 1)


def _emptiest_best(raw: IntArray, scored: BoolArray) -> IntArray:
    """Turn round: the least crowded scored node has the most; unscored nodes have 0."""
    among = raw[scored]
    if not among.size:
        return np.zeros_like(raw)
    low, high = int(among.min()), int(among.max())
    turned = np.full_like(raw, SCORE_MAX) if high == 0 else SCORE_MAX * (high + low - raw) // high
    return np.where(scored, turned, 0)
