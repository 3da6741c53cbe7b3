"""Which nodes match label rules, remembered until a node's labels change.

Knows node columns and compiled terms; no VM that is seated, and no rule.
"""

from __future__ import annotations

import numpy as np

from aggregator.placement.columns import BoolArray, LabelColumn, NodeColumns
from aggregator.placement.compiled import NodeRules
from aggregator.placement.recent import Recent
from aggregator.placement.selectors import NODE_NAME_FIELD, NodeTerm, Requirement, compares, holds

MASKS_MAX = 1_000  # remembered answers of each sort


class Eligible:
    """The nodes that match some rules and carry some topology keys: where a spread constraint counts."""

    def __init__(self, nodes: BoolArray) -> None:
        self.nodes = nodes
        self._domains: dict[LabelColumn, BoolArray] = {}

    def domains(self, column: LabelColumn) -> BoolArray:
        """Return per value of one of the keys whether one of the nodes has it. Not to be written to."""
        known = self._domains.get(column)
        if known is None:
            known = self._domains[column] = domains_of(column, self.nodes)
        return known


def domains_of(column: LabelColumn, nodes: BoolArray) -> BoolArray:
    """Return per value of a key whether one of these nodes, all of which carry it, has it."""
    there = np.zeros(column.size, dtype=np.bool_)
    there[column.ids[nodes]] = True
    return there


class NodeMasks:
    """Answers per slot; none of them may be written to."""

    def __init__(self, columns: NodeColumns) -> None:
        self._columns = columns
        self._matching: Recent[NodeRules, BoolArray] = Recent(MASKS_MAX)
        self._terms: Recent[NodeTerm, BoolArray] = Recent(MASKS_MAX)
        self._eligible: Recent[tuple[NodeRules, tuple[str, ...]], Eligible] = Recent(MASKS_MAX)

    def clear(self) -> None:
        self._matching.clear()
        self._terms.clear()
        self._eligible.clear()

    def matching(self, rules: NodeRules) -> BoolArray:
        """Return which slots match a nodeSelector and required node terms."""
        known = self._matching.get(rules)
        if known is not None:
            return known
        mask = self._columns.present.copy()
        for key, value in rules.selector:
            mask &= self._holds((key, "In", (value,)))
        if rules.terms is not None:
            mask &= np.logical_or.reduce([self.term(t) for t in rules.terms] or [np.zeros_like(mask)])
        return self._matching.put(rules, _read_only(mask))

    def term(self, term: NodeTerm) -> BoolArray:
        """Return which slots match one node term; a term that demands nothing matches none."""
        known = self._terms.get(term)
        if known is not None:
            return known
        expressions, fields = term
        present = self._columns.present
        mask = present.copy() if expressions or fields else np.zeros_like(present)
        for requirement in expressions:
            mask &= self._holds(requirement)
        for requirement in fields:
            mask &= self._field_holds(requirement)
        return self._terms.put(term, _read_only(mask))

    def eligible(self, rules: NodeRules, keys: tuple[str, ...]) -> Eligible:
        """Return the nodes that match the rules and carry all the keys."""
        known = self._eligible.get((rules, keys))
        if known is not None:
            return known
        mask = self.matching(rules).copy()
        for key in keys:
            mask &= self._columns.label(key).ids > 0
        return self._eligible.put((rules, keys), Eligible(_read_only(mask)))

    def _holds(self, requirement: Requirement) -> BoolArray:
        key, operator, values = requirement
        column = self._columns.label(key)
        if operator in ("Exists", "DoesNotExist"):
            exists: BoolArray = column.ids > 0
            return exists if operator == "Exists" else ~exists
        by_value = np.zeros(column.size, dtype=np.bool_)
        if operator in ("In", "NotIn"):
            by_value[[column.id_of[value] for value in values if value in column.id_of]] = True
        else:
            by_value[1:] = [compares(operator, value, values) for value in column.id_of]
        answers = column.spread_out(by_value)
        return ~answers if operator == "NotIn" else answers

    def _field_holds(self, requirement: Requirement) -> BoolArray:
        mask = np.zeros_like(self._columns.present)
        for name, slot in self._columns.slot_of.items():
            mask[slot] = holds(requirement, {NODE_NAME_FIELD: name})
        return mask


def _read_only(mask: BoolArray) -> BoolArray:
    mask.setflags(write=False)
    return mask
