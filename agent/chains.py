"""What lies under a disk image: the files that an overlay is read through. Reads headers of qcow2; knows no VM.

libvirt tells the chain of a domain that runs; of one that does not it may know nothing, and the image itself says.
A file that cannot be read, or is of another format, has nothing under it as far as anybody can tell.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

from fleet.domain_xml import Resolver
from fleet.model import Disk

MAGIC = b"QFI\xfb"
HEADER = struct.Struct(">4sIQI")  # magic, version, where the name of the backing file begins, its length
NAME_BYTES_MAX = 1023
CHAIN_MAX = 32  # images of one chain


def below(target: str, path: str, resolve: Resolver) -> Iterator[Disk]:
    """Yield what lies under an image, the nearest first, as disks that are only read: vda[1], vda[2] and so on."""
    seen = {path}
    for depth in range(1, CHAIN_MAX + 1):
        path = backing_of(path)
        if not path or path in seen:
            return
        seen.add(path)
        place = resolve(path)
        yield Disk(f"{target}[{depth}]", place.identity, writable=False, shared=place.shared)


def backing_of(path: str) -> str:
    """Return the file under a qcow2 image; empty for a network's, and where there is none or it cannot be told."""
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):  # a pipe would be opened for ever
            return ""
        with Path(path).open("rb", buffering=0) as file:
            magic, _version, offset, length = HEADER.unpack(file.read(HEADER.size))
            if magic != MAGIC or not 0 < length <= NAME_BYTES_MAX:
                return ""
            file.seek(offset)
            name = os.fsdecode(file.read(length)).removeprefix("file:")
    except (OSError, ValueError, OverflowError, struct.error):
        return ""
    if "\0" in name or ":" in name.split("/")[0]:  # json:…, nbd://…: a protocol, which any node may speak
        return ""
    return str(Path(path).parent / name)
