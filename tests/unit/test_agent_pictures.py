"""Screens as PNG: what a decoder of our own reads back, what is refused, and that a picture always fits a message."""

from __future__ import annotations

import random
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.pictures import SIGNATURE, PictureError, to_png
from fleet.messages import PICTURE_BYTES_MAX


def decoded(png: bytes) -> tuple[int, int, bytes]:
    """Return width, height and pixels of a PNG of unfiltered rows; every chunk's checksum is looked at."""
    assert png.startswith(SIGNATURE)
    at, chunks = len(SIGNATURE), {}
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        data = png[at + 8 : at + 8 + length]
        assert struct.unpack(">I", png[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + data)
        chunks[kind] = data
        at += 12 + length
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    width, height, *form = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert form == [8, 2, 0, 0, 0]
    rows = zlib.decompress(chunks[b"IDAT"])
    assert len(rows) == height * (1 + 3 * width)
    lines = [rows[at : at + 1 + 3 * width] for at in range(0, len(rows), 1 + 3 * width)]
    assert all(line[0] == 0 for line in lines)
    return width, height, b"".join(line[1:] for line in lines)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 1000))
def test_every_pixel_comes_through(width: int, height: int, seed: int) -> None:
    pixels = random.Random(seed).randbytes(3 * width * height)
    assert decoded(to_png(b"P6\n%d %d\n255\n" % (width, height) + pixels)) == (width, height, pixels)


def test_what_does_not_fit_is_shrunk_by_halves() -> None:
    width, height = 1023, 767  # noise does not pack
    pixels = random.Random(1).randbytes(3 * width * height)
    png = to_png(b"P6\n%d %d\n255\n" % (width, height) + pixels)
    assert len(png) <= PICTURE_BYTES_MAX
    small_width, small_height, small = decoded(png)
    assert (small_width, small_height) == (512, 384)
    assert small[:6] == pixels[:3] + pixels[6:9]
    assert small[3 * small_width :][:3] == pixels[2 * 3 * width :][:3]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "no picture"),
        (b"P5\n1 1\n255\nx", "no picture"),
        (b"P6\n1 1\n65535\nxxxxxx", "no picture"),
        (b"P6\n2 2\n255\nxxx", "not a whole picture"),
        (b"P6\n0 1\n255\n", "not a whole picture"),
        (b"P6\n99999 99999\n255\nxxx", "not a whole picture"),
        (SIGNATURE + bytes(PICTURE_BYTES_MAX), "larger than"),
    ],
)
def test_anything_else_is_refused_in_a_sentence(raw: bytes, words: str) -> None:
    with pytest.raises(PictureError, match=words):
        to_png(raw)


def test_a_png_is_taken_as_it_is() -> None:
    png = to_png(b"P6\n1 1\n255\nabc")
    assert to_png(png) is png


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_do_anything_else(raw: bytes) -> None:
    for text in (raw, b"P6\n3 3\n255\n" + raw):
        try:
            to_png(text)
        except PictureError:
            continue
