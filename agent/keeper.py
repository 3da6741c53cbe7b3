"""The agent's protocol behaviour, pure: one fact in, effects out.

Under construction: the interface stands (agent.keeper_types), the rules follow.
"""

from __future__ import annotations

from agent.keeper_types import Effect, Fact, KeeperSettings
from agent.memory import Memory


class Keeper:
    """Decides all an agent says and does.

    memory is what the ledger holds (`agent.memory.recall`); the keeper folds every record that
    it persists into it. After a crash build a new one from the records that were synced.
    """

    def __init__(self, settings: KeeperSettings, memory: Memory) -> None:
        self.settings = settings
        self.memory = memory

    def step(self, now: float, fact: Fact) -> list[Effect]:
        """Take one fact in; return what has to be done about it, in order."""
        raise NotImplementedError
