"""Draws the faults of one made-up story: when, where, how long. Knows no kind of fault (strikes.py)."""

from __future__ import annotations

from random import Random

from simulator.faults import AnyFault
from simulator.run import Happening

FAULTS_FROM_S = 5.0
FAULTS_UNTIL_S = 240.0


class Dice:
    """Draws one story's faults. `struck` counts them by kind."""

    def __init__(self, random: Random, nodes: list[str], vms: list[str]) -> None:
        self.random = random
        self.nodes = nodes
        self.vms = vms
        self.struck: dict[str, int] = {}
        self.happenings: list[Happening] = []

    def node(self) -> str:
        return self.random.choice(self.nodes)

    def at(self) -> float:
        return round(self.random.uniform(FAULTS_FROM_S, FAULTS_UNTIL_S), 3)

    def soon(self, at: float, most_s: float = 60.0) -> float:
        """A later time: mostly soon, sometimes much later, never after the safety phase."""
        return round(min(FAULTS_UNTIL_S, at + self.delay_s(most_s)), 3)

    def delay_s(self, most_s: float) -> float:
        """How much later: mostly soon, sometimes much later."""
        return self.random.uniform(0.05, 1.0) ** 3 * most_s

    def add(self, kind: str, *faults: AnyFault) -> None:
        """Have faults strike at their times."""
        self.struck[kind] = self.struck.get(kind, 0) + 1
        for fault in faults:
            self.happenings.append(Happening(at=fault.at, words=f"{kind} {fault}", fault=fault))

    def add_at_moment(self, kind: str, when: str, first: AnyFault, *later: AnyFault) -> None:
        """Have a fault strike at a moment from its time on, and others so many seconds (their `at`) after it.

        Where a fault's host is THERE, it strikes the node that the moment is about.
        """
        self.struck[kind] = self.struck.get(kind, 0) + 1
        words = f"{kind} when {when} {first}"
        self.happenings.append(Happening(at=first.at, when=when, words=words, fault=first, later=later))

    def verb(self, verb: str, at: float, **arguments: object) -> None:
        self.struck[verb] = self.struck.get(verb, 0) + 1
        words = f"do {verb} " + " ".join(str(value) for value in arguments.values())
        self.happenings.append(Happening(at=at, words=words, verb=verb, arguments=dict(arguments)))
