"""The seal of a relayed connection: whoever carries its frames can neither forge nor alter them.

Both ends derive a key from the node's relay secret (of which the aggregator holds the SHA-256), the names
and two nonces, and put an HMAC over direction, number and content before each frame. A frame that
is missing, doubled, out of order or of another connection fails. Secrecy is not its business.
Knows no sockets, draws no chance.
"""

from __future__ import annotations

import hashlib
import hmac

from msgspec import Struct

SEAL_BYTES = 32
SCHEME = "Virtward-Relay"
NONCE_CHARACTERS = 32
_AGENT, _AGGREGATOR = b"agent", b"aggregator"


class SealError(Exception):
    """A frame that is not what the other end sealed next; the text is one sentence."""


class Claim(Struct, frozen=True):
    """Who wants to speak through whom, as the Authorization header of a relayed connection says."""

    node: str
    via: str
    nonce: str

    def header(self) -> str:
        """Return the header's value."""
        return f"{SCHEME} node={self.node}, via={self.via}, nonce={self.nonce}"


def read_claim(header: str) -> Claim | None:
    """Return the claim of an Authorization header; None if it is none."""
    scheme, _, rest = header.partition(" ")
    if scheme != SCHEME:
        return None
    values = dict.fromkeys(("node", "via", "nonce"), "")
    for part in rest.split(","):
        key, _, value = part.strip().partition("=")
        if key in values:
            values[key] = value
    claim = Claim(**values)
    sound = claim.node and claim.via and len(claim.nonce) == NONCE_CHARACTERS
    return claim if sound else None


def token_digest(token: str) -> str:
    """Return what the aggregator holds of a node's token."""
    return hashlib.sha256(token.strip().encode()).hexdigest()


class Seal:
    """One end of a sealed connection."""

    def __init__(self, key: bytes, *, at_agent: bool) -> None:
        self._key = key
        self._ours, self._theirs = (_AGENT, _AGGREGATOR) if at_agent else (_AGGREGATOR, _AGENT)
        self._sent = self._received = 0

    def close(self, frame: bytes) -> bytes:
        """Return the next frame to send, sealed."""
        self._sent += 1
        return self._mac(self._ours, self._sent, frame) + frame

    def open(self, sealed: bytes) -> bytes:
        """Return what the other end sealed; SealError if this is not its next frame."""
        self._received += 1
        mac, frame = sealed[:SEAL_BYTES], sealed[SEAL_BYTES:]
        if not hmac.compare_digest(mac, self._mac(self._theirs, self._received, frame)):
            raise SealError(
                "a relayed frame does not bear its sender's seal; the token differs, or somebody changed it"
            )
        return frame

    def _mac(self, speaker: bytes, number: int, frame: bytes) -> bytes:
        return hmac.digest(self._key, b"%s %d " % (speaker, number) + frame, "sha256")


def seal_of(claim: Claim, challenge: str, token_sha256: str, *, at_agent: bool) -> Seal:
    """Return one end's seal of the connection with this claim and challenge."""
    words = f"virtward relay 1\n{claim.node}\n{claim.via}\n{claim.nonce}\n{challenge}"
    key = hmac.digest(token_sha256.encode(), words.encode(), "sha256")
    return Seal(key, at_agent=at_agent)
