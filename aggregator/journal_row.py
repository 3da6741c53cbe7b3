"""Events as the store keeps them, and back into lines of history.

Knows the core's renderings and the store's row; decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from aggregator.core.events import Event, Transition
from aggregator.core.history import detail_of, is_quiet, kind_of, subject_of
from aggregator.core.journal_form import decode_event, decode_state, encode_event
from aggregator.core.state import HistoryLine, State
from aggregator.store.protocol import Recovered, StoredEvent, StoreError


def row_of(state: State, event: Event, position: int) -> StoredEvent:
    """Return the journal's row of an event that was folded at this position."""
    node, vm = subject_of(state, event)
    return StoredEvent(position, event.at, kind_of(event), node, vm, encode_event(event), not is_quiet(event))


def line_of(row: StoredEvent) -> HistoryLine:
    """Return the row as a line of history; a row of an older form keeps what its columns say."""
    try:
        event = decode_event(row.data)
    except msgspec.DecodeError:
        return HistoryLine(row.position, row.at, row.kind, node=row.node, vm=row.vm)
    return HistoryLine(
        position=row.position,
        at=row.at,
        kind=row.kind,
        reason=event.reason if isinstance(event, Transition) else "",
        cause=event.cause if isinstance(event, Transition) else 0,
        node=row.node,
        vm=row.vm,
        detail=detail_of(event),
    )


def read_events(rows: Iterable[StoredEvent]) -> Sequence[Event]:
    """Return the events to fold; StoreError names the row that cannot be read."""
    events = []
    for row in rows:
        try:
            events.append(decode_event(row.data))
        except msgspec.DecodeError as error:
            raise StoreError(
                f"the journal's {row.kind} at position {row.position} cannot be read ({error}); "
                "restore a backup, or install the version that wrote it"
            ) from None
    return events


def read_snapshot(recovered: Recovered) -> State:
    """Return the snapshot's state, a new one if there is none; StoreError if it cannot be read."""
    if recovered.snapshot is None:
        return State()
    try:
        return decode_state(recovered.snapshot)
    except msgspec.DecodeError as error:
        raise StoreError(
            f"the journal's snapshot cannot be read ({error}); restore a backup, or install the version that wrote it"
        ) from None
