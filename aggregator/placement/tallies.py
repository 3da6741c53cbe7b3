"""How many seated VMs lie where: the indexes that make affinity and spread a lookup, not a scan.

A tally counts per node, and from that per value of a topology key. Matches tallies the VMs that
selectors select; Carriers tallies the terms that seated VMs bring with them (symmetry).
Kept current by one VM coming or going; knows no rule and decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from aggregator.placement.columns import BoolArray, IntArray, LabelColumn, NodeColumns
from aggregator.placement.compiled import Group
from aggregator.placement.selectors import LabelsKey, Selector, selects

TALLIES_MAX = 2000  # past it the indexes are dropped and made anew as rules ask
LABEL_SETS_MAX = 20_000  # remembered answers to "which tallies concern these labels"


class Tally:
    """A count per node, and from it per value of a topology key, made when first asked for."""

    __slots__ = ("_totals", "by_node", "members")

    def __init__(self, capacity: int) -> None:
        self.by_node: IntArray = np.zeros(capacity, dtype=np.int64)
        self.members = 0  # VMs or terms in it: weights may sum to 0 without it being empty
        self._totals: dict[str, tuple[LabelColumn, IntArray]] = {}

    def add(self, slot: int, amount: int, members: int) -> None:
        """Add an amount at a node; members: 1 for one that comes, -1 for one that goes."""
        self.by_node[slot] += amount
        self.members += members
        for column, totals in self._totals.values():
            value = column.ids[slot]
            if value >= 0:
                totals[value] += amount

    def by_value(self, key: str, columns: NodeColumns) -> IntArray:
        """Return the count per value of a topology key; one more element, always 0, at the end."""
        column = columns.label(key)
        known = self._totals.get(key)
        if known is not None and known[0] is column:
            return known[1]
        totals = count_by_value(column, self.by_node, column.ids >= 0)
        self._totals[key] = (column, totals)
        return totals

    def per_node(self, key: str, columns: NodeColumns) -> IntArray:
        """Return per slot the count in the slot's topology value, 0 where the node has none."""
        return self.by_value(key, columns)[columns.label(key).ids]

    def relabelled(self) -> None:
        """Forget what depended on node labels."""
        self._totals.clear()


def count_by_value(column: LabelColumn, by_node: IntArray, where: BoolArray) -> IntArray:
    """Sum by_node per value of the column over the slots `where`, all of which carry the label."""
    sums = np.bincount(column.ids[where], weights=by_node[where], minlength=len(column.values) + 1)
    return sums.astype(np.int64)


class Matches:
    """Tallies of the seated VMs that all of some selectors select."""

    def __init__(self, columns: NodeColumns) -> None:
        self._columns = columns
        self._population: dict[LabelsKey, dict[int, int]] = {}  # labels -> slot -> VMs
        self._tallies: dict[tuple[Selector, ...], Tally] = {}
        self._concerned: dict[LabelsKey, list[Tally]] = {}

    def add(self, labels: LabelsKey, slot: int, amount: int) -> None:
        """Count VMs with these labels in (1) or out (-1)."""
        slots = self._population.setdefault(labels, {})
        slots[slot] = slots.get(slot, 0) + amount
        if not slots[slot]:
            del slots[slot]
        if not slots:
            del self._population[labels]
        for tally in self._tallies_for(labels):
            tally.add(slot, amount, amount)

    def tally(self, selectors: tuple[Selector, ...]) -> Tally:
        """Return the tally of the VMs that every one of the selectors selects."""
        found = self._tallies.get(selectors)
        return self._make(selectors) if found is None else found

    def relabelled(self) -> None:
        for tally in self._tallies.values():
            tally.relabelled()

    def _make(self, selectors: tuple[Selector, ...]) -> Tally:
        if len(self._tallies) >= TALLIES_MAX:
            self._tallies.clear()
        tally = self._tallies[selectors] = Tally(self._columns.capacity)
        self._concerned.clear()
        for labels, slots in self._population.items():
            if _all_select(selectors, labels):
                for slot, count in slots.items():
                    tally.add(slot, count, count)
        return tally

    def _tallies_for(self, labels: LabelsKey) -> list[Tally]:
        found = self._concerned.get(labels)
        if found is None:
            if len(self._concerned) >= LABEL_SETS_MAX:
                self._concerned.clear()
            found = [t for selectors, t in self._tallies.items() if _all_select(selectors, labels)]
            self._concerned[labels] = found
        return found


class Carriers:
    """Tallies of the terms that seated VMs carry, asked by the labels of a VM they may concern."""

    def __init__(self, columns: NodeColumns) -> None:
        self._columns = columns
        self._tallies: dict[Group, Tally] = {}
        self._concerned: dict[LabelsKey, list[tuple[str, Tally]]] = {}
        self._prune_at = TALLIES_MAX

    def add(self, group: Group, slot: int, amount: int, members: int) -> None:
        """Count a carried term in (members 1), or with the opposite amount out (members -1)."""
        tally = self._tallies.get(group)
        if tally is None:
            tally = self._make(group)
        tally.add(slot, amount, members)

    def concerning(self, labels: LabelsKey) -> list[tuple[str, Tally]]:
        """Return (topology key, tally) of every carried term that selects these labels."""
        found = self._concerned.get(labels)
        if found is None:
            if len(self._concerned) >= LABEL_SETS_MAX:
                self._concerned.clear()
            found = list(self._select(labels))
            self._concerned[labels] = found
        return found

    def relabelled(self) -> None:
        for tally in self._tallies.values():
            tally.relabelled()

    def _make(self, group: Group) -> Tally:
        if len(self._tallies) >= self._prune_at:
            self._tallies = {g: t for g, t in self._tallies.items() if t.members}
            self._prune_at = max(TALLIES_MAX, 2 * len(self._tallies))
            self._concerned.clear()
        tally = self._tallies[group] = Tally(self._columns.capacity)
        selector, key = group
        for labels, concerned in self._concerned.items():
            if selects(selector, dict(labels)):
                concerned.append((key, tally))
        return tally

    def _select(self, labels: LabelsKey) -> Iterator[tuple[str, Tally]]:
        plain = dict(labels)
        for (selector, key), tally in self._tallies.items():
            if selects(selector, plain):
                yield key, tally


def _all_select(selectors: tuple[Selector, ...], labels: LabelsKey) -> bool:
    plain = dict(labels)
    return all(selects(selector, plain) for selector in selectors)
