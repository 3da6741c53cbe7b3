"""What one look at the state decides, while it is being written down.

Collects transitions and actions, hands out ids and remembers when to look again. Pure and
short-lived: one Draft per call of decide().
"""

from __future__ import annotations

from math import inf

from msgspec import Struct

from aggregator.core.actions import Action, SendOrder
from aggregator.core.events import OrderIssued, Transition
from aggregator.core.state import Leftover, NodeRecord, State, VmRecord
from fleet.messages import Order, OrderBody
from fleet.model import Leadership


class Decision(Struct, frozen=True):
    """Transitions to fold and journal, then actions to perform; when to look again (fleet time)."""

    transitions: tuple[Transition, ...]
    actions: tuple[Action, ...]
    look_again_at: float


class Draft:
    """A decision in the making."""

    def __init__(self, state: State, now: float) -> None:
        """Start with nothing decided at fleet time `now`."""
        self.state = state
        self.now = now
        self.transitions: list[Transition] = []
        self.actions: list[Action] = []
        self.look_again_at = inf
        self._issued: dict[str, int] = {}

    def look_again(self, at: float) -> None:
        """Ask to be called at fleet time `at`, if nothing happens before."""
        if self.now < at < self.look_again_at:
            self.look_again_at = at

    def due(self, at: float) -> bool:
        """Return whether `at` has come; if not, ask to be called then."""
        if at <= self.now:
            return True
        self.look_again(at)
        return False

    def add(self, transition: Transition) -> None:
        """Decide a transition."""
        self.transitions.append(transition)

    def act(self, action: Action) -> None:
        """Have something done once the transitions are journalled."""
        self.actions.append(action)

    def new_id(self, kind: str) -> str:
        """Return the next id of a kind: ord-7; fold moves the counter when it sees it."""
        number = self._issued.get(kind, self.state.counters.get(kind, 0)) + 1
        self._issued[kind] = number
        return f"{kind}-{number}"

    def order(self, node: NodeRecord, vm: VmRecord, body: OrderBody, *, epoch: int, reason: str) -> None:
        """Issue an order to a node's standing session."""
        self._order(node, (vm.uuid, vm.name), body, epoch, (vm.name, reason, max(node.fact, vm.fact)))

    def order_removed(self, node: NodeRecord, left: Leftover, body: OrderBody, *, reason: str) -> None:
        """Issue an order about a VM that is no longer known."""
        self._order(node, (left.uuid, left.name), body, left.epoch, ("", reason, node.fact))

    def _order(
        self, node: NodeRecord, whom: tuple[str, str], body: OrderBody, epoch: int, why: tuple[str, str, int]
    ) -> None:
        if node.session is None:
            raise ValueError(f"order to {node.name}, which has no session")
        order = Order(
            order_id=self.new_id("ord"),
            uuid=whom[0],
            name=whom[1],
            epoch=epoch,
            leader=self._leadership(),
            session=node.session,
            body=body,
        )
        vm, reason, cause = why
        self.add(OrderIssued(at=self.now, node=node.name, vm=vm, order=order, reason=reason, cause=cause))
        self.act(SendOrder(decided_at=self.now, node=node.name, order=order))

    def _leadership(self) -> Leadership:
        """Who orders, at the position that the order will have: a store that has lost it is behind its executor."""
        leader = self.state.leader
        return Leadership(leader.term, leader.instance, self.state.position + len(self.transitions) + 1)

    def decision(self) -> Decision:
        """Return what was decided."""
        return Decision(tuple(self.transitions), tuple(self.actions), self.look_again_at)
