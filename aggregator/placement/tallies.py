"""How many seated VMs lie where: the indexes that make affinity and spread a lookup, not a scan.

A tally counts per value of a topology key. Matches tallies the VMs that selectors select; Carriers
tallies the terms that seated VMs bring with them (symmetry). What is seated is kept sparsely and is
the truth; the arrays are made when a rule asks and kept current by one VM coming or going.
Knows no rule and decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from aggregator.placement.columns import BoolArray, IntArray, LabelColumn
from aggregator.placement.compiled import Group
from aggregator.placement.recent import Recent
from aggregator.placement.selector_index import SelectorIndex, pairs_of
from aggregator.placement.selectors import LabelsKey, Selector, selects

TALLIES_MAX = 2000  # selectors whose VMs are counted
CARRIERS_MAX = 2000  # past it, or past twice what is in use, terms that no seated VM carries are forgotten
TOTALS_BYTES_MAX = 96 * 2**20  # of all arrays of counts together; past it those unused for longest are forgotten
TOTALS_MIN = 64

BySlot = Mapping[int, int]  # slot -> how much is there
Among = BoolArray | None  # the nodes that count; None: all


class Totals:
    """One tally's counts per value of one topology key; element 0 is no value and always 0."""

    __slots__ = ("among", "by_value", "column", "tally")

    def __init__(self, tally: Tally, column: LabelColumn, among: Among) -> None:
        self.tally = tally
        self.column = column
        self.among = among
        self.by_value: IntArray = np.zeros(column.size, dtype=np.int64)


class TotalsMemory:
    """All arrays of counts of a table, bounded together."""

    def __init__(self, capacity: int) -> None:
        entries_max = max(TOTALS_MIN, TOTALS_BYTES_MAX // (8 * capacity))
        self._recent: Recent[Totals, Totals] = Recent(entries_max, lambda totals: totals.tally.forget(totals))

    def used(self, totals: Totals) -> None:
        self._recent.get(totals)

    def keep(self, totals: Totals) -> None:
        self._recent.put(totals, totals)

    def clear(self) -> None:
        """Forget what depended on node labels: everything."""
        for totals in self._recent.values():
            totals.tally.forget(totals)
        self._recent.clear()


class Tally:
    """Counts per value of topology keys, of something that is seated."""

    __slots__ = ("_memory", "_seated", "_totals", "members")

    def __init__(self, memory: TotalsMemory, seated: Callable[[], Iterable[BySlot]]) -> None:
        self._memory = memory
        self._seated = seated
        self._totals: dict[tuple[int, int], Totals] = {}
        self.members = 0  # VMs or terms in it: weights may sum to 0 without it being empty

    def add(self, slot: int, amount: int, members: int) -> None:
        """Add an amount at a node; members: 1 for one that comes, -1 for one that goes."""
        self.members += members
        for totals in self._totals.values():
            if totals.among is None or totals.among[slot]:
                value = totals.column.ids[slot]
                if value:
                    totals.by_value[value] += amount

    def by_value(self, column: LabelColumn, among: Among = None) -> IntArray:
        """Return the count per value of a topology key, 0 at element 0. Not to be written to.

        among: only what sits on these nodes; an array that stays as it is, for it is known by identity.
        """
        totals = self._totals.get((id(column), id(among)))
        if totals is None:
            totals = self._count(column, among)
        else:
            self._memory.used(totals)
        return totals.by_value

    def per_node(self, column: LabelColumn) -> IntArray:
        """Return per slot the count in the slot's topology value, 0 where the node has none."""
        return column.spread_out(self.by_value(column))

    @property
    def arrays(self) -> int:
        """How many arrays of counts it keeps at present."""
        return len(self._totals)

    def forget(self, totals: Totals) -> None:
        self._totals.pop((id(totals.column), id(totals.among)), None)

    def _count(self, column: LabelColumn, among: Among) -> Totals:
        totals = Totals(self, column, among)
        for by_slot in self._seated():
            slots = np.fromiter(by_slot.keys(), dtype=np.int64, count=len(by_slot))
            amounts = np.fromiter(by_slot.values(), dtype=np.int64, count=len(by_slot))
            np.add.at(totals.by_value, column.ids[slots], amounts if among is None else amounts * among[slots])
        totals.by_value[0] = 0
        self._totals[id(column), id(among)] = totals
        self._memory.keep(totals)
        return totals


class Matches:
    """Tallies of the seated VMs that all of some selectors select."""

    def __init__(self, memory: TotalsMemory) -> None:
        self._memory = memory
        self._population: dict[LabelsKey, dict[int, int]] = {}  # labels -> slot -> VMs
        self._labelled: dict[tuple[str, str], dict[LabelsKey, None]] = {}  # one label -> labels that have it
        self._index: SelectorIndex[Tally] = SelectorIndex()
        self._tallies: Recent[tuple[Selector, ...], Tally] = Recent(TALLIES_MAX, self._index.remove)

    def add(self, labels: LabelsKey, slot: int, amount: int) -> None:
        """Count VMs with these labels in (1) or out (-1)."""
        slots = self._population.get(labels)
        if slots is None:
            slots = self._population[labels] = {}
            for pair in labels:
                self._labelled.setdefault(pair, {})[labels] = None
        count = slots.get(slot, 0) + amount
        if count:
            slots[slot] = count
        else:
            del slots[slot]
            if not slots:
                self._leave(labels)
        for tally in self._index.selecting(labels):
            tally.add(slot, amount, amount)

    def tally(self, selectors: tuple[Selector, ...]) -> Tally:
        """Return the tally of the VMs that every one of the selectors selects."""
        found = self._tallies.get(selectors)
        if found is None:
            found = self._tallies.put(selectors, Tally(self._memory, lambda: self._seated(selectors)))
            found.members = sum(sum(by_slot.values()) for by_slot in self._seated(selectors))
            self._index.add(selectors, found)
        return found

    def _leave(self, labels: LabelsKey) -> None:
        del self._population[labels]
        for pair in labels:
            alike = self._labelled[pair]
            del alike[labels]
            if not alike:
                del self._labelled[pair]

    def _seated(self, selectors: tuple[Selector, ...]) -> list[BySlot]:
        pairs = pairs_of(selectors)
        candidates: Iterable[LabelsKey] = self._population
        if pairs is not None:
            candidates = (labels for pair in pairs for labels in self._labelled.get(pair, ()))
        return [
            self._population[labels]
            for labels in candidates
            if all(selects(selector, dict(labels)) for selector in selectors)
        ]


class _Carried(Tally):
    """A tally of one term that seated VMs carry, with its own record of where they sit."""

    __slots__ = ("group", "seats")

    def __init__(self, memory: TotalsMemory, group: Group) -> None:
        super().__init__(memory, lambda: (self.seats,))
        self.group = group
        self.seats: dict[int, int] = {}

    def add(self, slot: int, amount: int, members: int) -> None:
        there = self.seats.get(slot, 0) + amount
        if there:
            self.seats[slot] = there
        else:
            self.seats.pop(slot, None)
        super().add(slot, amount, members)


class Carriers:
    """Tallies of the terms that seated VMs carry, asked by the labels of a VM they may concern."""

    def __init__(self, memory: TotalsMemory) -> None:
        self._memory = memory
        self._tallies: dict[Group, _Carried] = {}
        self._index: SelectorIndex[_Carried] = SelectorIndex()
        self._prune_at = CARRIERS_MAX

    def add(self, group: Group, slot: int, amount: int, members: int) -> None:
        """Count a carried term in (members 1), or with the opposite amount out (members -1)."""
        tally = self._tallies.get(group)
        if tally is None:
            tally = self._make(group)
        tally.add(slot, amount, members)

    def concerning(self, labels: LabelsKey) -> list[tuple[str, Tally]]:
        """Return (topology key, tally) of every carried term that selects these labels."""
        if not self._tallies:
            return []
        return [(tally.group[1], tally) for tally in self._index.selecting(labels) if tally.members]

    def _make(self, group: Group) -> _Carried:
        if len(self._tallies) >= self._prune_at:
            for empty in [t for t in self._tallies.values() if not t.members]:
                del self._tallies[empty.group]
                self._index.remove(empty)
            self._prune_at = max(CARRIERS_MAX, 2 * len(self._tallies))
        tally = self._tallies[group] = _Carried(self._memory, group)
        self._index.add((group[0],), tally)
        return tally
