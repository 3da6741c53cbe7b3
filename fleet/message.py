"""What every message between agents and aggregator has in common."""

from __future__ import annotations

from msgspec import Struct


class Message(Struct, frozen=True, tag_field="t", tag=str.lower):
    """Base of all messages; the tag `t` is the lower-cased type name."""
