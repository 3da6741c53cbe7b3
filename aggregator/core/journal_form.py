"""How events, state and decisions are written down: MessagePack, one codec for all of them.

Pure bytes in and out. The store keeps the bytes; the simulator uses the same codec to prove
that what was journalled can be read back.
"""

from __future__ import annotations

from functools import reduce
from operator import or_

import msgspec

from aggregator.core import events
from aggregator.core.events import Event, Transition
from aggregator.core.policy import decode_config_value, encode_config_value
from aggregator.core.state import State

FORM_VERSION = 1

_KINDS = [
    kind
    for kind in vars(events).values()
    if isinstance(kind, type) and issubclass(kind, Event) and kind not in {Event, Transition}
]
_encoder = msgspec.msgpack.Encoder(enc_hook=encode_config_value)
_event_decoder: msgspec.msgpack.Decoder[Event] = msgspec.msgpack.Decoder(
    reduce(or_, _KINDS), dec_hook=decode_config_value
)
_state_decoder: msgspec.msgpack.Decoder[State] = msgspec.msgpack.Decoder(State, dec_hook=decode_config_value)

VOLATILE = (events.BeatHeard, events.MigrationProgressed)
"""Facts that are folded but never journalled: they mean nothing after a restart."""


def encode_event(event: Event) -> bytes:
    """Return the journal's bytes of one event."""
    return _encoder.encode(event)


def decode_event(data: bytes) -> Event:
    """Return the event; msgspec.DecodeError if the bytes are none (a broken or newer journal)."""
    return _event_decoder.decode(data)


def encode_state(state: State) -> bytes:
    """Return a snapshot."""
    return _encoder.encode(state)


def decode_state(data: bytes) -> State:
    """Return the state of a snapshot; msgspec.DecodeError if it is none."""
    return _state_decoder.decode(data)


def copy_state(state: State) -> State:
    """Return an independent copy (what-if never touches the state itself)."""
    return decode_state(encode_state(state))
