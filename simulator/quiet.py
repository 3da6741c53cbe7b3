"""Quiet time: while nothing but answered beats happens on an agent's link, no beat is an event.

A quiet link knows when its beats are sent by arithmetic alone. Whoever is about to look at one end
or to disturb anything that beats depend on (a fact for the keeper, a turn of the aggregator, a cut,
a kill, a pause, a clock) first has that end brought up to date; then time goes on beat by beat until
the link is quiet again. Nobody can tell the difference but by the few milliseconds a beat travels:
a beat sent within the last SURE_S counts as not sent yet, and is sent then.
Knows when a link is quiet and what was said meanwhile; what that means is the keeper's and the core's.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from agent.keeper_types import DomainsListed, LookAgainAt
from aggregator.core.events import BeatHeard
from fleet.model import Plane

if TYPE_CHECKING:
    from agent.keeper import Keeper
    from simulator.agent import SimulatedAgent
    from simulator.connection import Connection

HEARD_S = 0.001  # a beat's way to the aggregator
ANSWERED_S = 0.002  # and its answer's way back
SURE_S = 0.01  # after so long the answer is here, and what it taught the agent is on its disk


class QuietLink:
    """The link of one agent, quiet or not. Times are world seconds."""

    def __init__(self, agent: SimulatedAgent) -> None:
        self._agent = agent
        self._connection: Connection | None = None  # while it is quiet
        self._first = 0.0  # when the first beat of the quiet time is sent
        self._every_s = 1.0
        self._heard = 0  # beats that the aggregator was told of
        self.news_at = inf  # when the aggregator has to be told of another one
        self._unsaid: DomainsListed | None = None  # the last list that was jumped over

    def begin_if_quiet(self, keeper: Keeper) -> bool:
        """Begin if nothing but the next beat is due, and nothing is in its way; False if it has to be an event."""
        agent = self._agent
        connection, clock = agent.connection, agent.host.clock
        if connection is None or not keeper.only_beats or agent.about_to_die:
            return False
        first = clock.when(keeper.beat_s)
        if not (connection.idle_by(first) and self._is_heard(connection)):
            return False
        self._connection = connection
        self._first = first
        self._every_s = clock.when(keeper.beat_s + keeper.heartbeat_s) - first
        self._heard = 0
        self.news_at = first + SURE_S
        connection.aggregator.quiet[connection.node] = self
        return True

    def _is_heard(self, connection: Connection) -> bool:
        """Return whether a beat that is sent now would be answered, and nobody waits for it."""
        aggregator, node = connection.aggregator, connection.node
        talk = aggregator.intake.standing(node)
        if talk is None or talk.connection is not connection or node in aggregator.awaited:
            return False
        if not aggregator.answers or not aggregator.alone:
            return False  # among several each answer is a deed that a lease must cover
        return self._agent.host.world.network.undisturbed(node, Plane.CONTROL)

    def jump_over_list(self, listed: DomainsListed) -> bool:
        """Keep a list back that shows the keeper nothing new; False if it has to be told."""
        if self._connection is None:
            return False
        self._unsaid = listed
        return True

    def end(self) -> None:
        """Something happens: bring both ends up to date; the next beat is an event."""
        keeper = self._agent.keeper
        if self.leave() and keeper is not None:
            self._agent.tick_at(keeper.beat_s)

    def leave(self) -> bool:
        """Bring both ends up to date and be quiet no more; the agent sees to its next beat. False if it was not."""
        connection, agent = self._connection, self._agent
        if connection is None:
            return False
        beat = self.news()
        count, self.news_at, self._connection = self._passed(), inf, None
        aggregator = connection.aggregator
        del aggregator.quiet[connection.node]
        if count and agent.keeper is not None:
            last = self._first + (count - 1) * self._every_s
            leader = aggregator.leadership_at(last + HEARD_S)
            agent.learn_quietly(agent.keeper.beats_passed(count, agent.host.clock.shows(last + ANSWERED_S), leader))
            aggregator.intake.heard(connection, last + HEARD_S)
        self._tell_list(agent.keeper)
        aggregator.listen_again(beat)
        return True

    def _tell_list(self, keeper: Keeper | None) -> None:
        """The keeper knows that nothing had changed when the last list was made."""
        unsaid, self._unsaid = self._unsaid, None
        if unsaid is not None and keeper is not None:
            effects = keeper.step(min(unsaid.asked_s, keeper.beat_s - SURE_S), unsaid)
            if not all(isinstance(effect, LookAgainAt) for effect in effects):
                raise AssertionError(f"a list that shows nothing new made the keeper act: {effects}")

    def news(self) -> BeatHeard | None:
        """Return the newest beat if the aggregator was not told of it yet."""
        connection = self._connection
        count = self._passed()
        if connection is None or count <= self._heard:
            return None
        self._heard = count
        self.news_at = self._first + count * self._every_s + SURE_S
        aggregator = connection.aggregator
        talk = aggregator.intake.standing(connection.node)
        if talk is None or talk.session is None:
            return None
        at = aggregator.shows(self._first + (count - 1) * self._every_s + HEARD_S)
        return BeatHeard(at=at, node=connection.node, session=talk.session, sequence=self._sequence() + count)

    def _sequence(self) -> int:
        keeper = self._agent.keeper
        return keeper.beats if keeper is not None else 0

    def _passed(self) -> int:
        """Return how many beats of the quiet time are sent and surely answered."""
        past_s = self._agent.queue.now - SURE_S - self._first
        return int(past_s // self._every_s) + 1 if past_s >= 0 else 0
