"""What is known of a shared storage that some node does not reach. Plain records; only the fold modules assign."""

from __future__ import annotations

from msgspec import Struct, field


class StorageAnswer(Struct, frozen=True):
    """What a peer that was asked said of a storage. at: when it was asked, fleet time."""

    reached: bool
    at: float


class StorageLoss(Struct):
    """One storage, from the first word that a node does not reach it until no node says so."""

    storage: str
    incident: str
    asked_at: float = 0.0
    many: bool = False  # more nodes than the brake lets through have lost it
    few_since: float = 0.0  # since when not so any more
    answers: dict[str, StorageAnswer] = field(default_factory=dict)  # by node
