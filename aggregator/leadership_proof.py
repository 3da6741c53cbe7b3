"""Proves of a leadership that an aggregator of this fleet told it, so that agents who repeat it can be believed.

A MAC by a key that follows from the authority's: only aggregators of the fleet make it and read it, agents keep it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import TypeVar

from msgspec import structs

from fleet.identity import same_digest
from fleet.messages import BeatAnswer, FromAggregator, Order, Welcome
from fleet.model import Leadership

PROOF_CHARACTERS = 32
_PURPOSE = b"virtward leadership 1"
_Told = TypeVar("_Told", bound=FromAggregator)


def proof_key(authority_key: bytes) -> bytes:
    """Return the key that follows from an authority's private key in DER."""
    return hmac.digest(hashlib.sha256(authority_key).digest(), _PURPOSE, "sha256")


class LeadershipProofs:
    """keys: the present one first; the others are of authorities that are still trusted."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = tuple(keys)

    def prove(self, message: _Told) -> _Told:
        """Return a message with the proof of the leadership it names; any other message as it is."""
        if not isinstance(message, BeatAnswer | Order | Welcome):
            return message
        leader = message.leader
        proven = Leadership(leader.term, leader.instance, leader.position, _mac(self._keys[0], leader))
        return structs.replace(message, leader=proven)

    def holds(self, leader: Leadership) -> bool:
        """Say whether an aggregator of this fleet once told this leadership."""
        return any(same_digest(_mac(key, leader), leader.proof) for key in self._keys)


def _mac(key: bytes, leader: Leadership) -> str:
    words = f"{leader.term}\n{leader.position}\n{leader.instance}"
    return hmac.digest(key, words.encode(errors="surrogateescape"), "sha256").hex()[:PROOF_CHARACTERS]
