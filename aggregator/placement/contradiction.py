"""Rules about one node's labels that no set of labels can satisfy, whatever nodes there are. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from aggregator.core.objects import NodeSelectorTerm
from aggregator.placement.selectors import Requirement, compile_term, holds, whole_number

Demand = tuple[str, tuple[Requirement, ...]]  # a key and all that is demanded of its value


def contradiction_in(selector: Mapping[str, str], terms: Sequence[NodeSelectorTerm] | None) -> str:
    """Return in words why no labels satisfy a nodeSelector and at least one of the terms; empty if some do.

    terms: ORed; None: there is no such demand.
    """
    wanted = tuple((key, "In", (value,)) for key, value in selector.items())
    if terms is None:
        return ""  # a nodeSelector alone names each key once
    whys = []
    for term in terms:
        expressions, fields = compile_term(term)
        why = _unsatisfiable((*wanted, *expressions)) or _unsatisfiable(fields)
        if not why and (expressions or fields):
            return ""
        whys.append(why or "a term without any expression matches no node")
    return "; ".join(dict.fromkeys(whys)) or "there is no term, which matches no node"


def _unsatisfiable(requirements: Iterable[Requirement]) -> str:
    by_key: dict[str, list[Requirement]] = {}
    for requirement in requirements:
        by_key.setdefault(requirement[0], []).append(requirement)
    for key, demands in by_key.items():
        if not _is_satisfiable(key, demands):
            return " and ".join(_words(each) for each in demands)
    return ""


def _is_satisfiable(key: str, demands: Sequence[Requirement]) -> bool:
    """Try the values that could make a difference: those that are named, numbers beside bounds, any other, none."""
    named = {value for _, _, values in demands for value in values}
    numbers = [number for value in named if (number := whole_number(value)) is not None]
    beside = {str(number + step) for number in numbers for step in (-1, 1)}
    other = "x" * (1 + max((len(value) for value in named), default=0))
    candidates: list[dict[str, str]] = [{key: value} for value in (*sorted(named | beside), other)]
    return any(all(holds(each, labels) for each in demands) for labels in ({}, *candidates))


def _words(requirement: Requirement) -> str:
    key, operator, values = requirement
    return f"{key} {operator} {', '.join(values)}".strip()
