"""Which slot is the best for a VM: every node is considered, but only what changed is computed anew.

Per kind of VM (demands, request, weights) the table remembers a Standing: the filters and scores that
hang on a slot alone, as one number a slot to sort by. Rules that hang on the whole fleet are asked for each VM
and laid on top. All rules stay where they are, in rules/; this file only knows in which way each may be remembered.

The number: (weighted sum + LIFT) · VMS_SPAN − VMs on the node, and 0 where the VM does not fit. So the highest
is the best, and of equals the one with the fewest VMs. It fits 64 bits because weights are held to ±WEIGHT_MAX.
"""

from __future__ import annotations

import functools

import numpy as np
from msgspec import Struct

from aggregator.placement.columns import BoolArray, IntArray
from aggregator.placement.compiled import CompiledVm
from aggregator.placement.rules import (
    FLEET_FILTERS,
    FLEET_SCORES,
    NODE_FILTERS,
    PROFILE_SCORES,
    SLOT_FILTERS,
    SLOT_SCORES,
    Score,
    SlotScore,
)
from aggregator.placement.rules.base import ALL, Slots, pick
from aggregator.placement.standing import Standing
from aggregator.placement.table import Table
from aggregator.placement.types import ScoreSettings

WEIGHT_MAX = 10**6
VMS_SPAN = 2**20  # nodes with more VMs than that count as equally crowded
LIFT = 2**40  # above 100 · WEIGHT_MAX · the number of score rules, so that no sum is below 1
SCORINGS_MAX = 64  # settings that are remembered ready for use
MENDED_SHARE = 8  # one slot in so many may have changed; if more have, all are computed anew


class Scoring(Struct, frozen=True):
    """The settings, ready for use: score rules with their weights, by what their answer hangs on."""

    slot: tuple[tuple[SlotScore, int], ...]
    fleet: tuple[tuple[Score, int], ...]
    key: tuple[tuple[str, int], ...]  # of the slot scores, to remember by; empty: no scoring, nor counting of VMs


def scoring_of(settings: ScoreSettings) -> Scoring:
    """Return the scoring of settings; KeyError: there is no such profile."""
    return _scoring(settings.profile, tuple(settings.weights.items()))


@functools.lru_cache(maxsize=SCORINGS_MAX)
def _scoring(profile: str, written: tuple[tuple[str, int], ...]) -> Scoring:
    settings = ScoreSettings(profile=profile, weights=dict(written))
    weights = {
        rule.name: max(-WEIGHT_MAX, min(WEIGHT_MAX, settings.weight(rule.name))) for rule in PROFILE_SCORES[profile]
    }
    slot = tuple((rule, weights[rule.name]) for rule in SLOT_SCORES if rule.name in weights)
    fleet = tuple((rule, weights[rule.name]) for rule in FLEET_SCORES if rule.name in weights)
    return Scoring(slot, fleet, tuple((rule.name, weight) for rule, weight in slot))


class Ranked(Struct, eq=False):
    """Where a VM may run and where best. slot: None if nowhere; rotation: the next VM's counter.

    key: the number by slot; what it says of slots that are not feasible means nothing.
    """

    key: IntArray
    feasible: BoolArray
    slot: int | None
    rotation: int


def rank(vm: CompiledVm, table: Table, scoring: Scoring, rotation: int, excluded: list[int]) -> Ranked:
    """Return the best slot; equal: fewest VMs, then the next by name from the rotation on."""
    standing = _current(vm, table, scoring)
    feasible, key = standing.fits, standing.key
    for fleet_filter in FLEET_FILTERS:
        mask = fleet_filter.mask(vm, table)
        if mask is not table.columns.everywhere:
            feasible = feasible & mask
    if excluded:
        feasible = feasible.copy()
        feasible[excluded] = False
    for rule, weight in scoring.fleet:
        score = rule.score(vm, table, feasible)
        if not isinstance(score, int):  # the same everywhere changes no order
            key = key + score * (weight * VMS_SPAN)
    found = _first_best(key, feasible, table, rotation)
    if found.slot is None or feasible[found.slot]:  # what may not be is seldom the best: LIFT is above all scores
        return found
    return _first_best(np.where(feasible, key, 0), feasible, table, rotation)


def best_slots(ranked: Ranked, table: Table, count: int) -> list[int]:
    """Return the chosen slot and the next best ones, of equals by name, so many in all or fewer."""
    if ranked.slot is None:
        return []
    by_name = table.columns.by_name
    slots = by_name[ranked.feasible[by_name]]
    best = slots[np.argsort(-ranked.key[slots], kind="stable")[:count]].tolist()
    return [ranked.slot, *(slot for slot in best if slot != ranked.slot)][:count]


def _first_best(key: IntArray, feasible: BoolArray, table: Table, rotation: int) -> Ranked:
    nodes = len(table.columns.slot_of)
    if not nodes:
        return Ranked(key, feasible, None, rotation)
    by_name = table.columns.by_name
    turn = key[:nodes] if table.columns.in_order else key.take(by_name)
    best = int(turn.argmax())
    if not turn[best]:
        return Ranked(key, feasible, None, rotation)
    begin = rotation % nodes
    later = begin + int(turn[begin:].argmax())
    if turn[later] == turn[best]:
        best = later
    return Ranked(key, feasible, int(by_name[best]), (best + 1) % nodes)


def _current(vm: CompiledVm, table: Table, scoring: Scoring) -> Standing:
    """Return the standing of the VM's kind, mended where slots have changed since it was asked for last."""
    remembered = (vm.rules.demands, vm.request, scoring.key)
    standing = table.standings.get(remembered)
    if standing is None:
        standing = table.standings.put(remembered, _empty(vm, table))
    changed = table.changes.since(standing.mark)
    if changed is None or len(changed) * MENDED_SHARE > table.columns.capacity:
        _mend(standing, vm, table, scoring, ALL)
    elif changed:
        _mend(standing, vm, table, scoring, np.array(changed, dtype=np.int64))
    standing.mark = table.changes.mark
    return standing


def _empty(vm: CompiledVm, table: Table) -> Standing:
    is_open = table.columns.present.copy()
    for node_filter in NODE_FILTERS:
        is_open &= node_filter.mask(vm, table)
    return Standing(is_open, np.zeros_like(is_open), np.zeros(table.columns.capacity, dtype=np.int64))


def _mend(standing: Standing, vm: CompiledVm, table: Table, scoring: Scoring, at: Slots) -> None:
    fits = pick(standing.open, at)
    for slot_filter in SLOT_FILTERS:
        mask = slot_filter.mask(vm, table, at)
        if mask is not table.columns.everywhere:
            fits = fits & mask
    key = np.full(fits.shape, LIFT, dtype=np.int64)
    for rule, weight in scoring.slot:
        key += rule.score(vm, table, fits, at) * weight
    key *= VMS_SPAN
    if scoring.key:
        key -= np.minimum(pick(table.vms, at), VMS_SPAN - 1)
    every = slice(None) if at is None else at
    standing.fits[every] = fits
    standing.key[every] = key * fits
