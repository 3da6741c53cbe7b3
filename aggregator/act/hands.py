"""All hands behind one door: each action goes to the hand that can do it."""

from __future__ import annotations

from aggregator.act.agents import AgentsHand
from aggregator.act.fence import FenceHand
from aggregator.act.reference import ReferenceHand
from aggregator.core.actions import (
    Action,
    AskFence,
    AskReference,
    CloseSession,
    SendArrivalCheck,
    SendOrder,
    SendProbe,
    SendRelayOffer,
)


class AllHands:
    """Fulfils aggregator.act.hand.Hands."""

    def __init__(self, agents: AgentsHand, fence: FenceHand, reference: ReferenceHand) -> None:
        self._agents, self._fence, self._reference = agents, fence, reference

    def perform(self, action: Action) -> None:
        match action:
            case SendOrder():
                self._agents.send_order(action)
            case SendProbe():
                self._agents.send_probe(action)
            case SendArrivalCheck():
                self._agents.send_arrival_check(action)
            case SendRelayOffer():
                self._agents.send_relay_offer(action)
            case CloseSession():
                self._agents.close_session(action)
            case AskFence():
                self._fence.ask(action)
            case AskReference():
                self._reference.ask(action)
            case _:
                raise TypeError(f"no hand performs a {type(action).__name__}")
