"""Which of many selectors select a set of labels, without asking each of them.

A selector with an In requirement is filed under the labels that this one allows; only the few others are
asked every time. Knows selectors and labels only.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from aggregator.placement.recent import Recent
from aggregator.placement.selectors import LabelsKey, Selector, selects

ANSWERS_MAX = 20_000  # remembered answers, one per set of labels

Pair = tuple[str, str]
Item = TypeVar("Item")


def pairs_of(selectors: tuple[Selector, ...]) -> list[Pair] | None:
    """Return labels of which whatever all these selectors select must have one; None: none can be named."""
    for selector in selectors:
        if selector is None:
            return []
        for key, operator, values in selector:
            if operator == "In":
                return [(key, value) for value in values]
    return None


class SelectorIndex(Generic[Item]):
    """Items, each with selectors that must all select; items are told apart by identity."""

    def __init__(self) -> None:
        self._selectors: dict[int, tuple[tuple[Selector, ...], Item]] = {}
        self._by_pair: dict[Pair, dict[int, None]] = {}
        self._others: dict[int, None] = {}
        self._answers: Recent[LabelsKey, tuple[Item, ...]] = Recent(ANSWERS_MAX)

    def add(self, selectors: tuple[Selector, ...], item: Item) -> None:
        number = id(item)  # kept alive by its entry
        self._selectors[number] = (selectors, item)
        pairs = pairs_of(selectors)
        if pairs is None:
            self._others[number] = None
        for pair in pairs or ():
            self._by_pair.setdefault(pair, {})[number] = None
        self._answers.clear()

    def remove(self, item: Item) -> None:
        number = id(item)
        selectors, _ = self._selectors.pop(number)
        self._others.pop(number, None)
        for pair in pairs_of(selectors) or ():
            filed = self._by_pair[pair]
            del filed[number]
            if not filed:
                del self._by_pair[pair]
        self._answers.clear()

    def selecting(self, labels: LabelsKey) -> tuple[Item, ...]:
        """Return the items whose selectors all select these labels."""
        known = self._answers.get(labels)
        return self._answers.put(labels, self._ask(labels)) if known is None else known

    def _ask(self, labels: LabelsKey) -> tuple[Item, ...]:
        candidates = dict(self._others)
        for pair in labels:
            candidates |= self._by_pair.get(pair, {})
        plain = dict(labels)
        asked = [self._selectors[number] for number in candidates]
        return tuple(item for selectors, item in asked if all(selects(s, plain) for s in selectors))
