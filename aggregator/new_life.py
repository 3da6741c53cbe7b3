"""How a life of the aggregator begins: journal read back, term issued, and the facts that say so.

Knows store, core and clock; starts nothing. What was open in the journal is unknown now and decided anew.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Sequence

import structlog
from msgspec import Struct

from aggregator.clock import FleetClock
from aggregator.core.events import AggregatorStarted, ConfigChanged, Event
from aggregator.core.fold import fold
from aggregator.core.policy import write_config
from aggregator.core.state import State
from aggregator.journal_row import read_events, read_snapshot
from aggregator.settings import Settings, configure
from aggregator.store.protocol import Store, StoreError
from fleet.model import Leadership

_log = structlog.get_logger("aggregator.new_life")


class Beginning(Struct, frozen=True):
    """The state as the last life left it, and the first facts of this one."""

    state: State
    first: Sequence[Event]


async def begin(store: Store, clock: FleetClock, settings: Settings) -> Beginning:
    """Open the store and return where this life starts; StoreError, ConfigError."""
    recovered = await store.open()
    if recovered.note:
        _log.warning("store", note=recovered.note)
    state = read_snapshot(recovered)
    for event in read_events(recovered.events):
        fold(state, event)
    if state.position != recovered.position:
        raise StoreError(
            f"the journal ends at {recovered.position}, but its events lead to {state.position}; restore a backup"
        )
    config = configure(state.config, settings.config)
    last_at = max(recovered.at, state.now)
    clock.start_after(last_at)
    term = await store.issue_term()
    while term <= state.leader.term:
        term = await store.issue_term()
    leader = Leadership(term, uuid.uuid4().hex, state.position)
    secret = "" if state.secret else secrets.token_hex(32)
    here = settings.machine_id
    first: list[Event] = [
        AggregatorStarted(
            at=clock.now(),
            leader=leader,
            machine_id=here,
            secret=secret,
            away_s=max(0.0, clock.now() - last_at) if state.now else 0.0,
            store_mark=recovered.mark,
            lost_events=recovered.lost_events,
        )
    ]
    if config != state.config:
        first.append(ConfigChanged(at=clock.now(), config=write_config(config), who="aggregator.toml"))
    _log.info("life begins", term=term, position=state.position, replayed=len(recovered.events))
    return Beginning(state, first)
