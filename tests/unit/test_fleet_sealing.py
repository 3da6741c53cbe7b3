"""A relayed connection's frames: nobody on the way can forge, alter, repeat, drop or move one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec import structs

from fleet.sealing import NONCE_CHARACTERS, SEAL_BYTES, Claim, Seal, SealError, read_claim, seal_of, token_digest

CLAIM = Claim("h1", "h2", "0" * NONCE_CHARACTERS)


def seal(at_agent: bool, claim: Claim = CLAIM, challenge: str = "c", key: str = "s") -> Seal:  # noqa: FBT001
    return seal_of(claim, challenge, token_digest(key), at_agent=at_agent)


def test_both_ends_read_what_the_other_said() -> None:
    agent, aggregator = seal(at_agent=True), seal(at_agent=False)
    for frame in (b"hello", b"", b"beat"):
        assert aggregator.open(agent.close(frame)) == frame
        assert agent.open(aggregator.close(frame)) == frame


Frames = tuple[bytes, bytes]
MEDDLED: dict[str, Callable[[Frames], list[bytes]]] = {
    "altered": lambda frames: [frames[0][:SEAL_BYTES] + b"another"],
    "forged": lambda frames: [b"\0" * SEAL_BYTES + frames[0][SEAL_BYTES:]],
    "bare": lambda frames: [frames[0][SEAL_BYTES:]],
    "empty": lambda _frames: [b""],
    "reordered": lambda frames: [frames[1], frames[0]],
    "dropped": lambda frames: [frames[1]],
    "repeated": lambda frames: [frames[0], frames[0]],
}


@pytest.mark.parametrize("how", MEDDLED)
def test_whatever_is_meddled_with_is_noticed(how: str) -> None:
    agent, aggregator = seal(at_agent=True), seal(at_agent=False)
    *sound, bad = MEDDLED[how]((agent.close(b"one"), agent.close(b"two")))
    if how == "repeated":
        assert [aggregator.open(frame) for frame in sound] == [b"one"]
        sound = []
    with pytest.raises(SealError):
        aggregator.open((sound or [bad])[0])


@pytest.mark.parametrize(
    "other",
    [
        {"key": "another"},
        {"challenge": "another"},
        {"claim": structs.replace(CLAIM, via="h3")},
        {"claim": structs.replace(CLAIM, node="h4")},
        {"claim": structs.replace(CLAIM, nonce="1" * NONCE_CHARACTERS)},
    ],
)
def test_a_frame_belongs_to_one_connection_of_one_node(other: dict[str, object]) -> None:
    agent = seal(True, **other)  # type: ignore[arg-type]
    with pytest.raises(SealError):
        seal(at_agent=False).open(agent.close(b"hello"))


def test_a_frame_cannot_be_sent_back_to_who_sealed_it() -> None:
    agent = seal(at_agent=True)
    with pytest.raises(SealError):
        agent.open(agent.close(b"hello"))


def test_a_claim_survives_its_header() -> None:
    assert read_claim(CLAIM.header()) == CLAIM


@pytest.mark.parametrize(
    "header",
    ["", "Bearer x", "Virtward-Relay", "Virtward-Relay node=h1", "Virtward-Relay node=h1, via=h2, nonce=short"],
)
def test_what_is_no_claim_is_none(header: str) -> None:
    assert read_claim(header) is None
