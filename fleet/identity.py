"""Who a certificate says somebody is: roles and names in its SAN, keys, requests, join tokens.

Knows X.509 and nothing of sockets, files or what a role may do. The name in a request is never read:
whoever signs a certificate says what stands in it.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import timedelta
from enum import StrEnum
from urllib.parse import quote, unquote

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec import Struct

JOIN_PATH = "/join/v1"
RENEW_PATH = "/renew/v1"
AUTHORITY_PATH = "/authority/v1"
CLOCK_SKEW_S = 300  # a certificate is valid from so long before it is issued: clocks differ
RENEW_FROM = 0.5  # of its life
REQUEST_BYTES_MAX = 8192
_SCHEME = "virtward"
_PARTS = 3  # role, name, enrolment
_DIGEST_CHARACTERS = 64


class IdentityError(Exception):
    """A certificate, request or token that is not what it must be; the text is one sentence."""


class Role(StrEnum):
    """What the holder of a certificate is."""

    AGENT = "agent"
    AGGREGATOR = "aggregator"
    OPERATOR = "operator"  # a person or a program at the API; its rights stand with its name

    @property
    def server_name(self) -> str:
        """The DNS name that every certificate of this role bears, so that TLS itself refuses another role."""
        return f"{self.value}.virtward"


class Identity(Struct, frozen=True):
    """Who a certificate names. until: Unix seconds; life_s without the skew.

    enrolment: which of the node's joins it comes from; renewals keep it, the next join or a revocation ends it.
    key_sha256: of its public key.
    """

    role: Role
    name: str
    enrolment: str
    key_sha256: str
    until: float
    life_s: float

    @property
    def renew_at(self) -> float:
        """Unix seconds from which it is to be renewed."""
        return self.until - self.life_s * (1 - RENEW_FROM)


class JoinRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Body of JOIN_PATH. request: a PEM certificate request; the token alone says for which node."""

    token: str
    request: str


class RenewRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Body of RENEW_PATH. certificate: the one that has ended, where none that holds is shown by TLS itself.

    request: a PEM certificate request; with a certificate that has ended it must be by that one's key.
    """

    request: str
    certificate: str = ""


class Issued(Struct, frozen=True):
    """Answer of both. certificate: PEM. relay_secret: seals relayed frames; only given when joining."""

    certificate: str
    relay_secret: str = ""


class JoinToken(Struct, frozen=True):
    """What a person carries to a new host: a secret, and by which authority its aggregator is known."""

    secret: str
    authority_sha256: str

    def text(self) -> str:
        """Return it as one word."""
        return f"{self.secret}.{self.authority_sha256}"


def read_join_token(text: str) -> JoinToken:
    """Return the token; IdentityError if it is none."""
    secret, _, digest = text.strip().rpartition(".")
    if not secret or len(digest) != _DIGEST_CHARACTERS or not all(c in "0123456789abcdef" for c in digest):
        raise IdentityError("this is no join token; virtward node token NODE makes one")
    return JoinToken(secret, digest)


def secret_digest(secret: str) -> str:
    """Return what is kept of a secret."""
    return hashlib.sha256(secret.encode(errors="surrogateescape")).hexdigest()


def certificate_digest(enrolment: str) -> str:
    """Return what is kept of a person's certificate where a token's digest is kept: no token has this digest."""
    return hashlib.blake2b(enrolment.encode(), digest_size=32, person=b"virtward cert").hexdigest()


def same_digest(one: str, other: str) -> bool:
    """Tell in constant time whether two digests are the same one; an empty one is nobody's."""
    return bool(one) and hmac.compare_digest(one.encode(), other.encode())


def subject_names(role: Role, name: str, enrolment: str) -> x509.SubjectAlternativeName:
    """Return the SAN of a certificate."""
    uri = f"{_SCHEME}:{role.value}/{quote(name, safe='')}/{enrolment}"
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri), x509.DNSName(role.server_name)])


def identity_of(der: bytes) -> Identity:
    """Return whom a certificate names; IdentityError if it is none of ours. Whether it is valid is TLS's business."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        raise IdentityError("the certificate names nobody; it is not one of virtward's") from None
    found = [uri for uri in names.get_values_for_type(x509.UniformResourceIdentifier) if uri.startswith(f"{_SCHEME}:")]
    parts = found[0].removeprefix(f"{_SCHEME}:").split("/") if len(found) == 1 else []
    if len(parts) != _PARTS or parts[0] not in set(Role) or not parts[1]:
        raise IdentityError("the certificate names nobody; it is not one of virtward's")
    until = certificate.not_valid_after_utc
    life = until - certificate.not_valid_before_utc - timedelta(seconds=CLOCK_SKEW_S)
    key = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    digest = hashlib.sha256(key).hexdigest()
    return Identity(Role(parts[0]), unquote(parts[1]), parts[2], digest, until.timestamp(), life.total_seconds())


def key_digest(key: ec.EllipticCurvePublicKey) -> str:
    """Return the SHA-256 of a public key."""
    text = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(text).hexdigest()


def new_key() -> ec.EllipticCurvePrivateKey:
    """Make a private key."""
    return ec.generate_private_key(ec.SECP256R1())


def key_text(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as PEM, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def read_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Return the private key in a PEM text; IdentityError if there is none."""
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError):
        raise IdentityError("there is no private key in it") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise IdentityError("its key is not of an elliptic curve")
    return key


def make_request(key: ec.EllipticCurvePrivateKey) -> str:
    """Return a PEM certificate request. It names nobody: that is for the authority to say."""
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
        .decode("ascii")
    )


def read_request(pem: str) -> tuple[ec.EllipticCurvePublicKey, str]:
    """Return a request's public key and its SHA-256; IdentityError unless its sender holds the private one."""
    if len(pem) > REQUEST_BYTES_MAX:
        raise IdentityError(f"the certificate request is longer than {REQUEST_BYTES_MAX} bytes")
    try:
        request = x509.load_pem_x509_csr(pem.encode("ascii", errors="replace"))
        sound = request.is_signature_valid
        key = request.public_key()
    except (ValueError, TypeError, InvalidSignature):
        raise IdentityError("the certificate request cannot be read") from None
    if not sound:
        raise IdentityError("the certificate request is not signed by its own key")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise IdentityError("the certificate request's key is not of the curve P-256")
    text = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return key, hashlib.sha256(text).hexdigest()
