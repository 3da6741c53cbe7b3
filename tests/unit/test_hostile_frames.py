"""The wire codec and hostile input: whatever comes is a message or a CodecError, and costs memory by its size.

Three sources: bytes at random, good frames with bytes changed or cut off, and MessagePack that is well made but lies
about its lengths or is nested as deep as a frame can hold.
"""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgpack  # type: ignore[import-untyped]
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.codec import BETWEEN_AGENTS, FROM_AGENT, FROM_AGGREGATOR, Codec, CodecError
from fleet.messages import FRAME_BYTES_MAX
from tests.unit.test_fleet_codec import ALL

CODECS: tuple[Codec[Any], ...] = (FROM_AGENT, FROM_AGGREGATOR, BETWEEN_AGENTS)
GOOD: list[bytes] = [msgspec.msgpack.encode(message) for _codec, message in ALL]
MEMORY_PER_BYTE_MAX = 128
"""A one-byte item of a frame becomes at most an object with a pointer to it; a Struct of defaults is the dearest."""
MEMORY_SPARE = 1 << 20
SENTENCE_CHARS_MAX = 400

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=40,
)


def survives(frame: bytes) -> None:
    """Decode a frame in every direction: a message, which encodes again, or CodecError."""
    for codec in CODECS:
        try:
            message = codec.decode(frame)
        except CodecError as error:
            said = str(error)
        else:
            said = "fine"
            assert codec.decode(codec.encode(message)) == message or "nan" in repr(message)
        assert said.isprintable()
        assert len(said) < SENTENCE_CHARS_MAX


@given(st.binary(max_size=4096))
def test_bytes_at_random(frame: bytes) -> None:
    survives(frame)


@given(st.sampled_from(GOOD), st.data())
@settings(max_examples=500)
def test_good_frames_with_bytes_changed(frame: bytes, data: st.DataObject) -> None:
    changed = bytearray(frame)
    for _ in range(data.draw(st.integers(1, 8))):
        changed[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    survives(bytes(changed[: data.draw(st.integers(0, len(changed)))]))


@given(st.sampled_from([message for _codec, message in ALL]), st.data())
@settings(max_examples=300)
def test_fields_of_other_types(message: Any, data: st.DataObject) -> None:
    """A field that is something else altogether."""
    fields = msgpack.unpackb(msgspec.msgpack.encode(message), strict_map_key=False)
    fields[data.draw(st.sampled_from(sorted(fields)))] = data.draw(plain)
    survives(msgpack.packb(fields))


@pytest.mark.parametrize(
    "frame",
    [
        b"\xdd\xff\xff\xff\xff" + b"\xc0" * 100,  # an array of 4 billion
        b"\xdf\xff\xff\xff\xff" + b"\xa1a\xc0" * 30,  # a map of 4 billion
        b"\xdb\xff\xff\xff\xff" + b"a" * 100,  # a string of 4 GiB
        b"\xc6\xff\xff\xff\xff" + b"a" * 100,  # bytes of 4 GiB
        b"\x91" * (FRAME_BYTES_MAX - 1) + b"\xc0",  # an array in an array in …
        b"\x81\xa1a" * (FRAME_BYTES_MAX // 3 - 1) + b"\xc0",  # a map in a map in …
        b"\xdc\xff\xff" + b"\x80" * 65535,  # 65,535 empty maps
        b"\xdd" + (FRAME_BYTES_MAX - 5).to_bytes(4, "big") + b"\x80" * (FRAME_BYTES_MAX - 5),
        b"\xc1" * 1000,  # a byte that MessagePack does not have
    ],
    ids=[
        "long array",
        "long map",
        "long string",
        "long bytes",
        "deep array",
        "deep map",
        "maps",
        "many maps",
        "unused",
    ],
)
def test_lengths_that_lie_and_nesting_without_end_cost_no_memory(frame: bytes) -> None:
    tracemalloc.start()
    try:
        survives(frame)
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MEMORY_PER_BYTE_MAX * len(frame) + MEMORY_SPARE


@pytest.mark.parametrize("codec", CODECS, ids=["agent", "aggregator", "peer"])
def test_a_frame_that_is_too_long_is_not_looked_at(codec: Codec[Any]) -> None:
    with pytest.raises(CodecError, match="longer than"):
        codec.decode(b"\xc0" * (FRAME_BYTES_MAX + 1))
