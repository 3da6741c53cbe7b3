"""What an agent is given to keep of a VM, and reading it back when the store is lost. Pure.

The VM as people wrote it, with its XML, packed so that thousands fit a ledger. Only an aggregator reads it.
"""

from __future__ import annotations

import zlib

import msgspec
from msgspec import Struct

from aggregator.core.objects import VmSpec
from aggregator.core.state import VmRecord
from fleet.messages import KEPT_BYTES_MAX
from fleet.model import Disk

UNPACKED_BYTES_MAX = 1024 * 1024


class KeptForm(Struct, frozen=True):
    """A VM as a ledger keeps it. Every field that is added later needs a default."""

    name: str
    uuid: str
    spec: VmSpec
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    disks: tuple[Disk, ...] = ()
    cpu_m: int = 0
    memory_bytes: int = 0


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[KeptForm] = msgspec.msgpack.Decoder(KeptForm)


def pack(vm: VmRecord) -> bytes:
    """Return what an agent is to keep; nothing where it would be too large."""
    form = KeptForm(vm.name, vm.uuid, vm.spec, vm.labels, vm.annotations, vm.disks, vm.cpu_m, vm.memory_bytes)
    packed = zlib.compress(_encoder.encode(form))
    return packed if len(packed) <= KEPT_BYTES_MAX else b""


def unpack(kept: bytes) -> KeptForm | None:
    """Return the VM, None where the bytes are none that an aggregator has packed."""
    opened = zlib.decompressobj()
    try:
        raw = opened.decompress(kept, UNPACKED_BYTES_MAX)
        return _decoder.decode(raw) if opened.eof else None
    except (zlib.error, msgspec.DecodeError, UnicodeDecodeError):
        return None
