"""How a deed of the simulated hypervisor ended."""

from __future__ import annotations

from msgspec import Struct

from fleet.model import Definition


class Result(Struct, frozen=True):
    """ok, or a code with libvirt's words; definition: what Define completed."""

    ok: bool
    code: str = ""
    message: str = ""
    definition: Definition | None = None
    picture: bytes = b""


DONE = Result(ok=True)
