"""The fleet's own certificate authority: a key in the state directory, and what it signs.

Knows files and X.509; who may have a certificate is decided by its callers. The aggregator's own
certificate is made here too, anew at each start and at half of its life.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from aggregator.authority_files import AuthorityFiles, by_key_of, write_public, write_secret
from aggregator.core.state import State
from aggregator.hypervisor_authority import Address
from aggregator.hypervisor_certificates import HypervisorCertificates
from aggregator.leadership_proof import LeadershipProofs, proof_key
from fleet.identity import (
    CLOCK_SKEW_S,
    RENEW_FROM,
    Identity,
    IdentityError,
    Role,
    identity_of,
    key_text,
    new_key,
    subject_names,
)
from fleet.service import ServiceError
from fleet.tls import server_context
from fleet.trust import Trust, trust_version

AUTHORITY_NAME, COMMON_NAME = "authority", "virtward"
PUBLIC_NAME = "authority.crt"  # in the state directory: by which clients of the API know it
LIFE_S = 24 * 3600.0


class Authority:
    """Signs certificates, and says whom to trust. life_s: of what it signs."""

    def __init__(self, directory: Path, name: str, life_s: float = LIFE_S) -> None:
        """Open the authority in a directory, or make it there. ServiceError if it cannot be used."""
        self._life_s, self._name = life_s, name
        self._own = directory / "aggregator.pem"
        self._public = directory.parent / PUBLIC_NAME
        self._files = AuthorityFiles(directory, AUTHORITY_NAME, COMMON_NAME)
        self.hypervisors = HypervisorCertificates(directory, life_s)
        self.proofs = LeadershipProofs()
        self._context: ssl.SSLContext | None = None
        self._trusts: tuple[tuple[int, str], Trust] | None = None  # after which denials, what
        self._renew_contexts()

    @property
    def text(self) -> str:
        """The certificate of the one that signs, as PEM."""
        return self._files.present.text

    @property
    def trusted_text(self) -> str:
        """The certificates of all that count, as PEM."""
        return self._files.text

    @property
    def sha256(self) -> str:
        """Digest of that, by which joining agents know it."""
        return self._files.present.sha256

    @property
    def all_files(self) -> list[AuthorityFiles]:
        """The authorities of all purposes."""
        return [self._files, *(each.files for each in self.hypervisors.authorities.values())]

    # --- who is trusted

    def trust(self, state: State) -> Trust:
        """Return what agents are to hold; the same object until something of it has changed."""
        mark = (len(state.denied), next(reversed(state.denied), ""))
        if self._trusts is None or self._trusts[0] != mark:
            purposes = self.hypervisors.authorities
            hypervisors = {purpose: each.files.text for purpose, each in purposes.items()}
            revoked = {purpose: each.revocations(state.denied) for purpose, each in purposes.items()}
            text, signer, denied = self._files.text, self.sha256, tuple(state.denied)
            version = trust_version(text, signer, denied, hypervisors)
            self._trusts = mark, Trust(version, text, signer, denied, hypervisors, revoked)
        return self._trusts[1]

    def look(self) -> bool:
        """Take in what a rotation has changed in the files; return whether one is under way. ServiceError."""
        changed = [each.look() for each in self.all_files]
        if any(changed):
            self._renew_contexts()
        return any(len(each.trusted) > 1 for each in self.all_files)

    def begin_rotation(self, given: bytes | None = None) -> None:
        """Make the next authority of each purpose. ServiceError if a rotation is under way, OSError.

        given: PEM of one of another PKI (key, certificate, those above it) that is to sign for virtward's own ports.
        """
        self.look()
        if any(len(each.trusted) > 1 for each in self.all_files):
            raise ServiceError("the authorities are being rotated already; the aggregator's log says whom it waits for")
        self._files.begin(given)  # first: it may be refused
        for each in self.hypervisors.authorities.values():
            each.files.begin()

    def step(self) -> str:
        """Take the next step of a rotation, which every member is ready for; return it in words. OSError."""
        if any(each.next is not None for each in self.all_files):
            for each in self.all_files:
                each.switch()
            done = "the next authority signs from now on; every node renews its certificates"
        else:
            for each in self.all_files:
                each.finish()
            done = "the past authority is trusted no more"
        self._renew_contexts()
        return done

    def _renew_contexts(self) -> None:
        write_public(self._public, self._files.text)
        self.proofs.keys = tuple(proof_key(_der(each.key)) for each in self._files.trusted)
        self._trusts, self._context = None, None

    # --- what it signs

    def sign(
        self,
        key: ec.EllipticCurvePublicKey,
        role: Role,
        name: str,
        enrolment: str = "",
        *,
        at: float | None = None,
        life_s: float | None = None,
    ) -> tuple[str, Identity]:
        """Return a PEM certificate for a key, and whom it names.

        at: Unix seconds of its issue, now by default; it is valid from CLOCK_SKEW_S before until life_s after.
        """
        life_s = self._life_s if life_s is None else life_s
        now = datetime.now(UTC) if at is None else datetime.fromtimestamp(at, UTC)
        signer = self._files.present
        uses = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role.value)]))
            .issuer_name(signer.certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(seconds=CLOCK_SKEW_S))
            .not_valid_after(now + timedelta(seconds=life_s))
            .add_extension(subject_names(role, name, enrolment), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(by_key_of(signer.key), critical=False)
            .sign(signer.key, hashes.SHA256())
        )
        named = identity_of(certificate.public_bytes(serialization.Encoding.DER))
        return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii"), named

    def signed(self, text: str) -> Identity:
        """Return whom a PEM certificate names that this authority has signed, valid still or not; IdentityError."""
        try:
            certificate = x509.load_pem_x509_certificate(text.encode("ascii", errors="replace"))
            self._check_signed(certificate)
        except (ValueError, TypeError, InvalidSignature):
            raise IdentityError("the certificate is not one of this fleet's") from None
        return identity_of(certificate.public_bytes(serialization.Encoding.DER))

    def certify_server(self, own: Path, names: tuple[Sequence[str], Sequence[Address]]) -> float:
        """Write key and certificate of a server for people, in one file; return when to renew it, in Unix seconds.

        names: DNS names and addresses. It names nobody of the fleet, so no agent takes it for an aggregator's. OSError.
        """
        now, signer, key = datetime.now(UTC), self._files.present, new_key()
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "virtward API")]))
            .issuer_name(signer.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(seconds=CLOCK_SKEW_S))
            .not_valid_after(now + timedelta(seconds=self._life_s))
            .add_extension(
                x509.SubjectAlternativeName([*map(x509.DNSName, names[0]), *map(x509.IPAddress, names[1])]),
                critical=False,
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(by_key_of(signer.key), critical=False)
            .sign(signer.key, hashes.SHA256())
        )
        text = certificate.public_bytes(serialization.Encoding.PEM)
        between = f"{signer.text}{signer.above}" if signer.above else ""  # for clients that trust who is above alone
        write_secret(own, key_text(key) + text + between.encode("ascii"))
        return now.timestamp() + self._life_s * RENEW_FROM

    @property
    def present_context(self) -> ssl.SSLContext:
        """The listener's context; another one, with a fresh certificate, after trust has changed."""
        return self._context if self._context is not None else self.context()[0]

    def _check_signed(self, certificate: x509.Certificate) -> None:
        signers = {each.certificate.subject: each.certificate for each in self._files.trusted}
        if certificate.issuer not in signers:
            raise InvalidSignature
        certificate.verify_directly_issued_by(signers[certificate.issuer])

    def context(self) -> tuple[ssl.SSLContext, Identity]:
        """Return the agents' listener's context with a fresh certificate in it; the same one while trust is."""
        key = new_key()
        certificate, named = self.sign(key.public_key(), Role.AGGREGATOR, self._name)
        write_secret(self._own, key_text(key) + certificate.encode("ascii"))
        if self._context is None:
            self._context = server_context(self._files.text, self._own, everybody=True)
        else:
            self._context.load_cert_chain(self._own)
        return self._context, named


def _der(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
