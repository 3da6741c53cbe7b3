"""What libvirt's TLS port and a migration ask of whoever comes: real libvirtd, real QEMU, keys as a thief has them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lab import namespaces, pki
from lab.errors import LaboratoryError
from lab.laboratory import Laboratory
from lab.layout import Plane
from tests.laboratory.lab_steps import counts_on, define, peer_uri, start

PLAIN = ("migrate", "--live", "--p2p", "--persistent", "--undefinesource")


def come_in(laboratory: Laboratory, folder: Path) -> str:
    """Ask h2's libvirtd from h1 with the certificate in a folder; return its list of domains, or why there is none."""
    uri = f"qemu+tls://{laboratory.layout.address('h2', Plane.MIGRATION)}/system?pkipath={folder}"
    command = ["timeout", "20", "virsh", "-q", "-c", uri, "list", "--all", "--name"]
    try:
        return namespaces.run(namespaces.inside(laboratory.layout.namespace("h1"), command)).strip()
    except LaboratoryError as error:
        return f"refused: {error}"


def shown(laboratory: Laboratory, name: str, authority: Path, certificate: Path, key: Path) -> Path:
    """A folder as virsh wants it."""
    folder = laboratory.dir / name
    folder.mkdir()
    for source, target in ((authority, "cacert"), (certificate, "clientcert"), (key, "clientkey")):
        shutil.copy(source, folder / f"{target}.pem")
    return folder


@pytest.mark.slow
def test_only_the_key_of_a_hosts_libvirt_opens_another_hosts_libvirt(laboratory: Laboratory) -> None:
    define(laboratory, "h2", "there")
    etc = laboratory.host("h1").dir / "etc-pki"
    authority = etc / "CA/cacert.pem"
    own = shown(laboratory, "own", authority, etc / "libvirt/clientcert.pem", etc / "libvirt/private/clientkey.pem")
    assert come_in(laboratory, own) == "there"
    qemus = shown(laboratory, "qemus", authority, etc / "qemu/client-cert.pem", etc / "qemu/client-key.pem")
    assert come_in(laboratory, qemus).startswith("refused: ")
    pki.lay_out(laboratory.dir / "pki", laboratory.dir / "unlisted", "h9", ["10.77.1.99"])  # by the right authority
    other = laboratory.dir / "unlisted/libvirt"
    unlisted = shown(laboratory, "u", authority, other / "clientcert.pem", other / "private/clientkey.pem")
    assert come_in(laboratory, unlisted).startswith("refused: ")


@pytest.mark.slow
def test_no_guest_leaves_a_host_in_the_open(laboratory: Laboratory) -> None:
    """libvirt itself refuses it, whoever asks; with TLS the guest goes, and counts on."""
    start(laboratory, "h1", "shy")
    with pytest.raises(LaboratoryError, match="TLS"):
        laboratory.virsh("h1", *PLAIN, "shy", peer_uri(laboratory, "h2"))
    counts_on(laboratory, "shy")
    laboratory.virsh("h1", *PLAIN, "--tls", "shy", peer_uri(laboratory, "h2"))
    counts_on(laboratory, "shy")
    assert [qemu.host for qemu in laboratory.sample().vms["shy"] if qemu.may_run] == ["h2"]
