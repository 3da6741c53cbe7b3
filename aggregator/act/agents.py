"""The hand that speaks to agents: orders, questions to peers, and the end of a session.

Knows sessions and the age of decisions; must not know what an order does. An order leaves only in the
standing session it names; where there is none, it provably never leaves, and that is reported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import structlog

from aggregator.connection import Connection
from aggregator.core.actions import (
    ACTION_AGE_S_MAX,
    CloseSession,
    SendArrivalCheck,
    SendOrder,
    SendProbe,
    SendRelayOffer,
)
from aggregator.core.events import Event, OrderDropped
from fleet.model import SessionKey

_log = structlog.get_logger("aggregator.act")


class Switchboard(Protocol):
    """Who is connected."""

    def standing(self, node: str, key: SessionKey | None = None) -> Connection | None:
        """Return the connection of the node's standing session (this one, if key is given)."""


class AgentsHand:
    """Sends in standing sessions. report takes the facts; may_act says whether deeds are allowed now."""

    def __init__(
        self,
        switchboard: Switchboard,
        now: Callable[[], float],
        report: Callable[[Event], None],
        may_act: Callable[[], bool],
    ) -> None:
        self._switchboard = switchboard
        self._now, self._report, self._may_act = now, report, may_act

    def send_order(self, action: SendOrder) -> None:
        """Send, or report OrderDropped: then the order never left this process."""
        why = self._send_order(action)
        if why:
            self._report(OrderDropped(at=self._now(), order_id=action.order.order_id, why=why))

    def _send_order(self, action: SendOrder) -> str:
        age = self._now() - action.decided_at
        if not self._may_act():
            return "this aggregator may not act now"
        if age > ACTION_AGE_S_MAX:
            return f"its decision is {age:.1f} s old"
        connection = self._switchboard.standing(action.node, action.order.session)
        if connection is None:
            return f"the session it names no longer stands on {action.node}"
        if not connection.send(action.order, action):
            return f"{action.node} does not take it"
        return ""

    def send_probe(self, action: SendProbe) -> None:
        """Ask a peer; if that cannot be done, nobody answers, and the core asks again."""
        connection = self._switchboard.standing(action.prober)
        if connection is None or not connection.send(action.request):
            _log.info("probe not sent", node=action.prober, target=action.request.target)

    def send_arrival_check(self, action: SendArrivalCheck) -> None:
        """Ask the target of a migration; if that cannot be done, nobody answers, and the core goes on without."""
        connection = self._switchboard.standing(action.node)
        if connection is None or not connection.send(action.question):
            _log.info("arrival check not sent", node=action.node, migration=action.question.check_id)

    def send_relay_offer(self, action: SendRelayOffer) -> None:
        """Have a peer offer itself as relay; if that cannot be done, the core asks again."""
        connection = self._switchboard.standing(action.peer)
        if connection is None or not connection.send(action.offer):
            _log.info("relay offer not sent", node=action.peer, target=action.offer.target)

    def close_session(self, action: CloseSession) -> None:
        """End the node's session; its agent opens a new one."""
        connection = self._switchboard.standing(action.node)
        if connection is not None:
            connection.end("reset", action.why)
