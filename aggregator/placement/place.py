"""Where may a VM run, where would it run best, and why not elsewhere: one VM or a batch.

Pure: the same rule objects serve recovery, drain, what-if, explain and `virtward place`.
place_batch is greedy: by priority, then biggest first, reserving as it goes. What greedy leaves is seated by
moving others of the same batch (reseat.py), if the settings give it a budget.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum

import numpy as np
from msgspec import structs

from aggregator.core.choice import CONTENDERS_MAX, Contender
from aggregator.placement.columns import IntArray
from aggregator.placement.compiled import CompiledVm
from aggregator.placement.ranking import Ranked, best_slots, rank, scoring_of
from aggregator.placement.reseat import reseat
from aggregator.placement.rules import FILTERS, PROFILE_SCORES, SCORES, Score
from aggregator.placement.table import Table
from aggregator.placement.types import Excluded, PlacementNode, PlacementVm, ScoreSettings, Seat, Verdict

NONE_EXCLUDED: Excluded = {}


class Told(Enum):
    """How much a batch says of a VM that is placed: its node, the best nodes with their scores, or every node.

    On thousands of nodes most of the time would go into the words. Of a VM that is not placed all is said.
    """

    NODE = 1
    BEST = 2
    ALL = 3


def build_table(nodes: Iterable[PlacementNode], seated: Iterable[Seat] = ()) -> Table:
    """Return a table of these nodes and VMs; a VM on a node that is not among them counts nowhere."""
    listed = sorted(nodes, key=lambda node: node.name)  # slots in the order of names are the fastest to rank
    table = Table(len(listed))
    for node in listed:
        table.put_node(node)
    for vm, name in seated:
        if name in table.columns.slot_of:
            table.seat(vm, name)
    return table


def judge(
    vm: PlacementVm,
    table: Table,
    settings: ScoreSettings,
    rotation: int = 0,
    *,
    all_scores: bool = False,
    excluded: Excluded = NONE_EXCLUDED,
) -> Verdict:
    """Return where the VM may run, the scores, and the choice; the table is as before afterwards.

    The VM's own seats do not count against it. excluded: nodes it must not be put on, each with the
    name that then stands among the rules that reject it. all_scores: also of rules outside the profile.
    """
    excluded_slots = [table.columns.slot_of[name] for name in excluded if name in table.columns.slot_of]
    scores = SCORES if all_scores else PROFILE_SCORES[settings.profile]
    with table.without(vm.name):
        compiled = table.compiled(vm)
        ranked = rank(compiled, table, scoring_of(settings), rotation, excluded_slots)
        verdict = _explained(compiled, ranked, table, scores, excluded)
        return _with_contenders(verdict, compiled, ranked, table, settings)


def place_batch(
    vms: Sequence[PlacementVm],
    table: Table,
    settings: ScoreSettings,
    rotation: int = 0,
    *,
    keep: bool = False,
    told: Told = Told.ALL,
) -> list[Verdict]:
    """Return one verdict per VM, in the order given; each VM is judged after those placed before it.

    The table is as before afterwards unless `keep`. A VM that has a seat already (a migration) is judged
    without it and then counts on both nodes. told: how much is said of a VM that is placed.
    """
    verdicts: dict[int, Verdict] = {}
    given: dict[str, str] = {}
    scoring = scoring_of(settings)
    scores = PROFILE_SCORES[settings.profile]
    try:
        for index in _order(vms, table):
            vm = vms[index]
            with table.without(vm.name):
                compiled = table.compiled(vm)
                ranked = rank(compiled, table, scoring, rotation, [])
                if told is Told.ALL or ranked.slot is None:
                    verdict = _explained(compiled, ranked, table, scores, NONE_EXCLUDED)
                else:
                    verdict = _named(compiled, ranked, table)
                if told is not Told.NODE:
                    verdict = _with_contenders(verdict, compiled, ranked, table, settings)
            verdicts[index] = verdict
            rotation = verdict.rotation
            if verdict.node is not None and verdict.node not in table.seats_of(vm.name):
                table.seat(vm, verdict.node)
                given[vm.name] = verdict.node
        found = [verdicts[index] for index in range(len(vms))]
        return _mended(vms, found, given, table, settings) if settings.solver_budget_s > 0 else found
    finally:
        if not keep:
            for name, node in given.items():
                table.unseat(name, node)


def _mended(
    vms: Sequence[PlacementVm], found: list[Verdict], given: dict[str, str], table: Table, settings: ScoreSettings
) -> list[Verdict]:
    """Return the verdicts after re-seating; given is brought up to date with the table."""
    if all(verdict.node is not None for verdict in found) or not given:
        return found
    batch = [(vm, given.get(vm.name, verdict.node)) for vm, verdict in zip(vms, found, strict=True)]
    seats = reseat(batch, table, settings.solver_budget_s).seats
    for name, node in seats.items():
        given.pop(name, None)
        if node is not None:
            given[name] = node
    return [
        _judged_at(seats[vm.name], vm, table, settings, verdict.rotation) if vm.name in seats else verdict
        for vm, verdict in zip(vms, found, strict=True)
    ]


def _judged_at(node: str | None, vm: PlacementVm, table: Table, settings: ScoreSettings, rotation: int) -> Verdict:
    """Return the verdict on a VM that sits on this node already, or has lost its seat to others."""
    verdict = judge(vm, table, settings, rotation)
    return structs.replace(verdict, node=node, rotation=rotation)


def reasons(vm: PlacementVm, table: Table, node: str) -> dict[str, str]:
    """Return per rule that rejects the VM on this node the reason in words; KeyError: no such node."""
    slot = table.columns.slot_of[node]
    with table.without(vm.name):
        compiled = table.compiled(vm)
        return {f.name: f.why(compiled, table, slot) for f in FILTERS if not f.mask(compiled, table)[slot]}


def _named(vm: CompiledVm, ranked: Ranked, table: Table) -> Verdict:
    node = None if ranked.slot is None else table.name(ranked.slot)
    return Verdict(vm=vm.vm.name, node=node, rotation=ranked.rotation)


def _with_contenders(
    verdict: Verdict, vm: CompiledVm, ranked: Ranked, table: Table, settings: ScoreSettings
) -> Verdict:
    """Return the verdict with the best nodes and what each rule of the profile gives them."""
    slots = best_slots(ranked, table, CONTENDERS_MAX)
    if not slots:
        return verdict
    scores: dict[str, list[int]] = {}
    for rule in PROFILE_SCORES[settings.profile]:
        score = rule.score(vm, table, ranked.feasible)
        scores[rule.name] = [score] * len(slots) if isinstance(score, int) else score[slots].tolist()
    found = []
    for place, slot in enumerate(slots):
        given = {rule: by_place[place] for rule, by_place in scores.items()}
        total = sum(score * settings.weight(rule) for rule, score in given.items())
        found.append(Contender(node=table.name(slot), total=total, vms=int(table.vms[slot]), scores=given))
    fits = int(np.count_nonzero(ranked.feasible & table.columns.present))
    return structs.replace(verdict, contenders=tuple(found), fits=fits)


def _explained(vm: CompiledVm, ranked: Ranked, table: Table, scores: Sequence[Score], excluded: Excluded) -> Verdict:
    """Return the verdict with what every rule says of every node."""
    columns = table.columns
    order = columns.by_name
    fits = ranked.feasible[order]
    feasible = tuple(columns.node(slot).name for slot in order[fits])
    named = _named(vm, ranked, table)
    return Verdict(
        vm=named.vm,
        feasible=feasible,
        rejected=_rejected(vm, table, order[~fits], excluded),
        scores=_scored(vm, ranked, table, scores, feasible) if feasible else {},
        node=named.node,
        rotation=named.rotation,
    )


def _rejected(vm: CompiledVm, table: Table, slots: IntArray, excluded: Excluded) -> dict[str, tuple[str, ...]]:
    """Return per node of these slots the rules that reject it; nodes with the same rules share one tuple."""
    rules = sorted(FILTERS, key=lambda rule: rule.name)
    codes = np.zeros(len(slots), dtype=np.int64)
    for place, rule in enumerate(rules):
        codes |= ~rule.mask(vm, table)[slots] * np.int64(1 << place)
    told = {code: tuple(r.name for place, r in enumerate(rules) if code >> place & 1) for code in set(codes.tolist())}
    rejected = {table.name(slot): told[code] for slot, code in zip(slots.tolist(), codes.tolist(), strict=True)}
    for name, reason in excluded.items():
        if name in rejected:
            rejected[name] = tuple(sorted((*rejected[name], reason)))
    return rejected


def _scored(
    vm: CompiledVm, ranked: Ranked, table: Table, scores: Sequence[Score], feasible: tuple[str, ...]
) -> dict[str, dict[str, int]]:
    slots = table.columns.by_name[ranked.feasible[table.columns.by_name]]
    told: dict[str, dict[str, int]] = {}
    for rule in scores:
        score = rule.score(vm, table, ranked.feasible)
        if isinstance(score, int):
            told[rule.name] = dict.fromkeys(feasible, score)
        else:
            told[rule.name] = dict(zip(feasible, score[slots].tolist(), strict=True))
    return told


def _order(vms: Sequence[PlacementVm], table: Table) -> list[int]:
    """Return the indexes by priority, then biggest share of the fleet first, then name."""
    if len(vms) == 1:  # as recovery asks for most of the time
        return [0]
    cpu, memory = (max(1.0, float(total)) for total in table.columns.has.sum(axis=1))

    def urgency(index: int) -> tuple[int, float, str]:
        vm = vms[index]
        return -vm.spec.restart_priority, -(vm.cpu_m / cpu + vm.memory_bytes / memory), vm.name

    return sorted(range(len(vms)), key=urgency)
