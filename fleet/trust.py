"""Whom agents are to trust and whom no more: they ask when an aggregator says that it has changed. Records only."""

from __future__ import annotations

import hashlib

import msgspec
from msgspec import Struct

from fleet.hypervisor_tls import Purpose

TRUST_PATH = "/trust/v1"


class Trust(Struct, frozen=True):
    """Answer of TRUST_PATH, asked with the node's own certificate.

    version: by which the aggregator speaks of it; another one means that something is different. authorities: PEM, one
    or, while they are rotated, several. signer: SHA-256 of the one that signs now; when it changes, certificates are to
    be renewed. denied: enrolments that count no more. hypervisors, revoked: authorities and revocation lists as PEM.
    """

    version: str
    authorities: str
    signer: str
    denied: tuple[str, ...]
    hypervisors: dict[Purpose, str]
    revoked: dict[Purpose, str]


NO_TRUST = Trust("", "", "", (), {}, {})


def trust_version(authorities: str, signer: str, denied: tuple[str, ...], hypervisors: dict[Purpose, str]) -> str:
    """Return what names this trust; revocation lists follow from the rest, and each one made is another text."""
    return hashlib.sha256(msgspec.json.encode((authorities, signer, denied, hypervisors))).hexdigest()[:32]
