"""Frames: every message survives, another MessagePack library reads the same, bad frames are one sentence."""

from __future__ import annotations

import base64
import json
import typing

import msgpack  # type: ignore[import-untyped]
import msgspec
import pytest

from fleet import messages
from fleet.codec import BETWEEN_AGENTS, FROM_AGENT, FROM_AGGREGATOR, Codec, CodecError
from fleet.messages import (
    FRAME_BYTES_MAX,
    Assignment,
    Beat,
    BeatAnswer,
    Challenge,
    CheckArrival,
    CheckDefinition,
    CheckDeparture,
    DefinitionChecked,
    Delta,
    FullState,
    Goodbye,
    GuestPictured,
    Hello,
    KeptVm,
    MigrateVm,
    MigrationProgress,
    MoveChecked,
    OfferRelay,
    Order,
    OrderInHand,
    OrderReport,
    ProbeAddress,
    ProbeReport,
    ProbeRequest,
    ProbeResult,
    ReceiveVm,
    Refusal,
    RelayOffer,
    ReleasedNotice,
    ReleasedReceipt,
    StartVm,
    TakePicture,
    VmsKept,
    Welcome,
)
from fleet.model import (
    BmcIdentity,
    Condition,
    Definition,
    Disk,
    EndReason,
    Finding,
    Leadership,
    LedgerState,
    Needs,
    NodeFacts,
    OrderOutcome,
    Plane,
    QemuState,
    SessionKey,
    VmReport,
)

SESSION = SessionKey("boot", "start", 7)
LEADER = Leadership(3, "a1", 99)
VM = VmReport("u", "web-1", QemuState.RUNNING, end=EndReason.CRASHED, epoch=4, run=2, managed=True)
DEFINITION = Definition("u", "web-1", "<domain/>", "h", (Disk("vda", "nbd://s:10809/web-1", shared=True),))
FACTS = NodeFacts(
    "machine",
    "host",
    addresses={"control": "10.0.0.1"},
    conditions=(Condition("Ready", "True"),),
    bmc=BmcIdentity("10.3.0.1", "guid"),
)
MIGRATE = MigrateVm("m", 1, "h2", 5, "qemu+tls://h2/system", "10.1.0.2", ("10.0.0.2:8422",), "secret")

AGENT = [
    Hello(1, 1, "h1", SESSION, FACTS, LedgerState.SOUND, LEADER),
    FullState(SESSION, 1, (VM,), (OrderInHand("o", "u", 4, "start"),), complete=True, definitions=(DEFINITION,)),
    Delta(SESSION, 2, (VM,), (), FACTS),
    Beat(5, 2, 4),
    OrderReport(SESSION, "o", "u", 4, OrderOutcome.FAILED, "CODE", "text", VM),
    MigrationProgress("u", "o", 42.5, 10, 20),
    ProbeReport(SESSION, "p", "h2", (ProbeResult(Plane.CONTROL, "agent", answered=False, asked_ago_s=1.0),)),
    DefinitionChecked("c", ok=False, message="no"),
    GuestPictured("u", 2, b"\x89PNG", "picture-1", "text"),
    MoveChecked("c", (Finding("Ports", ok=True, message="all"),), 5, 6),
    VmsKept(SESSION, (KeptVm("u", "web-1", 4, 2, b"\x00packed"),), more=True),
    Goodbye(SESSION, "upgrade"),
]
AGGREGATOR = [
    Welcome(1, LEADER, SESSION, 1.0, (Assignment("u", "web-1", 4, 2, here=True),)),
    BeatAnswer(5, LEADER),
    Order("o", "u", "web-1", 4, LEADER, SESSION, StartVm("<domain/>", 2)),
    Order("o", "u", "web-1", 4, LEADER, SESSION, MIGRATE),
    Order("o", "u", "web-1", 5, LEADER, SESSION, ReceiveVm("m", 1, "h1", 4, "secret")),
    ProbeRequest("p", "h2", (ProbeAddress(Plane.MIGRATION, "libvirt", "10.1.0.2", 16514),)),
    CheckDefinition("c", "<domain/>"),
    TakePicture("picture-1", "u"),
    CheckArrival("c", "u", "<domain/>", Needs(machine="pc"), (Disk("vda", "nbd://s:10809/web-1"),), 7),
    CheckDeparture("c", "u", "qemu+tls://h2/system", "10.1.0.2", 8422, 1),
    OfferRelay("h2", "10.1.0.2:8422"),
    Challenge("a nonce"),
    Refusal("UNKNOWN_NODE", "approve it"),
]
PEERS = [
    ReleasedNotice("u", "m", "h1", 4, 5, "secret", LEADER),
    ReleasedReceipt("u", accepted=True, state=QemuState.ARRIVED),
    RelayOffer("h3", "h2", 8422, "a ticket"),
]
ALL = (
    [(FROM_AGENT, m) for m in AGENT] + [(FROM_AGGREGATOR, m) for m in AGGREGATOR] + [(BETWEEN_AGENTS, m) for m in PEERS]
)


def in_json(value: typing.Any) -> typing.Any:
    """Return the value with bytes as JSON has them, in base64."""
    if isinstance(value, dict):
        return {key: in_json(one) for key, one in value.items()}
    if isinstance(value, list):
        return [in_json(one) for one in value]
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def test_every_kind_of_message_is_in_this_test() -> None:
    unions = (messages.FromAgent, messages.FromAggregator, messages.BetweenAgents)
    assert {type(m) for _c, m in ALL} == {kind for union in unions for kind in typing.get_args(union)}


@pytest.mark.parametrize(("codec", "message"), ALL, ids=lambda value: type(value).__name__)
def test_a_message_survives_and_another_library_reads_the_same(codec: Codec[typing.Any], message: typing.Any) -> None:
    frame = codec.encode(message)
    assert codec.decode(frame) == message
    assert in_json(msgpack.unpackb(frame)) == json.loads(msgspec.json.encode(message))
    assert codec.decode(msgpack.packb(msgspec.to_builtins(message, builtin_types=(bytes,)))) == message


def test_a_bare_beat_is_a_few_dozen_bytes() -> None:
    assert len(FROM_AGENT.encode(Beat(1_000_000, 1000, 999_999))) < 60


def test_a_field_from_the_future_is_ignored() -> None:
    plain = msgspec.to_builtins(Beat(5, 2, 4)) | {"mood": "fine"}
    assert FROM_AGENT.decode(msgpack.packb(plain)) == Beat(5, 2, 4)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (b"", "no message of an agent"),
        (b"\xc1", "no message of an agent"),
        (msgpack.packb({"t": "beat", "sequence": "five", "generation": 1}), "$.sequence"),
        (msgpack.packb({"t": "teapot"}), "teapot"),
        (msgpack.packb({"t": "welcome"}), "welcome"),
        (msgpack.packb(["beat", 1, 2]), "no message of an agent"),
        (b"\x81\xa1t\xa4bea\xff", "no message of an agent"),
        (b"\x91" * 5000, "no message of an agent"),
        (b"\0" * (FRAME_BYTES_MAX + 1), "longer than"),
    ],
)
def test_a_frame_that_is_no_message_is_one_sentence(frame: bytes, words: str) -> None:
    with pytest.raises(CodecError, match=words.replace("$", r"\$")) as caught:
        FROM_AGENT.decode(frame)
    assert "\n" not in str(caught.value)


def test_a_message_that_does_not_fit_a_frame_is_not_encoded() -> None:
    with pytest.raises(CodecError, match="longer than a frame"):
        FROM_AGENT.encode(Goodbye(SESSION, "x" * FRAME_BYTES_MAX))
