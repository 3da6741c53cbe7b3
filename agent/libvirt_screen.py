"""A guest's screen through libvirt: QEMU writes the picture, libvirt hands it on as a stream. Blocking."""

from __future__ import annotations

from typing import Any

import libvirt

from agent.hypervisor import Result
from agent.pictures import RAW_BYTES_MAX, PictureError, to_png

CHUNK_BYTES = 256 * 1024
FIRST_SCREEN = 0


def screenshot(conn: Any, domain: Any) -> Result:  # noqa: ANN401 - libvirt-python ships no types
    """Return a Result with the picture, or why there is none. Raises libvirtError."""
    stream = conn.newStream(0)
    domain.screenshot(stream, FIRST_SCREEN, 0)
    raw = bytearray()
    try:
        while chunk := stream.recv(CHUNK_BYTES):
            raw += chunk
            if len(raw) > RAW_BYTES_MAX:
                raise PictureError(f"the guest's screen is larger than {RAW_BYTES_MAX} bytes")
    except (PictureError, libvirt.libvirtError) as error:
        stream.abort()
        return Result(ok=False, code="NO_PICTURE", message=str(error))
    stream.finish()
    try:
        return Result(ok=True, picture=to_png(bytes(raw)))
    except PictureError as error:
        return Result(ok=False, code="NO_PICTURE", message=str(error))
