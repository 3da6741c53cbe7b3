"""A connection that a peer carries: two hops, and what becomes of it when the peer fails.

The peer passes items on, in order, while it lives; paused, it keeps them. Its death is told to
both ends by its kernel, its loss of power by nobody. Knows no message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleet.messages import FromAgent, FromAggregator
from fleet.model import Plane
from simulator.connection import Connection, Ending
from simulator.network import Stream

if TYPE_CHECKING:
    from simulator.agent import SimulatedAgent
    from simulator.aggregator import SimulatedAggregator


class RelayedConnection(Connection):
    """Made by an agent through `peer`, which it reaches on `plane`."""

    def __init__(
        self, agent: SimulatedAgent, aggregator: SimulatedAggregator, link: int, peer: SimulatedAgent, plane: Plane
    ) -> None:
        super().__init__(agent, aggregator, link)
        network, near, far = agent.host.world.network, peer.host.name, aggregator.name
        self.via = near
        self._peer = peer
        self._peer_life = peer.life
        self._carried = True
        self._up: Stream[FromAgent | Ending] = Stream(network, self.node, near, plane, self._up_at_peer)
        self._onward: Stream[FromAgent | Ending] = Stream(network, near, far, Plane.CONTROL, self._at_aggregator)
        self._down: Stream[FromAggregator | Ending] = Stream(network, far, near, Plane.CONTROL, self._down_at_peer)
        self._outward: Stream[FromAggregator | Ending] = Stream(network, near, self.node, plane, self._at_agent)
        peer.relays.append(self)

    def peer_dies(self) -> None:
        """The peer's kernel closes both its sockets."""
        if self._carried:
            self._carried = False
            self._onward.send(Ending("closed"), ends=True)
            self._outward.send(Ending("closed"), ends=True)

    def peer_loses_power(self) -> None:
        """Nothing is ever said by it again."""
        self._carried = False
        for stream in (self._up, self._onward, self._down, self._outward):
            stream.die()

    def lose_agent_kernel(self) -> None:
        super().lose_agent_kernel()
        self._outward.die()

    def _up_at_peer(self, item: FromAgent | Ending) -> None:
        if self._carried and self._peer.life == self._peer_life:
            self._peer.when_running(lambda: self._pass_up(item))
        elif not isinstance(item, Ending):
            self._outward.send(Ending("reset"), ends=True)

    def _pass_up(self, item: FromAgent | Ending) -> None:
        ends = isinstance(item, Ending)
        self._onward.send(item, ends=ends)
        if ends:
            self._let_go()

    def _down_at_peer(self, item: FromAggregator | Ending) -> None:
        if self._carried and self._peer.life == self._peer_life:
            self._peer.when_running(lambda: self._pass_down(item))
        elif not isinstance(item, Ending):
            self._onward.send(Ending("reset"), ends=True)

    def _pass_down(self, item: FromAggregator | Ending) -> None:
        ends = isinstance(item, Ending)
        self._outward.send(item, ends=ends)
        if ends:
            self._let_go()

    def _let_go(self) -> None:
        self._carried = False
        if self in self._peer.relays:
            self._peer.relays.remove(self)
