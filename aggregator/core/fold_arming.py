"""How disarming and arming change the state. Assigns to the state; called by fold only."""

from __future__ import annotations

from collections.abc import Callable

from aggregator.core import events as ev
from aggregator.core.arming import scope_key
from aggregator.core.events import Event
from aggregator.core.state import Disarming, State


def _disarmed(state: State, event: ev.Disarmed) -> None:
    record = Disarming(
        node=event.node, vm=event.vm, selector=event.selector, since=event.at, until=event.until, who=event.who
    )
    state.disarmed = {**state.disarmed, scope_key(event.node, event.vm, event.selector): record}


def _armed(state: State, event: ev.Armed | ev.DisarmEnded) -> None:
    """Nothing that was seen while nobody acted is held against anybody: every silence counts from now (S7)."""
    gone = scope_key(event.node, event.vm, event.selector)
    state.disarmed = {key: record for key, record in state.disarmed.items() if key != gone}
    state.armed_at = event.at


HANDLERS: dict[type[Event], Callable[..., None]] = {
    ev.Disarmed: _disarmed,
    ev.Armed: _armed,
    ev.DisarmEnded: _armed,
}
