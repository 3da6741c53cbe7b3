"""What the hands are asked to do. Each is sent only after the transition behind it is journalled.

A hand drops an action older than ACTION_AGE_S_MAX and says so with a fact; the core then
decides anew (safety.md, order of things).
"""

from __future__ import annotations

from msgspec import Struct

from aggregator.core.objects import FencingRung
from fleet.messages import CheckArrival, OfferRelay, Order, ProbeRequest

ACTION_AGE_S_MAX = 1.0


class Action(Struct, frozen=True, kw_only=True, tag_field="a", tag=True):
    """Base of all actions. decided_at: fleet time of the decision."""

    decided_at: float


class SendOrder(Action, frozen=True, kw_only=True):
    """Send the order in the session it names; no such session, or too old: OrderDropped."""

    node: str
    order: Order


class SendProbe(Action, frozen=True, kw_only=True):
    """Ask a peer to probe a suspect; loss is harmless."""

    prober: str
    request: ProbeRequest


class SendRelayOffer(Action, frozen=True, kw_only=True):
    """Have a peer offer a silent node to carry its frames; loss is harmless."""

    peer: str
    offer: OfferRelay


class SendArrivalCheck(Action, frozen=True, kw_only=True):
    """Ask the target of a migration whether the copy would come to run there; loss is harmless."""

    node: str
    question: CheckArrival


class AskFence(Action, frozen=True, kw_only=True):
    """Run a fence program with `-o question`; answer with FenceAnswered within timeout_s.

    off and on are deeds: dropped when too old (FenceAnswered ERROR "dropped").
    """

    node: str
    question_id: str
    rung: FencingRung  # with one device
    question: str  # status | off | on | listen
    timeout_s: float


class AskReference(Action, frozen=True, kw_only=True):
    """Ask the reference address (host, or host:port); answer with ReferenceAnswered. Loss is harmless."""

    address: str


class CloseSession(Action, frozen=True, kw_only=True):
    """End a node's session: its agent opens a new one and reports in full."""

    node: str
    why: str
