"""The certificates that libvirt's TLS port and QEMU's migrations use: names, places and what is asked for them.

Each of the two purposes has an authority of its own, apart from that of virtward's daemons: a key that leaks
out of a QEMU opens no libvirtd, and neither opens virtward's own ports. Knows names and records, no files.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from msgspec import Struct

from fleet.identity import key_digest

HYPERVISOR_PATH = "/hypervisor/v1"
ADDRESSES_MAX = 8
COMMON_NAME_CHARACTERS_MAX = 64  # X.520
_SERIAL_BYTES = 16
# The group ffdhe2048 of RFC 7919. A QEMU that finds no group makes one, for a second or so, before each guest arrives;
# TLS 1.3 with our certificates then uses none of it.
DH_PARAMETERS = """\
-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
-----END DH PARAMETERS-----
"""


class Purpose(StrEnum):
    """What a certificate is for."""

    LIBVIRT = "libvirt"  # root of a host, for whom libvirtd lets in
    QEMU = "qemu"  # the memory of a guest on its way


class HypervisorRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Body of HYPERVISOR_PATH, asked with the node's own certificate.

    requests: purpose → a PEM certificate request. addresses: by which others reach this host's libvirtd.
    held, signature: the public half of the libvirt key that was certified before, as PEM, and what that key makes of
    the request for libvirt: the node's own certificate alone gives no thief of it the key to other hosts.
    """

    requests: dict[Purpose, str]
    addresses: tuple[str, ...] = ()
    held: str = ""
    signature: str = ""  # hexadecimal


class Chain(Struct, frozen=True):
    """All that one purpose needs beside the key, as PEM: a certificate, whom to trust, and what was revoked."""

    certificate: str
    authorities: str
    revoked: str


class HypervisorIssued(Struct, frozen=True):
    """Answer to HypervisorRequest. left_out: addresses that are another node's, so no certificate names them.

    trust: names what the chains trust and hold for revoked (fleet.trust).
    """

    chains: dict[Purpose, Chain]
    left_out: tuple[str, ...] = ()
    trust: str = ""


def distinguished_name(purpose: Purpose, node: str) -> x509.Name:
    """Return the subject of a node's certificate; `O=virtward,OU=PURPOSE,CN=NODE` in libvirt's tls_allowed_dn_list."""
    common = node if len(node) <= COMMON_NAME_CHARACTERS_MAX else hashlib.sha256(node.encode()).hexdigest()
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "virtward"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, purpose.value),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def sign_request(key: ec.EllipticCurvePrivateKey, request: str) -> tuple[str, str]:
    """Return `held` and `signature` of a HypervisorRequest whose request for libvirt this is."""
    text = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return text.decode("ascii"), key.sign(request.encode(), ec.ECDSA(hashes.SHA256())).hex()


def signer_of(asked: HypervisorRequest) -> str:
    """Return the digest of the key that has signed the request for libvirt; empty if none has."""
    try:
        key = serialization.load_pem_public_key(asked.held.encode())
        if not isinstance(key, ec.EllipticCurvePublicKey):
            return ""
        text = asked.requests[Purpose.LIBVIRT].encode()
        key.verify(bytes.fromhex(asked.signature), text, ec.ECDSA(hashes.SHA256()))
    except (ValueError, TypeError, KeyError, UnsupportedAlgorithm, InvalidSignature):
        return ""
    return key_digest(key)


def serial_number(purpose: Purpose, enrolment: str) -> int:
    """Return the number of every certificate of an enrolment: one line of a revocation list ends all of them."""
    digest = hashlib.sha256(f"{purpose.value}/{enrolment}".encode()).digest()
    return int.from_bytes(digest[:_SERIAL_BYTES], "big") >> 1 or 1
