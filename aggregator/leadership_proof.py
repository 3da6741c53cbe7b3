"""Proves of a leadership that an aggregator of this fleet told it, so that agents who repeat it can be believed.

A MAC by a key that follows from the authority's: only aggregators of the fleet make it and read it, agents keep it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import TypeVar

import structlog
from msgspec import structs

from aggregator.core.reconcile import is_behind
from aggregator.core.state import State
from fleet.identity import same_digest
from fleet.messages import BeatAnswer, FromAggregator, Hello, Order, Welcome
from fleet.model import Leadership

PROOF_CHARACTERS = 32
_PURPOSE = b"virtward leadership 1"
_log = structlog.get_logger("aggregator.intake")
_Told = TypeVar("_Told", bound=FromAggregator)


def proof_key(authority_key: bytes) -> bytes:
    """Return the key that follows from an authority's private key in DER."""
    return hmac.digest(hashlib.sha256(authority_key).digest(), _PURPOSE, "sha256")


class LeadershipProofs:
    """keys: the present one first; the others are of authorities that are trusted too."""

    def __init__(self, keys: Sequence[bytes] = ()) -> None:
        self.keys = tuple(keys)

    def prove(self, message: _Told) -> _Told:
        """Return a message with the proof of the leadership it names; any other message as it is."""
        if not isinstance(message, BeatAnswer | Order | Welcome):
            return message
        leader = message.leader
        proven = Leadership(leader.term, leader.instance, leader.position, _mac(self.keys[0], leader))
        return structs.replace(message, leader=proven)

    def holds(self, leader: Leadership) -> bool:
        """Say whether an aggregator of this fleet once told this leadership."""
        return any(same_digest(_mac(key, leader), leader.proof) for key in self.keys)


def is_believed(state: State, hello: Hello, proofs: LeadershipProofs | None) -> bool:
    """Return whether what an agent says it obeyed may count where it is higher than all that is known here.

    It must be what this fleet's aggregators told; or the agent has just been let in by a person, perhaps anew, after
    the authority was lost by which that could be seen. proofs: None where agents speak openly, and are all believed.
    """
    highest = hello.highest
    if proofs is None or highest is None or not is_behind(state, highest) or proofs.holds(highest):
        return True
    node = state.nodes[hello.node]
    if node.session_since < node.credentials.joined_at:
        return True
    _log.warning("not believed", node=node.name, term=highest.term, position=highest.position)
    return False


def _mac(key: bytes, leader: Leadership) -> str:
    words = f"{leader.term}\n{leader.position}\n{leader.instance}"
    return hmac.digest(key, words.encode(errors="surrogateescape"), "sha256").hex()[:PROOF_CHARACTERS]
