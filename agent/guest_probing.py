"""Asks guests: by their agent, by a connection, by an HTTP GET. Every question ends in time, every answer is bounded.

Knows sockets and the guest channel; what the answers come to is agent.guest_watch' word.
"""

from __future__ import annotations

import asyncio
import ssl

import aiohttp

from agent.hypervisor import GuestChannel, Unaskable
from agent.keeper_types import GuestProbed, ProbeGuest
from agent.workers import CrowdedError, StuckError, Workers
from fleet.guest_health import GuestProbe, ProbeWay

THREADS_MAX, STUCK_MAX = 8, 16
SPARE_S = 8.0  # beyond the probe's own time-out: libvirt waits 5 s for the agent to say hello before it asks
WORDS_MAX = 200
HTTP_GOOD = range(200, 400)


class GuestProber:
    """Asks for a whole node; threads that hang are counted, and then nobody is asked by them any more."""

    def __init__(self, channel: GuestChannel) -> None:
        self._channel = channel
        self._workers = Workers("guest probe", THREADS_MAX, STUCK_MAX)
        self._pings: dict[str, asyncio.Task[tuple[bool, str]]] = {}

    async def ask(self, effect: ProbeGuest) -> GuestProbed:
        """Ask once."""
        try:
            good, words = await self._ask(effect.uuid, effect.probe)
        except (Unaskable, StuckError, CrowdedError) as error:
            return GuestProbed(effect.uuid, effect.kind, effect.number, None, printable(str(error)))
        return GuestProbed(effect.uuid, effect.kind, effect.number, good, printable(words))

    async def _ask(self, uuid: str, probe: GuestProbe) -> tuple[bool, str]:
        limit_s = probe.timeout_s + SPARE_S
        if probe.way is ProbeWay.PING:
            return await self._ping(uuid, probe)
        host = probe.host or await self._workers.run(lambda: self._channel.address(uuid), limit_s)
        if probe.way is ProbeWay.TCP:
            return await connects(host, probe.port, probe.timeout_s)
        return await gets(host, probe)

    async def _ping(self, uuid: str, probe: GuestProbe) -> tuple[bool, str]:
        """Ask a guest's agent; who asks meanwhile gets the same answer, for libvirt lets a second one wait for 30 s."""
        ping = self._pings.get(uuid)
        if ping is None:
            limit_s = probe.timeout_s + SPARE_S
            call = self._workers.run(lambda: self._channel.ping(uuid, probe.timeout_s), limit_s)
            ping = self._pings[uuid] = asyncio.create_task(call)
            ping.add_done_callback(lambda _: self._pings.pop(uuid, None))
        return await asyncio.shield(ping)


async def connects(host: str, port: int, timeout_s: float) -> tuple[bool, str]:
    """Return whether a connection to that port stands within its time, and in words."""
    where = f"{host} port {port}"
    try:
        async with asyncio.timeout(timeout_s):
            _reader, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return False, f"{where}: no connection within {timeout_s:g} s"
    except OSError as error:
        return False, f"{where}: {error.strerror or error}"
    writer.transport.abort()
    return True, ""


async def gets(host: str, probe: GuestProbe) -> tuple[bool, str]:
    """Return whether a GET is answered with 2xx or 3xx; the certificate is not looked at and the body not read."""
    shown = f"[{host}]" if ":" in host else host
    url = f"{probe.scheme}://{shown}:{probe.port}{probe.path}"
    unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if probe.scheme == "https" else None
    if unverified is not None:
        unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    timeout = aiohttp.ClientTimeout(total=probe.timeout_s)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session,
            session.get(url, allow_redirects=False, ssl=unverified or True) as answer,
        ):
            good = answer.status in HTTP_GOOD
            return good, "" if good else f"{url} answers {answer.status}"
    except TimeoutError:
        return False, f"{url}: no answer within {probe.timeout_s:g} s"
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return False, f"{url}: {error}"


def printable(words: str) -> str:
    """Return words as they can be shown, cut to WORDS_MAX characters: a guest may have chosen them."""
    return "".join(sign if sign.isprintable() else " " for sign in words[:WORDS_MAX])
