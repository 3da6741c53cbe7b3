"""Speaking through a peer, and offering oneself as one. Pure.

The aggregator asks a peer that hears us to offer itself; we take the offer only if our own way is
silent, and one at a time. A relayed agent offers itself to nobody: one hop. When the own way works
again the driver opens it by itself, and that new session replaces the relayed one.
"""

from __future__ import annotations

from agent.conversation import Conversation, Phase
from agent.desk import Desk
from agent.keeper_types import OfferToPeer, OpenRelay, RelayOffered
from fleet.messages import OfferRelay


class Relaying:
    """Both sides of an offer."""

    def __init__(self, desk: Desk, conversation: Conversation) -> None:
        self._desk = desk
        self._conversation = conversation
        self._began_s = float("-inf")  # when a relay was last begun

    def asked(self, message: OfferRelay) -> None:
        """Offer ourselves to a silent node, if we speak for ourselves."""
        desk = self._desk
        if self._conversation.phase is Phase.STANDING and not desk.via and message.target != desk.settings.node:
            desk.note("relay offered", detail=f"{message.target} at {message.address}")
            desk.out.append(OfferToPeer(message.target, message.address))

    def offered(self, fact: RelayOffered) -> None:
        """Take a peer's offer, if our own way is silent and no other offer was just taken."""
        desk, offer = self._desk, fact.offer
        if offer.target != desk.settings.node or offer.peer == desk.settings.node or not self._is_cut_off():
            return
        if desk.now < self._began_s + desk.settings.relay_wait_s_max:
            return
        self._began_s = desk.now
        desk.note("relay taken", detail=f"{offer.peer} at {fact.address}", warning=True)
        desk.out.append(OpenRelay(offer.peer, fact.address, offer.ticket))

    def _is_cut_off(self) -> bool:
        talk, settings = self._conversation, self._desk.settings
        if talk.phase is Phase.CLOSED:
            return self._desk.now >= talk.closed_s + settings.relay_unlinked_after_s
        return talk.silent_for_s() >= settings.relay_after_beats * talk.heartbeat_s
