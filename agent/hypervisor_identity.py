"""Lays out the certificates of this host's libvirt and QEMUs where both look for them, and renews them.

Knows their files, the question to the aggregator and the command that has libvirtd read them again. A migration
that is under way keeps what it began with; the next one reads what lies there.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from contextlib import suppress
from pathlib import Path

import msgspec
import structlog
from cryptography import x509
from msgspec import Struct

from agent.access import CertifiedAccess
from agent.asking import ask
from fleet.hypervisor_tls import (
    DH_PARAMETERS,
    HYPERVISOR_PATH,
    Chain,
    HypervisorIssued,
    HypervisorRequest,
    Purpose,
    sign_request,
)
from fleet.identity import CLOCK_SKEW_S, RENEW_FROM, IdentityError, Role, key_text, make_request, new_key, read_key
from fleet.trust import Trust

AGAIN_S_MIN, AGAIN_S_MAX = 2.0, 5.0
PAUSE_S_MAX = 3600.0
JITTER = 0.05  # of a certificate's life
RELOAD_S_MAX = 10.0
WORDS_MAX = 200  # characters of what the command complains of
PUBLIC, OWNERS, GROUPS = 0o644, 0o600, 0o640

log = structlog.get_logger(part="identity")


class Layout(Struct, frozen=True):
    """Where one purpose has its files, below the folder of all (/etc/pki); both ends of a connection show the same."""

    authorities: str
    revoked: str
    certificates: tuple[str, ...]
    keys: tuple[str, ...]
    key_mode: int
    parameters: tuple[str, ...] = ()


LAYOUTS = {
    Purpose.LIBVIRT: Layout(  # its last file is watched by systemd/virtward-libvirt-tls.path
        "CA/cacert.pem",
        "CA/cacrl.pem",
        ("libvirt/servercert.pem", "libvirt/clientcert.pem"),
        ("libvirt/private/serverkey.pem", "libvirt/private/clientkey.pem"),
        OWNERS,
    ),
    Purpose.QEMU: Layout(  # QEMUs do not run as root: their key is their group's to read, which the folder hands down
        "qemu/ca-cert.pem",
        "qemu/ca-crl.pem",
        ("qemu/server-cert.pem", "qemu/client-cert.pem"),
        ("qemu/server-key.pem", "qemu/client-key.pem"),
        GROUPS,
        ("qemu/dh-params.pem",),
    ),
}


class HypervisorIdentity:
    """What lies in one folder. reload_command: has libvirtd read it again; none: somebody else sees to that."""

    def __init__(
        self, access: CertifiedAccess, directory: Path, addresses: tuple[str, ...], reload_command: tuple[str, ...]
    ) -> None:
        self._access, self._dir, self._addresses, self._reload_command = access, directory, addresses, reload_command
        self._laid_for = ""  # enrolment
        self._renew_at = 0.0  # Unix seconds
        self._left_out: tuple[str, ...] = ()
        self._trust = ""  # that lies there

    @property
    def is_laid(self) -> bool:
        """Whether what lies there belongs to the node's present enrolment; asked for anew at each start."""
        identity = self._access.identity
        return identity is not None and self._laid_for == identity.enrolment

    @property
    def is_due(self) -> bool:
        """Whether new ones are to be asked for."""
        return not self.is_laid or time.time() >= self._renew_at

    def pause_s(self) -> float:
        """Return for how long nothing is to be done."""
        if not self.is_laid or time.time() >= self._renew_at:
            return random.uniform(AGAIN_S_MIN, AGAIN_S_MAX)
        return min(PAUSE_S_MAX, max(0.0, self._renew_at - time.time()))

    async def renew(self, url: str) -> None:
        """Ask an aggregator with new keys, lay out what it gives, have libvirtd read it. IdentityError, OSError."""
        shown, identity = self._access.outgoing, self._access.identity
        if isinstance(shown, bool) or identity is None:
            raise IdentityError("this node has not joined, so nobody signs for its libvirt")
        keys = {purpose: new_key() for purpose in Purpose}
        requests = {purpose: make_request(key) for purpose, key in keys.items()}
        held, signature = await asyncio.to_thread(self._sign, requests[Purpose.LIBVIRT])
        body = msgspec.json.encode(HypervisorRequest(requests, self._addresses, held, signature))
        raw = await ask(url, HYPERVISOR_PATH, body, shown, Role.AGGREGATOR.server_name)
        issued = _issued(raw)
        texts = {purpose: key_text(key) for purpose, key in keys.items()}
        await asyncio.to_thread(self._lay, issued, texts)
        await self._reload()
        self._laid_for, self._renew_at, self._trust = identity.enrolment, _renew_at(issued), issued.trust
        if issued.left_out and issued.left_out != self._left_out:
            log.warning("addresses are another node's, no certificate names them", addresses=issued.left_out)
        self._left_out = issued.left_out
        log.info("libvirt and QEMU certified", directory=str(self._dir))

    def _sign(self, request: str) -> tuple[str, str]:
        """Return the public half of the libvirt key that lies there, and its signature; nothing where none does."""
        try:
            key = read_key((self._dir / LAYOUTS[Purpose.LIBVIRT].keys[-1]).read_bytes())
        except (OSError, IdentityError):
            return "", ""
        return sign_request(key, request)

    async def take_trust(self, trust: Trust) -> None:
        """Lay out other authorities and revocation lists beside the certificates that are there."""
        if self._trust == trust.version:
            return
        files = []
        for purpose, layout in LAYOUTS.items():
            files += [(layout.authorities, trust.hypervisors[purpose]), (layout.revoked, trust.revoked[purpose])]
        await asyncio.to_thread(self._put, [(name, text.encode(), PUBLIC) for name, text in files])
        await self._reload()
        self._trust = trust.version

    def _lay(self, issued: HypervisorIssued, keys: dict[Purpose, bytes]) -> None:
        """Put everything in its place; the certificates last."""
        files: list[tuple[str, bytes, int]] = []
        for purpose, layout in LAYOUTS.items():
            chain = issued.chains[purpose]
            files += [(layout.authorities, chain.authorities.encode(), PUBLIC)]
            files += [(layout.revoked, chain.revoked.encode(), PUBLIC)]
            files += [(name, DH_PARAMETERS.encode(), PUBLIC) for name in layout.parameters]
            files += [(name, keys[purpose], layout.key_mode) for name in layout.keys]
            files += [(name, chain.certificate.encode(), PUBLIC) for name in layout.certificates]
        self._put(files)

    def _put(self, files: list[tuple[str, bytes, int]]) -> None:
        """Put files in place; written beside their places first, so that between old and new lie only renames."""
        fresh = [_write_beside(self._dir / name, data, mode) for name, data, mode in files]
        for written, place in fresh:
            written.replace(place)

    async def _reload(self) -> None:
        if not self._reload_command:
            return
        name = self._reload_command[0]
        process = await asyncio.create_subprocess_exec(
            *self._reload_command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(RELOAD_S_MAX):
                _, complaint = await process.communicate()
        except TimeoutError:
            raise IdentityError(f"{name}: libvirtd did not read its new certificates in {RELOAD_S_MAX:g} s") from None
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode:
            words = complaint.decode(errors="replace").strip()[:WORDS_MAX]
            raise IdentityError(f"{name}: libvirtd did not read its new certificates: {words or process.returncode}")


def _issued(raw: bytes) -> HypervisorIssued:
    try:
        issued = msgspec.json.decode(raw, type=HypervisorIssued)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise IdentityError("the aggregator's answer holds no certificates for libvirt") from None
    if set(issued.chains) != set(Purpose):
        raise IdentityError("the aggregator's answer lacks a certificate for libvirt or QEMU")
    return issued


def _renew_at(issued: HypervisorIssued) -> float:
    """Return when the first of them is at half of its life, by Unix time, spread a little over the nodes."""
    return min(_half_life(chain) for chain in issued.chains.values())


def _half_life(chain: Chain) -> float:
    try:
        certificate = x509.load_pem_x509_certificate(chain.certificate.encode())
    except ValueError:
        raise IdentityError("the aggregator's answer holds no certificates for libvirt") from None
    until = certificate.not_valid_after_utc.timestamp()
    life_s = until - certificate.not_valid_before_utc.timestamp() - CLOCK_SKEW_S
    return until - life_s * (1 - RENEW_FROM) + random.uniform(0.0, JITTER) * life_s


def _write_beside(place: Path, data: bytes, mode: int) -> tuple[Path, Path]:
    """Write a file next to its place, synced; return both."""
    place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    written = place.with_name(f".{place.name}.new")
    written.unlink(missing_ok=True)
    handle = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, OWNERS)
    with os.fdopen(handle, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return written, place
