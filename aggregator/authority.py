"""The fleet's own certificate authority: a key in the state directory, and what it signs.

Knows files and X.509; who may have a certificate is decided by its callers. The aggregator's own
certificate is made here too, anew at each start and at half of its life.
"""

from __future__ import annotations

import hashlib
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from aggregator.authority_files import open_authority, write_secret
from aggregator.hypervisor_certificates import HypervisorCertificates
from aggregator.leadership_proof import LeadershipProofs, proof_key
from fleet.identity import CLOCK_SKEW_S, Identity, IdentityError, Role, identity_of, key_text, new_key, subject_names
from fleet.tls import server_context

LIFE_S = 24 * 3600.0


class Authority:
    """Signs certificates. life_s: of what it signs."""

    def __init__(self, directory: Path, name: str, life_s: float = LIFE_S) -> None:
        """Open the authority in a directory, or make it there. ServiceError if it cannot be used."""
        self._life_s, self._name = life_s, name
        self._own = directory / "aggregator.pem"
        self._key, self._certificate = open_authority(directory / "authority.pem", "virtward")
        self.text = self._certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")
        self.sha256 = hashlib.sha256(self._certificate.public_bytes(serialization.Encoding.DER)).hexdigest()
        self.hypervisors = HypervisorCertificates(directory, life_s)
        self.proofs = LeadershipProofs([proof_key(_der(self._key))])
        self._context: ssl.SSLContext | None = None

    def sign(
        self, key: ec.EllipticCurvePublicKey, role: Role, name: str, enrolment: str = "", *, at: float | None = None
    ) -> tuple[str, Identity]:
        """Return a PEM certificate for a key, and whom it names.

        at: Unix seconds of its issue, now by default; it is valid from CLOCK_SKEW_S before until life_s after.
        """
        now = datetime.now(UTC) if at is None else datetime.fromtimestamp(at, UTC)
        uses = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role.value)]))
            .issuer_name(self._certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(seconds=CLOCK_SKEW_S))
            .not_valid_after(now + timedelta(seconds=self._life_s))
            .add_extension(subject_names(role, name, enrolment), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        named = identity_of(certificate.public_bytes(serialization.Encoding.DER))
        return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii"), named

    def signed(self, text: str) -> Identity:
        """Return whom a PEM certificate names that this authority has signed, valid still or not; IdentityError."""
        try:
            certificate = x509.load_pem_x509_certificate(text.encode("ascii", errors="replace"))
            certificate.verify_directly_issued_by(self._certificate)
        except (ValueError, TypeError, InvalidSignature):
            raise IdentityError("the certificate is not one of this fleet's") from None
        return identity_of(certificate.public_bytes(serialization.Encoding.DER))

    def context(self) -> tuple[ssl.SSLContext, Identity]:
        """Return the agents' listener's context with a fresh certificate in it; the same context each time."""
        key = new_key()
        certificate, named = self.sign(key.public_key(), Role.AGGREGATOR, self._name)
        write_secret(self._own, key_text(key) + certificate.encode("ascii"))
        if self._context is None:
            self._context = server_context(self.text, self._own, everybody=True)
        else:
            self._context.load_cert_chain(self._own)
        return self._context, named


def _der(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
