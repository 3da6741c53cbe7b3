"""Making a write true: build the fact from the state, have it folded and journalled, or only show it.

A fact is built again inside the loop, right before it is folded: if the state has moved on in
between and the fact would now be another one, it is built anew. So nobody's write is lost, and
every refusal is decided on the state it is about.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import msgspec

from aggregator.api.calls import Call
from aggregator.api.problems import conflict
from aggregator.api.rights import check_fact
from aggregator.core.events import Event
from aggregator.core.fold import fold
from aggregator.core.state import State

TRIES_MAX = 8

Make = Callable[[State, float], Event | None]
"""(state, fleet time) -> the fact to fold, None if all is so already. Raises Problem to refuse."""


class _MovedError(Exception):
    """The state changed under a write."""


async def commit(call: Call, make: Make) -> tuple[State, bool]:
    """Make a write true; return (the state as it is then, whether anything changed).

    With dryRun the state is a copy that shows what would be. Problem if it is refused.
    """
    make = _permitted(call, make)
    for _ in range(TRIES_MAX):
        now = call.fleet.now()
        fact = make(call.fleet.state, now)
        if fact is None:
            return call.fleet.state, False
        if call.dry_run:
            return preview(call.fleet.state, fact), True
        try:
            await call.fleet.submit(fact, _same(make, fact, now))
        except _MovedError:
            continue
        return call.fleet.state, True
    raise conflict("the object changes faster than it can be written; try again")


def _permitted(call: Call, make: Make) -> Make:
    """Look at each fact before it counts: whoever writes may write this."""

    def permitted(state: State, now: float) -> Event | None:
        fact = make(state, now)
        if fact is not None:
            check_fact(call.rights, state, fact)
        return fact

    return permitted


def _same(make: Make, fact: Event, now: float) -> Callable[[State], None]:
    def check(state: State) -> None:
        if make(state, now) != fact:
            raise _MovedError

    return check


def preview(state: State, fact: Event) -> State:
    """Return the state as it would be with the fact folded; the state itself stays untouched."""
    node = getattr(fact, "node", "") or getattr(fact, "name", "")
    vm = getattr(fact, "vm", "") or getattr(fact, "name", "")
    shown = msgspec.structs.replace(
        state,
        vms={name: copy.deepcopy(record) if name == vm else record for name, record in state.vms.items()},
        nodes={name: copy.deepcopy(record) if name == node else record for name, record in state.nodes.items()},
        names=dict(state.names),
        migrations={name: copy.copy(record) for name, record in state.migrations.items()},
        drains={name: copy.copy(record) for name, record in state.drains.items()},
        foreign={name: dict(reports) for name, reports in state.foreign.items()},
        counters=dict(state.counters),
        tokens=dict(state.tokens),
        incidents={},
        history=[],
    )
    fold(shown, fact)
    return shown
