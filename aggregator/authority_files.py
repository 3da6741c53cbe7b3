"""An authority in files: the present key and certificate, the next one, the past one. Knows files and X.509 alone.

The present one signs. The next one is trusted before it signs, the past one is trusted while certificates of it may
still be shown; both are there only while the authority is rotated. Each step can be taken again after a crash.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from msgspec import Struct

from fleet.identity import CLOCK_SKEW_S, IdentityError, key_text, new_key, read_key
from fleet.service import ServiceError

AUTHORITY_YEARS = 10
AUTHORITY_DAYS_MIN = 30


class Signer(Struct, frozen=True):
    """Key and certificate of one authority. above: PEM of those that vouch for it, its own PKI's; mostly none do."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    above: str = ""

    @property
    def text(self) -> str:
        """The certificate as PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")

    @property
    def sha256(self) -> str:
        """Digest of the certificate, by which joining agents know it."""
        return hashlib.sha256(self.certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


class AuthorityFiles:
    """One authority: NAME.pem, and NAME.next.pem and NAME.past.pem while it is rotated."""

    def __init__(self, directory: Path, name: str, common_name: str) -> None:
        """Open it, or make it. ServiceError if it cannot be used."""
        self._common_name = common_name
        self._path, self._next, self._past = (directory / f"{name}{end}" for end in (".pem", ".next.pem", ".past.pem"))
        if not self._path.exists() and self._past.exists():
            raise ServiceError(f"{self._path}: is not there, and {self._past} is; restore it from a backup")
        self.present = _open(self._path, common_name)
        self.next: Signer | None = None
        self.past: Signer | None = None
        self.look()

    @property
    def trusted(self) -> list[Signer]:
        """All that count now, the one that signs first."""
        return [each for each in (self.present, self.next, self.past) if each is not None]

    @property
    def text(self) -> str:
        """The certificates of all that count, as PEM."""
        return "".join(each.text for each in self.trusted)

    def look(self) -> bool:
        """Read what a rotation has begun since; return whether anything is different. ServiceError."""
        before = (self.next, self.past)
        self.next = self._kept(self._next, self.next)
        self.past = self._kept(self._past, self.past)
        if self.past is not None and self.past.sha256 == self.present.sha256:
            self.past = None  # a switch that a crash cut off after its first half
        return (self.next, self.past) != before

    def _kept(self, path: Path, known: Signer | None) -> Signer | None:
        if not path.exists():
            return None
        return known or _open(path, self._common_name)

    def begin(self, given: bytes | None = None) -> None:
        """Make the next one, or take one that is given as PEM: key, certificate, those above it. ServiceError."""
        if given is not None:
            _check_authority(_read(given, "what is given"), [each.certificate.subject for each in self.trusted])
        write_secret(self._next, given or _new_authority(self._common_name))

    def switch(self) -> None:
        """Let the next one sign from now on."""
        if self.next is None:
            return
        with suppress(FileExistsError):
            self._past.hardlink_to(self._path)
        self._next.replace(self._path)
        self.present, self.past, self.next = self.next, self.present, None

    def finish(self) -> None:
        """Trust the past one no more."""
        self._past.unlink(missing_ok=True)
        self.past = None


def _open(path: Path, common_name: str) -> Signer:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            write_secret(path, _new_authority(common_name))
        text = path.read_bytes()
    except OSError as error:
        raise ServiceError(f"{path}: cannot be used: {error.strerror or error}") from None
    return _read(text, f"{path}: restore it from a backup; it")


def _read(text: bytes, what: str) -> Signer:
    try:
        own, *above = x509.load_pem_x509_certificates(text)
        key = read_key(text)
    except (IdentityError, ValueError) as error:
        raise ServiceError(f"{what} is no certificate authority: {error}") from None
    if own.public_key() != key.public_key():
        raise ServiceError(f"{what} is no certificate authority: its key is not that of its first certificate")
    higher = "".join(each.public_bytes(serialization.Encoding.PEM).decode("ascii") for each in above)
    return Signer(key, own, higher)


def _check_authority(signer: Signer, taken: Sequence[x509.Name]) -> None:
    """Raise ServiceError unless somebody's own authority can be this fleet's."""
    certificate = signer.certificate
    try:
        may_sign = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        may_sign = False
    if not may_sign:
        raise ServiceError("the first certificate that is given may sign none: it needs basicConstraints CA:TRUE")
    if certificate.not_valid_after_utc < datetime.now(UTC) + timedelta(days=AUTHORITY_DAYS_MIN):
        raise ServiceError(f"the authority that is given ends within {AUTHORITY_DAYS_MIN} days")
    if certificate.subject in taken:
        raise ServiceError(
            "the authority that is given bears the name of the present one; TLS tells them apart by name"
        )


def _new_authority(common_name: str) -> bytes:
    key, now = new_key(), datetime.now(UTC)
    own = f"{common_name} {secrets.token_hex(4)}"  # TLS finds who has signed by name: two that are trusted must differ
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, own)])
    uses = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(seconds=CLOCK_SKEW_S))
        .not_valid_after(now + timedelta(days=365 * AUTHORITY_YEARS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(uses, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return key_text(key) + certificate.public_bytes(serialization.Encoding.PEM)


def by_key_of(signer: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    """Return what names a certificate's signer by its key (RFC 5280, 4.2.1.1); Python 3.13 takes none without it."""
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())


def write_secret(path: Path, data: bytes) -> None:
    """Put a secret file in place whole, readable by its owner alone, who is the folder's."""
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as file:
        if os.geteuid() == 0:
            owner = path.parent.stat()
            os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def write_public(path: Path, text: str) -> None:
    """Put a file in place that everybody may read. ServiceError if that cannot be."""
    fresh = path.with_suffix(".fresh")
    try:
        fresh.write_text(text, encoding="ascii")
        fresh.chmod(0o644)
        fresh.replace(path)
    except OSError as error:
        raise ServiceError(f"{path}: cannot be written: {error.strerror or error}") from None
