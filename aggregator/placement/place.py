"""Where may a VM run, where would it run best, and why not elsewhere: one VM or a batch.

Pure: the same rule objects serve recovery, drain, what-if, explain and `virtward place`.
place_batch is greedy: by priority, then biggest first, reserving as it goes. What greedy leaves is
the verdicts without a node; an exact solver's work begins there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from msgspec import Struct

from aggregator.placement.columns import BoolArray, IntArray
from aggregator.placement.compiled import CompiledVm
from aggregator.placement.rules import FILTERS, PROFILE_SCORES, SCORES, Score
from aggregator.placement.table import Table
from aggregator.placement.types import Excluded, PlacementNode, PlacementVm, ScoreSettings, Seat, Verdict

NONE_EXCLUDED: Excluded = {}


class _Choice(Struct):
    """One VM judged, as arrays by slot. slot: the chosen one or None; rotation: the next VM's counter."""

    vm: CompiledVm
    masks: dict[str, BoolArray]
    feasible: BoolArray
    scores: dict[str, IntArray]
    slot: int | None
    rotation: int


def build_table(nodes: Iterable[PlacementNode], seated: Iterable[Seat] = ()) -> Table:
    """Return a table of these nodes and VMs; a VM on a node that is not among them counts nowhere."""
    listed = list(nodes)
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
    with table.without(vm.name):
        choice = _choose(vm, table, settings, rotation, excluded)
        if all_scores:
            _score(choice, table, SCORES)
        return _explained(choice, table, excluded)


def place_batch(
    vms: Sequence[PlacementVm],
    table: Table,
    settings: ScoreSettings,
    rotation: int = 0,
    *,
    keep: bool = False,
    explain: bool = True,
) -> list[Verdict]:
    """Return one verdict per VM, in the order given; each VM is judged after those placed before it.

    The table is as before afterwards unless `keep`. A VM that has a seat already (a migration) is judged
    without it and then counts on both nodes. explain=False: a placed VM's verdict names only the node,
    which is what a batch on thousands of nodes wants.
    """
    verdicts: dict[int, Verdict] = {}
    given: list[tuple[str, str]] = []
    try:
        for index in _order(vms, table):
            vm = vms[index]
            with table.without(vm.name):
                choice = _choose(vm, table, settings, rotation, NONE_EXCLUDED)
                verdict = (
                    _explained(choice, table, NONE_EXCLUDED)
                    if explain or choice.slot is None
                    else _named(choice, table)
                )
            verdicts[index] = verdict
            rotation = verdict.rotation
            if verdict.node is not None and verdict.node not in table.seats_of(vm.name):
                table.seat(vm, verdict.node)
                given.append((vm.name, verdict.node))
    finally:
        if not keep:
            for name, node in reversed(given):
                table.unseat(name, node)
    return [verdicts[index] for index in range(len(vms))]


def reasons(vm: PlacementVm, table: Table, node: str) -> dict[str, str]:
    """Return per rule that rejects the VM on this node the reason in words; KeyError: no such node."""
    slot = table.columns.slot_of[node]
    with table.without(vm.name):
        compiled = table.compiled(vm)
        return {f.name: f.why(compiled, table, slot) for f in FILTERS if not f.mask(compiled, table)[slot]}


def _choose(vm: PlacementVm, table: Table, settings: ScoreSettings, rotation: int, excluded: Excluded) -> _Choice:
    compiled = table.compiled(vm)
    masks = {f.name: f.mask(compiled, table) for f in FILTERS}
    feasible = table.columns.present.copy()
    for mask in masks.values():
        feasible &= mask
    feasible[[table.columns.slot_of[name] for name in excluded if name in table.columns.slot_of]] = False
    choice = _Choice(compiled, masks, feasible, {}, None, rotation)
    if feasible.any():
        _score(choice, table, PROFILE_SCORES[settings.profile])
        choice.slot = _best(choice, table, settings)
        choice.rotation = (int(table.columns.rank[choice.slot]) + 1) % len(table.columns.slot_of)
    return choice


def _score(choice: _Choice, table: Table, rules: Iterable[Score]) -> None:
    if choice.feasible.any():
        for rule in rules:
            if rule.name not in choice.scores:
                choice.scores[rule.name] = rule.score(choice.vm, table, choice.feasible)


def _best(choice: _Choice, table: Table, settings: ScoreSettings) -> int:
    """Return the slot with the highest weighted sum; equal: fewest VMs, then the next by name from the rotation.

    Without scores (NoScoring) the next by name alone decides.
    """
    slots = np.flatnonzero(choice.feasible)
    if choice.scores:
        total = np.zeros(len(slots), dtype=np.int64)
        for rule, scores in choice.scores.items():
            total += scores[slots] * settings.weight(rule)
        slots = slots[total == total.max()]
        vms = table.vms[slots]
        slots = slots[vms == vms.min()]
    turn = (table.columns.rank[slots] - choice.rotation) % len(table.columns.slot_of)
    return int(slots[turn.argmin()])


def _named(choice: _Choice, table: Table) -> Verdict:
    node = None if choice.slot is None else table.name(choice.slot)
    return Verdict(vm=choice.vm.vm.name, node=node, rotation=choice.rotation)


def _explained(choice: _Choice, table: Table, excluded: Excluded) -> Verdict:
    feasible, rejected = [], {}
    masks = sorted(choice.masks.items())
    for name, slot in sorted(table.columns.slot_of.items()):
        if choice.feasible[slot]:
            feasible.append((name, slot))
            continue
        rules = [rule for rule, mask in masks if not mask[slot]]
        rejected[name] = tuple(sorted([*rules, excluded[name]] if name in excluded else rules))
    named = _named(choice, table)
    return Verdict(
        vm=named.vm,
        feasible=tuple(name for name, _ in feasible),
        rejected=rejected,
        scores={rule: {name: int(per[slot]) for name, slot in feasible} for rule, per in choice.scores.items()},
        node=named.node,
        rotation=choice.rotation,
    )


def _order(vms: Sequence[PlacementVm], table: Table) -> list[int]:
    """Return the indexes by priority, then biggest share of the fleet first, then name."""
    cpu = max(1.0, float(table.columns.cpu_m.sum()))
    memory = max(1.0, float(table.columns.memory_bytes.sum()))

    def urgency(index: int) -> tuple[int, float, str]:
        vm = vms[index]
        return -vm.spec.restart_priority, -(vm.cpu_m / cpu + vm.memory_bytes / memory), vm.name

    return sorted(range(len(vms)), key=urgency)
