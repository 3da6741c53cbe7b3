"""What agents are asked beside the core's own business, for people who wait for the answer.

Knows who may be asked what; the questions in flight are in their own modules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from aggregator.core.state import State
from aggregator.definition_checks import DefinitionChecks
from aggregator.definition_checks import Send as AskDefinition
from aggregator.move_questions import MoveQuestions
from aggregator.move_questions import Send as AskMove
from fleet.messages import CheckArrival, CheckDefinition, CheckDeparture, DefinitionChecked, MoveChecked

KNOWS_MOVES = 2  # from that protocol on


class Asked(Protocol):
    """A connection, as far as questions need it."""

    def send(self, message: CheckDefinition | CheckArrival | CheckDeparture) -> bool: ...


class Questions:
    """standing: the connection of a node's standing session, None without one; connected: nodes that have one."""

    def __init__(
        self,
        state: Callable[[], State],
        standing: Callable[[str], Asked | None],
        connected: Callable[[], Iterable[str]],
    ) -> None:
        self._state, self._standing, self._connected = state, standing, connected
        self.definitions = DefinitionChecks(self._checkers)
        self.moves = MoveQuestions(self._door)

    def answered(self, node: str, message: DefinitionChecked | MoveChecked) -> bool:
        """Take an answer to whoever waits for it; return whether it was asked here."""
        if isinstance(message, DefinitionChecked):
            self.definitions.answered(node, message)
            return True
        return self.moves.answered(node, message)

    def _checkers(self) -> list[tuple[str, AskDefinition]]:
        """Return the agents that may be asked about a definition: Up ones, by name."""
        nodes = self._state().nodes
        up = [name for name in sorted(self._connected()) if name in nodes and nodes[name].state == "Up"]
        return [(name, connection.send) for name in up if (connection := self._standing(name)) is not None]

    def _door(self, node: str) -> AskMove | None:
        """Return how a node is asked about moves, None where it cannot be, or does not know the questions."""
        record, connection = self._state().nodes.get(node), self._standing(node)
        if record is None or record.protocol < KNOWS_MOVES or connection is None:
            return None
        return connection.send
