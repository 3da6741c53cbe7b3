"""What a guest's screen shows, as QEMU writes it (PPM), made a PNG that fits a message. Pure.

The guest chooses the size of its screen: what is too large is refused before it is unpacked, and shrunk until it fits.
Formats: netpbm's ppm(5), P6 with one byte a channel; PNG, https://www.w3.org/TR/png-3/.
"""

from __future__ import annotations

import re
import struct
import zlib

from fleet.messages import PICTURE_BYTES_MAX

RAW_BYTES_MAX = 64 * 1024 * 1024  # 4K is 25 MB
SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = re.compile(rb"P6\s+(\d{1,5})\s+(\d{1,5})\s+255\s")
_CHANNELS = 3
_EIGHT_BITS_OF_RGB = (8, 2, 0, 0, 0)


class PictureError(Exception):
    """There is no picture in it; the text is one sentence."""


def to_png(raw: bytes) -> bytes:
    """Return a PNG of at most PICTURE_BYTES_MAX. Raises PictureError."""
    if raw.startswith(SIGNATURE):  # newer QEMUs can write one themselves
        if len(raw) > PICTURE_BYTES_MAX:
            raise PictureError(f"the picture is larger than {PICTURE_BYTES_MAX} bytes")
        return raw
    found = _HEADER.match(raw)
    if found is None:
        raise PictureError("what the hypervisor gave is no picture")
    width, height = int(found[1]), int(found[2])
    line = width * _CHANNELS
    body = memoryview(raw)[found.end() :]
    if not width or not height or len(body) < line * height:
        raise PictureError("what the hypervisor gave is not a whole picture")
    rows = [bytes(body[at : at + line]) for at in range(0, line * height, line)]
    while len(png := _png(rows)) > PICTURE_BYTES_MAX:
        rows = [_every_other(row) for row in rows[::2]]
    return png


def _every_other(row: bytes) -> bytes:
    """Leave out every second pixel of a row."""
    pixels = len(row) // _CHANNELS
    kept = bytearray((pixels + 1) // 2 * _CHANNELS)
    for channel in range(_CHANNELS):
        kept[channel::_CHANNELS] = row[channel :: 2 * _CHANNELS]
    return bytes(kept)


def _png(rows: list[bytes]) -> bytes:
    size = struct.pack(">IIBBBBB", len(rows[0]) // _CHANNELS, len(rows), *_EIGHT_BITS_OF_RGB)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return SIGNATURE + _chunk(b"IHDR", size) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
