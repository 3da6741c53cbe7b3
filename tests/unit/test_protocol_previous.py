"""A peer of the previous protocol: each side understands the other, and a fleet of both does what it did."""

from __future__ import annotations

import typing
from pathlib import Path

import msgspec
import pytest

from agent.keeper_types import LinkOpened
from fleet.codec import BETWEEN_AGENTS, FROM_AGENT, FROM_AGGREGATOR, Codec
from fleet.messages import (
    PROTOCOL_MAX,
    PROTOCOL_MIN,
    CheckArrival,
    CheckDeparture,
    FromAgent,
    FromAggregator,
    FullState,
    GuestPictured,
    MoveChecked,
    SetIsolation,
    TakePicture,
    VmsKept,
    Welcome,
)
from fleet.model import Isolation, QemuState
from simulator.command import text_of
from simulator.connection import Connection
from simulator.run import Player
from simulator.story import read_story
from tests.protocol_1 import messages as previous
from tests.unit.keeper_harness import LEADER, Node, a_vm, sent_of
from tests.unit.test_fleet_codec import AGENT, AGGREGATOR, PEERS

STORIES = Path(__file__).parents[1] / "stories"
PLAYED = ("drain", "drained-node-dies", "migration-reply-lost", "store-rolled-back-after-a-recovery")
_encoder = msgspec.msgpack.Encoder()
DECODERS = {
    FROM_AGENT: msgspec.msgpack.Decoder(previous.FromAgent),
    FROM_AGGREGATOR: msgspec.msgpack.Decoder(previous.FromAggregator),
    BETWEEN_AGENTS: msgspec.msgpack.Decoder(previous.BetweenAgents),
}
SINCE = (VmsKept, GuestPictured, TakePicture, MoveChecked, CheckArrival, CheckDeparture)
"""Kinds of messages that the previous protocol does not know; they are sent to whom asks for them."""
ALL = [
    (codec, message)
    for codec, some in ((FROM_AGENT, AGENT), (FROM_AGGREGATOR, AGGREGATOR), (BETWEEN_AGENTS, PEERS))
    for message in some
    if not isinstance(message, SINCE)
]


def through_a_previous_peer(codec: Codec[typing.Any], message: typing.Any) -> typing.Any:
    """Return the message as it is after a peer of the previous protocol has read and written it."""
    return codec.decode(_encoder.encode(DECODERS[codec].decode(codec.encode(message))))


def test_the_previous_protocol_is_the_one_below_and_still_spoken() -> None:
    assert (previous.PROTOCOL_MAX, PROTOCOL_MIN, PROTOCOL_MAX) == (PROTOCOL_MAX - 1, PROTOCOL_MAX - 1, PROTOCOL_MAX)


@pytest.mark.parametrize(("codec", "message"), ALL, ids=lambda value: type(value).__name__)
def test_what_is_said_now_is_read_by_a_previous_peer_and_its_answer_is_read_here(
    codec: Codec[typing.Any], message: typing.Any
) -> None:
    there = DECODERS[codec].decode(codec.encode(message))
    back = through_a_previous_peer(codec, message)
    assert type(there).__name__ == type(back).__name__ == type(message).__name__
    assert DECODERS[codec].decode(codec.encode(back)) == there


def test_every_kind_that_the_previous_protocol_has_is_there_still() -> None:
    for now, before in (
        (FromAgent, previous.FromAgent),
        (FromAggregator, previous.FromAggregator),
    ):
        kinds = {kind.__name__ for kind in typing.get_args(now)} - {kind.__name__ for kind in SINCE}
        assert {kind.__name__ for kind in typing.get_args(before)} == kinds


def test_a_previous_aggregator_is_answered_in_its_protocol_and_told_nothing_new() -> None:
    """Its welcome has none of the new fields; its orders neither, and they are obeyed."""
    node = Node()
    node.link += 1
    node.step(LinkOpened(node.link))
    welcome = Welcome(previous.PROTOCOL_MAX, LEADER, node.session, 1.0, ())
    node.hear(through_a_previous_peer(FROM_AGGREGATOR, welcome))
    effects = node.listed(a_vm(QemuState.RUNNING))
    assert sent_of(effects, FullState)
    node.order(SetIsolation(1, Isolation()))
    for message in node.sent():
        assert not isinstance(message, SINCE)
        assert through_a_previous_peer(FROM_AGENT, message) is not None


@pytest.mark.parametrize("name", PLAYED)
def test_a_fleet_of_both_plays_the_same_story(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Every frame is read and written by the previous protocol: what it does not carry is not needed.

    Kinds that it does not know pass as they are: both ends say that they speak the present one.
    """
    agent_sends, aggregator_sends = Connection.agent_sends, Connection.aggregator_sends

    def up(self: Connection, message: FromAgent) -> None:
        agent_sends(self, message if isinstance(message, SINCE) else through_a_previous_peer(FROM_AGENT, message))

    def down(self: Connection, message: FromAggregator) -> None:
        known = not isinstance(message, SINCE)
        aggregator_sends(self, through_a_previous_peer(FROM_AGGREGATOR, message) if known else message)

    monkeypatch.setattr(Connection, "agent_sends", up)
    monkeypatch.setattr(Connection, "aggregator_sends", down)
    path = STORIES / f"{name}.yaml"
    performance = Player(read_story(path.read_text(encoding="utf-8"), name)).play()
    assert performance.unforeseen == []
    assert [expectation.words for expectation in performance.unmet] == []
    assert text_of(performance) == path.with_suffix(".out").read_text(encoding="utf-8")
