"""Asks a suspect's agent, libvirtd and sshd for an *application* answer within 1 s each, side by side.

A frozen host's kernel still completes TCP handshakes, so a connection proves nothing. Of libvirtd
the question is the smallest call of its protocol (AUTH_LIST), over TLS the ServerHello of its own
TLS library: both come from the daemon itself and need no login. Knows sockets; no libvirt.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
import struct

from agent.keeper_types import Probe, ProbeReturned
from agent.storage import ask_server
from fleet.clock import Clock
from fleet.messages import ProbeAddress, ProbeResult
from fleet.model import Plane
from fleet.storage import Server

ASK_TIMEOUT_S = 1.0
ADDRESSES_MAX = 16
ANSWER_BYTES_MAX = 4096
NOBODY_LISTENS = "nobody listens, but the kernel says so"
LIBVIRT_TLS_PORT = 16514
# libvirt's RPC header (virnetprotocol.x): length, program, version, procedure, type, serial, status
_HEADER = struct.Struct(">IIIIiIi")
_REMOTE_PROGRAM, _PROTOCOL_VERSION, _AUTH_LIST, _CALL, _REPLY = 0x20008086, 1, 66, 0, 1


async def probe(effect: Probe, clock: Clock, *, agents_tls: bool = False) -> ProbeReturned:
    """Ask everything at once; answered within ASK_TIMEOUT_S counts, nothing else does. agents_tls: agents speak it."""
    asked_s = clock.monotonic_s()
    results = await asyncio.gather(
        *(_ask(address, agents_tls=agents_tls) for address in effect.addresses[:ADDRESSES_MAX])
    )
    return ProbeReturned(effect.probe_id, effect.target, tuple(results), asked_s)


async def _ask(address: ProbeAddress, *, agents_tls: bool) -> ProbeResult:
    if address.plane is Plane.STORAGE:
        reached = await ask_server(Server(address.port, address.host, address.number))
        return ProbeResult(address.plane, address.port, reached, 0.0, "" if reached else "no answer")
    question = _QUESTIONS.get(address.port, _ask_libvirt)
    if agents_tls and question is _ask_agent:
        question = _ask_tls
    try:
        async with asyncio.timeout(ASK_TIMEOUT_S):
            detail = await question(address.host, address.number)
        answered = not detail
    except TimeoutError:
        answered, detail = False, f"no answer within {ASK_TIMEOUT_S:g} s"
    except ConnectionRefusedError:
        answered, detail = False, NOBODY_LISTENS
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
        answered, detail = False, str(error) or type(error).__name__
    return ProbeResult(address.plane, address.port, answered, 0.0, detail)


async def _ask_agent(host: str, port: int) -> str:
    """Ask for a nonce; the answer must hold it. Returns why it is no answer, empty for a good one."""
    nonce = secrets.token_hex(8)
    reader, writer = await asyncio.open_connection(host, port, limit=ANSWER_BYTES_MAX)
    try:
        request = f"GET /peer/v1/ping?nonce={nonce} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        writer.write(request.encode("ascii"))
        answer = b""
        while len(answer) < ANSWER_BYTES_MAX and (more := await reader.read(ANSWER_BYTES_MAX)):
            answer += more
            if nonce.encode() in answer:
                return ""
        return "the answer does not hold the nonce"
    finally:
        writer.transport.abort()


async def _ask_ssh(host: str, port: int) -> str:
    """The banner comes from a process of sshd's own, so a frozen host has none. Ours spares it a complaint."""
    reader, writer = await asyncio.open_connection(host, port, limit=ANSWER_BYTES_MAX)
    try:
        writer.write(b"SSH-2.0-virtward_probe\r\n")
        return "" if (await reader.readline()).startswith(b"SSH-") else "the answer is not ssh's"
    finally:
        writer.transport.abort()


async def _ask_libvirt(host: str, port: int) -> str:
    if port == LIBVIRT_TLS_PORT:
        return await _ask_tls(host, port)
    reader, writer = await asyncio.open_connection(host, port, limit=ANSWER_BYTES_MAX)
    try:
        writer.write(_HEADER.pack(_HEADER.size, _REMOTE_PROGRAM, _PROTOCOL_VERSION, _AUTH_LIST, _CALL, 1, 0))
        _length, program, _version, procedure, kind, serial, _status = _HEADER.unpack(
            await reader.readexactly(_HEADER.size)
        )
        if (program, procedure, kind, serial) != (_REMOTE_PROGRAM, _AUTH_LIST, _REPLY, 1):
            return "the answer is not libvirt's"
        return ""
    finally:
        writer.transport.abort()


async def _ask_tls(host: str, port: int) -> str:
    """A handshake, finished or refused by the daemon (we may lack a certificate), is the daemon's own answer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # who answers is not the question here, only that it does
    try:
        _reader, writer = await asyncio.open_connection(host, port, ssl=context)
    except ssl.SSLError as error:
        alert = "ALERT" in (error.reason or "")
        return "" if alert else f"TLS: {error.reason or error}"
    writer.transport.abort()
    return ""


_QUESTIONS = {"agent": _ask_agent, "libvirt": _ask_libvirt, "ssh": _ask_ssh}
