"""The laboratory's own certificates for libvirt and QEMU: with them hosts can migrate before, and without, virtward.

Two authorities per laboratory, one certificate of each per host; the agents of a laboratory that has some replace them
by those of virtward. Knows files and X.509; nothing of virtward but one number.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fleet.hypervisor_tls import DH_PARAMETERS

DAYS = 3650
PURPOSES = ("libvirt", "qemu")
LIBVIRT_FILES = {
    "authority": ("CA/cacert.pem",),
    "certificate": ("libvirt/servercert.pem", "libvirt/clientcert.pem"),
    "key": ("libvirt/private/serverkey.pem", "libvirt/private/clientkey.pem"),
}
QEMU_FILES = {
    "authority": ("qemu/ca-cert.pem",),
    "certificate": ("qemu/server-cert.pem", "qemu/client-cert.pem"),
    "key": ("qemu/server-key.pem", "qemu/client-key.pem"),
    "group": ("qemu/dh-params.pem",),
}


def subject(purpose: str, host: str) -> str:
    """How libvirt prints the subject of a host's certificate, which is that of virtward's too."""
    return f"O=virtward,OU={purpose},CN={host}"


def lay_out(authorities: Path, directory: Path, host: str, addresses: Sequence[str]) -> None:
    """Lay out a host's certificates, below what becomes its /etc/pki; what is there already stays."""
    for purpose, files in zip(PURPOSES, (LIBVIRT_FILES, QEMU_FILES), strict=True):
        if (directory / files["authority"][0]).exists():
            continue
        signer, authority = _authority(authorities / f"{purpose}.pem")
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName(host), *(x509.IPAddress(ipaddress.ip_address(address)) for address in addresses)]
        certificate = _signed(_name(purpose, host), key, signer, authority.subject, names)
        texts = {"authority": _pem(authority), "certificate": _pem(certificate), "key": _key_pem(key)}
        texts["group"] = DH_PARAMETERS.encode()
        for what in ("group", "key", "certificate", "authority"):  # the authority last: it says that the rest is there
            for name in files.get(what, ()):
                _write(directory / name, texts[what])


def _authority(path: Path) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    if not path.exists():
        fresh = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"laboratory {path.stem}")])
        _write(path, _key_pem(fresh) + _pem(_signed(name, fresh, fresh, name, [])))
    text = path.read_bytes()
    key = load_pem_private_key(text, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{path} holds no key of ours")
    return key, x509.load_pem_x509_certificate(text)


def _name(purpose: str, host: str) -> x509.Name:
    parts = (
        (NameOID.ORGANIZATION_NAME, "virtward"),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, purpose),
        (NameOID.COMMON_NAME, host),
    )
    return x509.Name([x509.NameAttribute(kind, text) for kind, text in parts])


def _signed(
    name: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    names: Sequence[x509.GeneralName],
) -> x509.Certificate:
    """Return a certificate; one without other names is an authority's."""
    now, is_authority = datetime.now(UTC), not names
    uses = x509.KeyUsage(
        digital_signature=not is_authority,
        content_commitment=False,
        key_encipherment=not is_authority,  # libvirt 9.0 takes no certificate without it
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=DAYS))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=0 if is_authority else None), critical=True)
        .add_extension(uses, critical=True)
    )
    if names:
        both = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(both), critical=False)
    return builder.sign(signer, hashes.SHA256())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(data)
