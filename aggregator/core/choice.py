"""Why a VM was put where it is: the best nodes of that moment and their scores, kept with the decision.

Plain records that are journalled. Knows no rule.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

CONTENDERS_MAX = 4  # nodes that are remembered, the chosen one among them


class Contender(Struct, frozen=True, kw_only=True):
    """A node that would have done. scores: rule -> 0..100 before weights; total: the weighted sum; vms: on it then."""

    node: str
    total: int
    vms: int
    scores: dict[str, int] = {}


class Choice(Struct, frozen=True, kw_only=True):
    """The nodes that would have done, best first, the chosen one at the head.

    weights: rule -> weight, of those that counted. feasible: how many nodes would have done, of how many in all.
    """

    profile: str
    weights: dict[str, int] = {}
    contenders: tuple[Contender, ...] = ()
    feasible: int = 0
    nodes: int = 0


def choice_table(choice: Choice) -> list[str]:
    """Return the score table as lines of a text, empty where the profile scores nothing."""
    rules = [rule for rule in choice.weights if any(rule in each.scores for each in choice.contenders)]
    if not rules:
        return []
    heads = ["NODE", "VMS", *(f"{rule} ×{choice.weights[rule]}" for rule in rules), "SUM"]
    rows = [
        [each.node, str(each.vms), *(str(each.scores.get(rule, 0)) for rule in rules), str(each.total)]
        for each in choice.contenders
    ]
    return columns([heads, *rows])


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as aligned lines, indented by two."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return ["  " + "   ".join(w.ljust(width) for w, width in zip(row, widths, strict=True)).rstrip() for row in rows]
