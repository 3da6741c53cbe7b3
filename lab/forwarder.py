"""The forwarder: lets this shell reach an aggregator's API, which has no address in the root namespace.

It listens on 127.0.0.1 here, then steps into the aggregator's network namespace: the listening socket stays where it
was made, connections start where the process is. They speak TLS; on this machine's loopback nothing does, so that every
client can. Knows bytes; must not know HTTP.
Run as: python -m lab.forwarder PORT NAMESPACE ADDRESS TARGET_PORT AUTHORITY_FILE
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import ssl
import sys
from pathlib import Path

from lab.namespaces import NETNS_DIR

CLONE_NEWNET = 0x40000000
PIECE_BYTES = 65536
CONNECT_TIMEOUT_S = 5.0


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _step_into(namespace: str) -> None:
    descriptor = os.open(NETNS_DIR / namespace, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter namespace {namespace}")
    finally:
        os.close(descriptor)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(PIECE_BYTES):
            writer.write(piece)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
        else:
            writer.close()  # TLS knows no half that is shut


class Trust:
    """The context for connections to the aggregator, made anew when its authority is another one."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._held: tuple[float, ssl.SSLContext] | None = None

    def context(self) -> ssl.SSLContext:
        """Return it; OSError while the aggregator has not said by which authority it is known."""
        changed_at = self._file.stat().st_mtime
        if self._held is None or self._held[0] != changed_at:
            context = ssl.create_default_context(cafile=self._file)
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            self._held = changed_at, context
        return self._held[1]


async def serve(listener: socket.socket, address: str, port: int, trust: Trust) -> None:
    """Forward each connection until both sides have ended."""

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            opening = asyncio.open_connection(address, port, ssl=trust.context())
            far_reader, far_writer = await asyncio.wait_for(opening, CONNECT_TIMEOUT_S)
        except (OSError, TimeoutError):
            writer.close()
            return
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        far_writer.close()
        writer.close()

    server = await asyncio.start_server(forward, sock=listener)
    async with server:
        await server.serve_forever()


def main() -> None:
    """Listen here, connect there."""
    own_port, namespace, address, port, authority = sys.argv[1:6]
    listener = socket.create_server(("127.0.0.1", int(own_port)))
    _step_into(namespace)
    asyncio.run(serve(listener, address, int(port), Trust(Path(authority))))


if __name__ == "__main__":
    main()
