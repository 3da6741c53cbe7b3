"""S5 on ground truth: among several aggregators nobody acts once a later one has acted.

A deed is an order sent, a power order, a beat or a hello answered; who came to lead later is what the store's own
count of tenures says, which no restored backup takes back. Agents begin nothing by order of a term below the
highest one they have written down (S3).
"""

from __future__ import annotations

from collections.abc import Callable

from agent.keeper_types import AnyLedgerRecord, LeadershipSeen, OrderBegun
from fleet.model import Leadership
from simulator.aggregator import SimulatedAggregator
from simulator.world import World

Say = Callable[[str, str, str], None]


class LeaderChecks:
    """Watches one world. say: takes a violation's invariant, what it is about, and its text."""

    def __init__(self, world: World, say: Say) -> None:
        self._say = say
        self._latest, self._who = 0, ""
        self._highest: dict[str, Leadership] = {}
        world.on_deed.append(self.acted)
        world.on_ledger.append(self.written)

    def acted(self, aggregator: SimulatedAggregator, what: str) -> None:
        """S5: the deeds of two leaders never overlap."""
        number = aggregator.seat.number
        if number < self._latest:
            self._say("S5", aggregator.name, f"{aggregator.name} sends {what} after {self._who} has led")
        elif number > self._latest:
            self._latest, self._who = number, aggregator.name

    def written(self, node: str, record: AnyLedgerRecord) -> None:
        """S3: whose order an agent begins."""
        highest = self._highest.get(node)
        if isinstance(record, LeadershipSeen):
            self._highest[node] = record.leader
        elif isinstance(record, OrderBegun) and highest is not None and record.order.leader.term < highest.term:
            term, order = record.order.leader.term, record.order.order_id
            self._say("S3", order, f"{node} begins {order} of term {term} though it has met term {highest.term}")
