"""The authorities of libvirt's and QEMU's certificates, one for each purpose, and what they sign and revoke.

Knows files and X.509; who may have a certificate, and which addresses it may name, is decided by its callers.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from aggregator.authority_files import AuthorityFiles, Signer, by_key_of
from fleet.hypervisor_tls import Purpose, distinguished_name, serial_number
from fleet.identity import CLOCK_SKEW_S

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class HypervisorAuthority:
    """Signs and revokes for one purpose. life_s: of what it signs."""

    def __init__(self, directory: Path, purpose: Purpose, life_s: float) -> None:
        """Open the authority in a directory, or make it there. ServiceError if it cannot be used."""
        self._purpose, self._life_s = purpose, life_s
        self.files = AuthorityFiles(directory, f"hypervisor-{purpose.value}", f"virtward {purpose.value}")

    def sign(self, key: ec.EllipticCurvePublicKey, node: str, enrolment: str, addresses: Iterable[Address]) -> str:
        """Return a PEM certificate for both ends of a connection, naming the node and its addresses."""
        now, signer = datetime.now(UTC), self.files.present
        uses = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        names = [x509.DNSName(node), *(x509.IPAddress(address) for address in addresses)]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(distinguished_name(self._purpose, node))
            .issuer_name(signer.certificate.subject)
            .public_key(key)
            .serial_number(serial_number(self._purpose, enrolment))
            .not_valid_before(now - timedelta(seconds=CLOCK_SKEW_S))
            .not_valid_after(now + timedelta(seconds=self._life_s))
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_KEY_USES, critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(by_key_of(signer.key), critical=False)
            .sign(signer.key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")

    def revocations(self, enrolments: Iterable[str]) -> str:
        """Return PEM revocation lists of all certificates of these enrolments, one by each authority that counts.

        They say that they hold as long as the authority: libvirt and QEMU refuse everybody by a list that has ended.
        """
        listed = list(enrolments)
        return "".join(self._list_of(signer, listed) for signer in self.files.trusted)

    def _list_of(self, signer: Signer, enrolments: Sequence[str]) -> str:
        now = datetime.now(UTC)
        since = now - timedelta(seconds=CLOCK_SKEW_S)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(signer.certificate.subject)
            .last_update(since)
            .next_update(signer.certificate.not_valid_after_utc)
        )
        for enrolment in enrolments:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(serial_number(self._purpose, enrolment))
                .revocation_date(since)
                .build()
            )
        return builder.sign(signer.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode("ascii")


_KEY_USES = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=True,  # libvirt 9.0 takes no certificate without it, also where the key cannot encipher
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
