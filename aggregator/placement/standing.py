"""How nodes stand for a kind of VM, remembered: who fits, and the order among them.

A plain record, kept by the table and filled by ranking. Knows no rule.
"""

from __future__ import annotations

from msgspec import Struct

from aggregator.placement.changes import Changes
from aggregator.placement.columns import BoolArray, IntArray
from aggregator.placement.compiled import Demands, Request

STANDINGS_MAX = 256  # remembered; about 10 bytes a node each

StandingKey = tuple[Demands, Request, tuple[tuple[str, int], ...]]


class Standing(Struct, eq=False):
    """open: nodes that would take the VM if they were empty. fits: those that have room too.

    key: per slot a number to sort by, 0 where it does not fit (ranking.py). mark: up to where in the
    table's changes fits and key are current.
    """

    open: BoolArray
    fits: BoolArray
    key: IntArray
    mark: int = Changes.NEVER
