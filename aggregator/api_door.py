"""The API's listener: TLS with a certificate of the fleet's authority or of its owner's, or open on loopback.

Knows sockets and certificates; what is asked, and who may, is the API's.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import time
from pathlib import Path

import structlog
from aiohttp import web

from aggregator.api.app import make_app
from aggregator.api.idle import Idle
from aggregator.authority import Authority
from aggregator.fleet_access import FleetAccess
from aggregator.hypervisor_authority import Address
from aggregator.settings import Endpoint, Settings
from fleet.service import ServiceError
from fleet.tls import Listener, https_context

AGAIN_S = 60.0  # after a failure; a certificate of its owner's is taken in so often, too
LINGER_S_MAX = 1.0  # for the rest of a body that was refused
SWITCH_S = 1.0  # looks for another authority, or another file of the owner's
WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - what is told apart from an address

_log = structlog.get_logger("aggregator.api_door")


class ApiDoor:
    """Listens for people, scripts and their browsers."""

    def __init__(self, fleet: FleetAccess, settings: Settings, authority: Authority | None) -> None:
        self._settings, self._authority = settings, authority
        self._idle = Idle()
        app = make_app(fleet, settings.state_dir / "audit.jsonl", self._idle)
        self._runner = web.AppRunner(
            app, access_log=None, handle_signals=False, shutdown_timeout=1.0, lingering_time=LINGER_S_MAX
        )
        self._own = settings.state_dir / "identity" / "api.pem"
        self._context: ssl.SSLContext | None = None
        self._listener: Listener | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens, once it has started."""
        if self._listener is None:
            raise RuntimeError("the API's door has not started")
        return self._listener.address

    async def start(self, endpoint: Endpoint, backlog: int) -> None:
        """Begin to listen. ServiceError if the port is taken or the certificate cannot be used."""
        loop = asyncio.get_running_loop()
        if self._settings.api_tls:
            self._tasks.append(loop.create_task(self._keep_certified(self._certify())))
        await self._runner.setup()
        self._listener = Listener(self._runner, self._present if self._settings.api_tls else None, self._idle.opened)
        try:
            self._listener.start(endpoint.host, endpoint.port, backlog)
        except OSError as error:
            await self._runner.cleanup()
            raise endpoint.taken(error) from None
        self._tasks.append(loop.create_task(self._idle.sweep()))

    async def cleanup(self) -> None:
        """Stop listening and end every connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._listener is not None:
            await self._listener.stop()
        await self._runner.cleanup()

    # --- the certificate

    def _present(self) -> ssl.SSLContext:
        if self._context is None:
            raise ssl.SSLError("the API has no certificate yet")
        return self._context

    def _certify(self) -> float:
        """Take a certificate into use; return for how many seconds it is good as it is. ServiceError."""
        settings, good_s = self._settings, AGAIN_S
        certificate, key = settings.api_certificate, settings.api_key
        if certificate is None or key is None:
            if self._authority is None:
                raise ServiceError("api_tls needs agents_tls, or api_certificate and api_key of your own")
            renew_at = self._authority.certify_server(self._own, names_of(settings))
            certificate = key = self._own
            good_s = max(SWITCH_S, renew_at - time.time())
        try:
            trusted = self._authority.trusted_text if self._authority is not None else ""
            self._context = https_context(certificate, key, trusted)
        except (OSError, ssl.SSLError, ValueError) as error:
            raise ServiceError(f"{certificate}: is no certificate with the key in {key}: {error}") from None
        return good_s

    async def _keep_certified(self, good_s: float) -> None:
        seen, until_s = self._signs_of_change(), time.monotonic() + good_s
        while True:
            await asyncio.sleep(SWITCH_S)
            changed = self._signs_of_change()
            if changed == seen and time.monotonic() < until_s:
                continue
            seen = changed
            try:
                good_s = self._certify()
            except (OSError, ServiceError) as error:
                good_s = AGAIN_S
                _log.warning("the API's certificate not renewed", reason=str(error))
            until_s = time.monotonic() + good_s

    def _signs_of_change(self) -> tuple[str, float]:
        """What a rotation of the authority, or another file of the owner's, changes."""
        file = self._settings.api_certificate
        trusted = self._authority.trusted_text if self._authority is not None else ""
        return trusted, _changed_at(file) if file is not None else 0.0


def _changed_at(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def names_of(settings: Settings) -> tuple[list[str], list[Address]]:
    """Return names and addresses by which clients may call: where it listens, this machine, loopback, those given."""
    given = [settings.api.host, socket.gethostname(), "localhost", "127.0.0.1", "::1", *settings.api_names]
    names: list[str] = []
    addresses: list[Address] = []
    for text in dict.fromkeys(each for each in given if each and each not in WILDCARDS):
        try:
            addresses.append(ipaddress.ip_address(text))
        except ValueError:
            names.append(text)
    return names, addresses
