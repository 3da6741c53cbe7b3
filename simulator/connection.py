"""One connection between an agent and an aggregator: two streams, and how it ends.

A closed end is told to the other by the kernel, after what was sent before; a host that lost its
power tells nothing. What arrives at a closed end is answered by a reset. Knows no message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from fleet.messages import FromAgent, FromAggregator
from fleet.model import Plane
from simulator.network import Stream

if TYPE_CHECKING:
    from simulator.agent import SimulatedAgent
    from simulator.aggregator import SimulatedAggregator


class Ending(Struct, frozen=True):
    """The other kernel says the connection is over. how: closed | reset."""

    how: str


class Connection:
    """Made by the agent, accepted by the aggregator."""

    def __init__(self, agent: SimulatedAgent, aggregator: SimulatedAggregator, link: int) -> None:
        self.agent = agent
        self.aggregator = aggregator
        self.link = link
        self.node = agent.host.name
        self.via = ""  # the peer that carries it
        self._agent_life = agent.life
        self._aggregator_life = aggregator.life
        network = agent.host.world.network
        plane = Plane.CONTROL
        self._up: Stream[FromAgent | Ending] = Stream(network, self.node, aggregator.name, plane, self._at_aggregator)
        self._down: Stream[FromAggregator | Ending] = Stream(network, aggregator.name, self.node, plane, self._at_agent)
        self._agent_open = True
        self._aggregator_open = True

    def idle_by(self, when: float) -> bool:
        """Is it open at both ends, and will all that was sent have arrived by then?"""
        return self._agent_open and self._aggregator_open and self._up.idle_by(when) and self._down.idle_by(when)

    def agent_sends(self, message: FromAgent) -> None:
        if self._agent_open:
            self._up.send(message)

    def aggregator_sends(self, message: FromAggregator) -> None:
        if self._aggregator_open:
            self._down.send(message)

    def agent_closes(self, how: str = "closed") -> None:
        if self._agent_open:
            self._agent_open = False
            self._up.send(Ending(how), ends=True)

    def aggregator_closes(self, how: str = "closed") -> None:
        if self._aggregator_open:
            self._aggregator_open = False
            self._down.send(Ending(how), ends=True)

    def lose_agent_kernel(self) -> None:
        """The host's power is gone: nothing that waits is ever sent, nothing is ever acknowledged."""
        self._agent_open = False
        self._up.die()
        self._down.die()

    def _at_aggregator(self, item: FromAgent | Ending) -> None:
        if self._aggregator_open and self.aggregator.life == self._aggregator_life:
            self.aggregator.when_running(lambda: self.aggregator.take(self, item))
        elif not isinstance(item, Ending):
            self._down.send(Ending("reset"), ends=True)

    def _at_agent(self, item: FromAggregator | Ending) -> None:
        if self._agent_open and self.agent.life == self._agent_life:
            self.agent.when_running(lambda: self._agent_reads(item))
        elif not isinstance(item, Ending):
            self._up.send(Ending("reset"), ends=True)

    def _agent_reads(self, item: FromAggregator | Ending) -> None:
        if not self._agent_open:
            return
        if isinstance(item, Ending):
            self._agent_open = False
            self.agent.connection_ended(self)
        else:
            self.agent.take(self, item)

    def ended_at_aggregator(self) -> None:
        """The aggregator has read the other side's ending."""
        self._aggregator_open = False
