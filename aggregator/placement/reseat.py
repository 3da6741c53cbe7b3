"""What greedy placement left over is seated by moving VMs of the same batch: a few nodes at a time, exactly.

Pure and repeatable. VMs that run are never moved, and no VM of another priority loses its seat; so of each priority
at least as many are seated as before. VMs with a required affinity or a hard spread, and those that such a rule
of the batch counts, stay where they are: their rules hang on all the others, and are not part of the exact model.

The budget is work, not time: the core has no clock, and a simulated fleet must decide the same whenever it is asked.
exact.py says what a model costs; work is made from `placement.solverBudget` by a measured rate.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from msgspec import Struct

from aggregator.placement.columns import BoolArray
from aggregator.placement.compiled import CompiledVm, Group
from aggregator.placement.exact import WORK_PER_S, Model, solve
from aggregator.placement.rules import FILTERS
from aggregator.placement.selectors import Selector, selects
from aggregator.placement.table import Table
from aggregator.placement.types import PlacementVm

LEFT_MAX = 256  # VMs without a seat that are tried for
STAGES = ((4, 100), (6, 300), (8, 1000), (12, 3000))  # nodes of a neighbourhood, and of a model's search tree
FRUITLESS_MAX = 24  # neighbourhoods in a row without a gain, a VM that is left; then larger ones are taken
MEMBERS_MAX = 96  # VMs of one model
LEFT_IN_MODEL_MAX = 12
HELPERS = 16  # the nodes with the most room, which take what others give up
FAILED_WORK = 500  # a neighbourhood that was chosen in vain


class Reseated(Struct, frozen=True):
    """seats: name -> node, None for no seat any more, of all for whom it is another than before. work: what it took."""

    seats: dict[str, str | None]
    work: int


class _Item(Struct, eq=False):
    """A VM of the batch that may be moved. slot: None while it has no seat."""

    compiled: CompiledVm
    priority: int
    slot: int | None


def reseat(batch: Sequence[tuple[PlacementVm, str | None]], table: Table, budget_s: float) -> Reseated:
    """Seat VMs that have no node by moving others of the batch, all of them seated in the table already.

    The table then has the new seats. budget_s: of solving, on the machine whose rate exact.py names.
    """
    items = _movable(batch, table)
    left = [item for item in items if item.slot is None][:LEFT_MAX]
    if not left or len(left) == len(items) or budget_s <= 0:
        return Reseated({}, 0)
    search = _Search(table, items, left)
    before = [item.slot for item in items]
    work = search.run(int(budget_s * WORK_PER_S))
    moved = {
        item.compiled.vm.name: None if item.slot is None else table.name(item.slot)
        for item, slot in zip(items, before, strict=True)
        if item.slot != slot
    }
    return Reseated(moved, work)


def _movable(batch: Sequence[tuple[PlacementVm, str | None]], table: Table) -> list[_Item]:
    compiled = [(table.compiled(vm), node) for vm, node in batch]
    counted = {selector for each, _ in compiled for selector in _counting(each)}
    items = []
    for each, node in compiled:
        elsewhere = len(table.seats_of(each.vm.name)) > (node is not None)
        if elsewhere or any(True for _ in _counting(each)) or any(selects(s, each.vm.labels) for s in counted):
            continue
        slot = None if node is None else table.columns.slot_of[node]
        items.append(_Item(each, each.vm.spec.restart_priority, slot))
    return items


def _counting(vm: CompiledVm) -> Iterable[Selector]:
    """Yield the selectors of rules that count VMs."""
    for selector, _ in vm.rules.affinity:
        yield selector
    for spread in vm.rules.spread_hard:
        yield spread.selector


class _Search:
    """The neighbourhoods, one after the other."""

    def __init__(self, table: Table, items: list[_Item], left: list[_Item]) -> None:
        self._table = table
        self._items = items
        self._by_slot: dict[int, list[_Item]] = {}
        for item in items:
            if item.slot is not None:
                self._by_slot.setdefault(item.slot, []).append(item)
        self._left = sorted(left, key=lambda item: -item.priority)
        self._reach: dict[int, list[int]] = {}
        self._settled: set[tuple[str | int, ...]] = set()  # neighbourhoods proven to hold no more, as all sit now
        self._turn = 0

    def run(self, work_max: int) -> int:
        """Search until all have a seat, the budget is spent or nothing more is found; return the work done."""
        self._look_around()
        work = 0
        for size, tree_nodes_max in STAGES:
            fruitless = 0
            while self._left and work < work_max and fruitless < FRUITLESS_MAX * len(self._left):
                item = self._left[self._turn % len(self._left)]
                nodes = self._neighbourhood(item, size)
                gained, spent, final = self._improve(item, nodes, tree_nodes_max)
                self._turn += 1
                work += spent
                fruitless = 0 if gained else fruitless + 1
                if final and not gained:
                    self._left.remove(item)
        return work

    def _look_around(self) -> None:
        """Find where each VM that is left could go if no other of the batch were there; drop the hopeless."""
        seated = [item for item in self._items if item.slot is not None]
        self._stand_up(seated)
        for item in self._left:
            self._reach[id(item)] = np.flatnonzero(_mask(item.compiled, self._table)).tolist()
        self._sit_down(seated)
        self._left = [item for item in self._left if self._reach[id(item)]]

    def _neighbourhood(self, item: _Item, size: int) -> list[int]:
        """Return nodes to think about: some that could hold the VM, and some with room for what moves."""
        reach = self._reach[id(item)]
        with_movable = [slot for slot in reach if self._by_slot.get(slot)]
        free = self._table.columns.has - self._table.requested
        share = (free / self._table.columns.whole).sum(axis=0)
        share[~self._table.columns.present] = -np.inf
        helpers = np.argsort(-share, kind="stable")[: min(HELPERS, len(self._table.columns.slot_of))].tolist()
        first = sorted(with_movable, key=self._shuffled)[: (size + 1) // 2]
        rest = sorted({*with_movable, *reach[:HELPERS], *helpers} - {*first}, key=self._shuffled)
        return sorted([*first, *rest[: size - len(first)]])

    def _shuffled(self, slot: int) -> int:
        """Return a number that puts slots into another order each turn."""
        mixed = (slot + 1) * 2654435761 + (self._turn + 1) * 2246822519
        mixed ^= (mixed >> 15) & 0xFFFF
        return (mixed * 3266489917) & 0xFFFFFFFF

    def _improve(self, item: _Item, nodes: list[int], tree_nodes_max: int) -> tuple[bool, int, bool]:
        """Return whether one more has a seat, the work, and whether it is proven that none ever can."""
        here = [each for slot in nodes for each in self._by_slot.get(slot, ())]
        same = [each for each in self._left if each.priority == item.priority and each is not item]
        reaching = [each for each in same if not {*nodes}.isdisjoint(self._reach[id(each)])]
        members = [item, *here, *reaching[:LEFT_IN_MODEL_MAX]]
        asked: tuple[str | int, ...] = (item.compiled.vm.name, *nodes)
        if not here or len(members) > MEMBERS_MAX or asked in self._settled:
            return False, FAILED_WORK, False
        self._stand_up(here)
        model = self._model(item.priority, members, nodes)
        solution = solve(model, tree_nodes_max)
        place = solution.place
        final = solution.proven and {*nodes} >= {*self._reach[id(item)]} and self._is_all(nodes)
        if place is None or sum(at >= 0 for at in place) < len(here) or place == model.now:
            self._sit_down(here)
            if solution.proven:
                self._settled.add(asked)
            return False, solution.work, final
        old = [each.slot for each in members]
        self._assign(members, [None if at < 0 else nodes[at] for at in place])
        taken = [each for each in members if each.slot is not None]
        if not self._take(taken):
            self._assign(members, old)
            self._sit_down(here)
            return False, solution.work, False
        gained = len(taken) > len(here)
        self._settled.clear()
        self._left = [each for each in self._left if each.slot is None]
        for each in here:
            if each.slot is None:
                self._left.append(each)
                self._reach.setdefault(id(each), nodes)
        return gained, solution.work, False

    def _is_all(self, nodes: list[int]) -> bool:
        return {*nodes} >= {*self._by_slot} and len(nodes) >= len(self._table.columns.slot_of)

    def _model(self, priority: int, members: list[_Item], nodes: list[int]) -> Model:
        places = [np.flatnonzero(_mask(each.compiled, self._table)[nodes]).tolist() for each in members]
        room = self._table.columns.has[:, nodes] - self._table.requested[:, nodes]
        return Model(
            places=places,
            now=[-1 if each.slot is None else nodes.index(each.slot) for each in members],
            must=[each.slot is not None and each.priority != priority for each in members],
            sizes=np.hstack([each.compiled.request.sizes for each in members]),
            room=room,
            apart=self._apart(members, nodes),
        )

    def _apart(self, members: list[_Item], nodes: list[int]) -> list[tuple[list[int], list[list[int]]]]:
        """Return the sets of VMs that required anti-affinities keep out of each other's domains."""
        carriers: dict[Group, list[int]] = {}
        for number, each in enumerate(members):
            for group in each.compiled.rules.anti_affinity:
                carriers.setdefault(group, []).append(number)
        apart = []
        for (selector, key), carrying in carriers.items():
            ids = self._table.columns.label(key).ids[nodes].tolist()
            domains = [[place for place, at in enumerate(ids) if at == value] for value in sorted({*ids} - {0})]
            meant = [number for number, each in enumerate(members) if selects(selector, each.compiled.vm.labels)]
            clique = [number for number in carrying if number in meant]
            if len(clique) > 1:
                apart.append((clique, domains))
            apart += [
                ([carrier, other], domains)
                for carrier in carrying
                for other in meant
                if other != carrier and not (carrier in clique and other in clique)
            ]
        return apart

    def _take(self, members: list[_Item]) -> bool:
        """Seat them one after the other if every rule agrees each time; else none."""
        for number, each in enumerate(members):
            if each.slot is None or not _mask(each.compiled, self._table)[each.slot]:
                self._stand_up(members[:number])
                return False
            self._table.seat(each.compiled.vm, self._table.name(each.slot))
        return True

    def _assign(self, members: list[_Item], slots: list[int | None]) -> None:
        for each, slot in zip(members, slots, strict=True):
            if each.slot is not None:
                self._by_slot[each.slot].remove(each)
            each.slot = slot
            if slot is not None:
                self._by_slot.setdefault(slot, []).append(each)

    def _stand_up(self, members: Iterable[_Item]) -> None:
        for each in members:
            if each.slot is not None:
                self._table.unseat(each.compiled.vm.name, self._table.name(each.slot))

    def _sit_down(self, members: Iterable[_Item]) -> None:
        for each in members:
            if each.slot is not None:
                self._table.seat(each.compiled.vm, self._table.name(each.slot))


def _mask(vm: CompiledVm, table: Table) -> BoolArray:
    """Return where every rule lets the VM sit now."""
    passes = table.columns.present
    for rule in FILTERS:
        passes = passes & rule.mask(vm, table)
    return passes
