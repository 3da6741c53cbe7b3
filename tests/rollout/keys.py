"""An authority and a certificate for each machine, as libvirt's TLS wants them. Knows openssl and libvirt's paths."""

from __future__ import annotations

from pathlib import Path

from tests.rollout.machines import Machine, run

DAYS = "2"


def make_authority(folder: Path) -> None:
    """Make key and certificate of the authority."""
    folder.mkdir(parents=True)
    run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            DAYS,
            "-subj",
            "/CN=roll-out test",
            "-keyout",
            str(folder / "ca.key"),
            "-out",
            str(folder / "ca.pem"),
        ]
    )


def give_certificates(folder: Path, machine: Machine, root: Path) -> None:
    """Write the machine's certificate where libvirt looks: one for both of its ends."""
    key, request, certificate = (folder / f"{machine.name}.{end}" for end in ("key", "csr", "pem"))
    run(
        [
            "openssl",
            "req",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            f"/CN={machine.name}",
            "-keyout",
            str(key),
            "-out",
            str(request),
        ]
    )
    extensions = folder / f"{machine.name}.ext"
    extensions.write_text(
        f"subjectAltName=DNS:{machine.name},IP:{machine.address}\nkeyUsage=digitalSignature,keyEncipherment\n"
        "extendedKeyUsage=serverAuth,clientAuth\nbasicConstraints=CA:FALSE\n"
    )
    run(
        [
            "openssl",
            "x509",
            "-req",
            "-in",
            str(request),
            "-CA",
            str(folder / "ca.pem"),
            "-CAkey",
            str(folder / "ca.key"),
            "-CAcreateserial",
            "-days",
            DAYS,
            "-extfile",
            str(extensions),
            "-out",
            str(certificate),
        ]
    )
    private = root / "etc/pki/libvirt/private"
    for place in (root / "etc/pki/CA", private):
        place.mkdir(parents=True, exist_ok=True)
    (root / "etc/pki/CA/cacert.pem").write_bytes((folder / "ca.pem").read_bytes())
    for end in ("server", "client"):
        (root / f"etc/pki/libvirt/{end}cert.pem").write_bytes(certificate.read_bytes())
        (private / f"{end}key.pem").write_bytes(key.read_bytes())
    for each in private.iterdir():
        each.chmod(0o644)  # read by the agent too, which connects to its peers; these keys guard nothing
