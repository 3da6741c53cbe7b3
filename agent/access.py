"""How this agent shows who it is, and knows who others are: by certificates, or openly with a lasting token.

Knows its files and TLS contexts; asks nobody for anything (agent.joining does). A renewed certificate is
taken by the contexts in use: connections that stand keep theirs, new ones show the new one.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from pathlib import Path
from typing import Protocol

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from fleet.identity import Identity, IdentityError, Issued, Role, identity_of, key_text, read_key
from fleet.service import ServiceError
from fleet.tls import client_context, server_context
from fleet.trust import NO_TRUST, Trust


class Access(Protocol):
    """What connections are made with."""

    @property
    def secure(self) -> bool:
        """Whether agents and aggregators speak TLS."""

    @property
    def relay_secret(self) -> str:
        """What relayed frames are sealed with; where agents speak openly, the token too."""

    @property
    def denied(self) -> frozenset[str]:
        """Enrolments whose certificates count no more, whatever TLS says of them."""

    @property
    def trust(self) -> Trust:
        """What is held of whom to trust; empty where agents speak openly."""

    @property
    def standing(self) -> asyncio.Event:
        """Set as soon as there is something to show."""

    @property
    def outgoing(self) -> ssl.SSLContext | bool:
        """For calls to aggregators and other agents, as aiohttp takes it."""

    @property
    def incoming(self) -> ssl.SSLContext | None:
        """For other agents' calls; None where they speak openly."""

    def headers(self) -> dict[str, str]:
        """Return what a connection of our own to an aggregator says besides."""

    def server_name(self, role: Role) -> str | None:
        """Return which name the other end's certificate must bear."""


class OpenAccess:
    """A token, and nothing encrypted."""

    secure = False
    outgoing = True
    incoming = None
    denied: frozenset[str] = frozenset()
    trust = NO_TRUST

    def __init__(self, token: str) -> None:
        self.relay_secret = token
        self.standing = asyncio.Event()
        self.standing.set()

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.relay_secret}"}

    def server_name(self, role: Role) -> str | None:
        return None


class CertifiedAccess:
    """Key, certificate and authority in a directory, each file written whole and readable by its owner alone.

    joined.pem holds the present key and certificate.
    """

    secure = True

    def __init__(self, directory: Path) -> None:
        """Read what there is. ServiceError if it cannot be used."""
        self._dir = directory
        self.standing = asyncio.Event()
        self.authority = self.relay_secret = self.spent_token = ""
        self.trust = NO_TRUST
        self.denied: frozenset[str] = frozenset()
        self.identity: Identity | None = None
        self._outgoing: ssl.SSLContext | None = None
        self._incoming: ssl.SSLContext | None = None
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.own.exists():
                self.authority = self._path("authority.pem").read_text("ascii")
                self.relay_secret = self._path("relay").read_text("ascii").strip()
                self.spent_token = self._path("spent").read_text("ascii").strip()
                self._read_trust()
                self._take()
        except (OSError, UnicodeDecodeError, IdentityError, ssl.SSLError, ValueError) as error:
            raise ServiceError(
                f"{directory}: this node's identity cannot be used: {error}; remove the directory and let the node "
                "join anew with virtward node token"
            ) from None

    @staticmethod
    def is_joined(directory: Path) -> bool:
        """Tell whether an identity lies in a directory."""
        return (directory / "joined.pem").exists()

    @property
    def own(self) -> Path:
        """The file of key and certificate."""
        return self._path("joined.pem")

    @property
    def outgoing(self) -> ssl.SSLContext | bool:
        return self._outgoing if self._outgoing is not None else True

    @property
    def incoming(self) -> ssl.SSLContext | None:
        return self._incoming

    def headers(self) -> dict[str, str]:
        return {}

    def server_name(self, role: Role) -> str | None:
        return role.server_name

    def bare(self) -> ssl.SSLContext:
        """Return a context that knows the authority and shows nothing."""
        return client_context(self.authority, None)

    def key(self) -> ec.EllipticCurvePrivateKey:
        """Return the present private key."""
        return read_key(self.own.read_bytes())

    def certificate(self) -> str:
        """Return the present certificate as PEM."""
        return x509.load_pem_x509_certificate(self.own.read_bytes()).public_bytes(Encoding.PEM).decode("ascii")

    def take_joined(self, key: ec.EllipticCurvePrivateKey, issued: Issued, authority: str, token_sha256: str) -> None:
        """Keep what joining gave; the certificate last, for it is what says that the rest is there."""
        self.own.unlink(missing_ok=True)
        self._path("trust.json").unlink(missing_ok=True)
        self.trust, self.denied = NO_TRUST, frozenset()
        for name, text in (("authority.pem", authority), ("relay", issued.relay_secret), ("spent", token_sha256)):
            self._write(name, text.encode("ascii"))
        self.authority, self.relay_secret, self.spent_token = authority, issued.relay_secret, token_sha256
        self._outgoing = self._incoming = None
        self._write("joined.pem", key_text(key) + issued.certificate.encode("ascii"))
        self._take()

    def take_renewed(self, key: ec.EllipticCurvePrivateKey, issued: Issued) -> None:
        """Keep a renewed certificate, and show it from now on."""
        self._write("joined.pem", key_text(key) + issued.certificate.encode("ascii"))
        self._take()

    def take_trust(self, trust: Trust) -> None:
        """Keep whom to trust from now on, and whom no more; connections that stand go on. IdentityError."""
        try:
            client_context(trust.authorities, None)
        except (ssl.SSLError, ValueError):
            raise IdentityError("the aggregator's answer holds no authorities to trust") from None
        self._write("trust.json", msgspec.json.encode(trust))
        self.trust, self.denied = trust, frozenset(trust.denied)
        if trust.authorities != self.authority:
            self.authority = trust.authorities
            self._write("authority.pem", trust.authorities.encode("ascii"))
            self._take(anew=True)

    def _read_trust(self) -> None:
        path = self._path("trust.json")
        if path.exists():
            self.trust = msgspec.json.decode(path.read_bytes(), type=Trust)
            self.denied = frozenset(self.trust.denied)

    def _take(self, *, anew: bool = False) -> None:
        """Show the certificate that lies there. anew: with other authorities; at no moment is nothing shown."""
        certificate = x509.load_pem_x509_certificate(self.own.read_bytes())
        self.identity = identity_of(certificate.public_bytes(Encoding.DER))
        if anew or self._outgoing is None or self._incoming is None:
            outgoing = client_context(self.authority, self.own)
            incoming = server_context(self.authority, self.own, everybody=False)
            self._outgoing, self._incoming = outgoing, incoming
        else:
            self._outgoing.load_cert_chain(self.own)
            self._incoming.load_cert_chain(self.own)
        self.standing.set()

    def _path(self, name: str) -> Path:
        return self._dir / name

    def _write(self, name: str, data: bytes) -> None:
        fresh = self._path(f"{name}.new")
        fresh.unlink(missing_ok=True)
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path(name))
