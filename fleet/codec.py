"""Messages to MessagePack frames and back, validated and bounded.

Knows the unions of fleet.messages and nothing of sockets. A frame that is no valid message raises
CodecError, whose text is one sentence that names the place inside the frame.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from fleet.messages import FRAME_BYTES_MAX, BetweenAgents, FromAgent, FromAggregator, Message

T = TypeVar("T")
SAID_CHARS_MAX = 300  # of what is wrong with a frame: the words of the decoder may quote it


class CodecError(Exception):
    """A frame that is no message; the text is one sentence for a log."""


class Codec(Generic[T]):
    """Encodes and decodes one direction of the talk."""

    def __init__(self, union: object, speaker: str) -> None:
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(union)
        self._encoder = msgspec.msgpack.Encoder()
        self._speaker = speaker

    def encode(self, message: T) -> bytes:
        """Return the frame; CodecError if it would be longer than FRAME_BYTES_MAX."""
        frame = self._encoder.encode(message)
        if len(frame) > FRAME_BYTES_MAX:
            raise CodecError(f"a {type(message).__name__} of {len(frame)} bytes is longer than a frame may be")
        return frame

    def decode(self, frame: bytes) -> T:
        """Return the message; CodecError if the frame is too long or no message of this direction."""
        if len(frame) > FRAME_BYTES_MAX:
            raise CodecError(f"a frame of {len(frame)} bytes is longer than {FRAME_BYTES_MAX}")
        try:
            return self._decoder.decode(frame)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise CodecError(f"the frame is no message of {self._speaker}: {_in_a_log(str(error))}") from None


def _in_a_log(text: str) -> str:
    """Return text that may quote the frame so that it stays one line of a bounded length."""
    return "".join(sign if sign.isprintable() else "?" for sign in text[:SAID_CHARS_MAX])


FROM_AGENT: Codec[FromAgent] = Codec(FromAgent, "an agent")
FROM_AGGREGATOR: Codec[FromAggregator] = Codec(FromAggregator, "an aggregator")
BETWEEN_AGENTS: Codec[BetweenAgents] = Codec(BetweenAgents, "another agent")


def message_name(message: Message) -> str:
    """Return the tag of a message as it stands on the wire."""
    return str(message.__struct_config__.tag)
