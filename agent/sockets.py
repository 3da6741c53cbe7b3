"""The TCP sockets of this host's network, as the kernel's table shows them. Knows /proc/net/tcp alone."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

_TCP_TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))


class Socket(Struct, frozen=True):
    """One line of /proc/net/tcp that matters. waiting_bytes: sent or to be sent, and not answered."""

    state: str  # as the table has it: 01 is ESTABLISHED
    remote_port: int
    waiting_bytes: int
    retransmits: int


def read_sockets() -> list[Socket]:
    """Return the TCP sockets of this host's network that were sent something without an answer yet."""
    found = []
    for table in _TCP_TABLES:
        try:
            text = table.read_text(encoding="ascii")
        except OSError:
            continue
        found += [socket for line in text.splitlines()[1:] if (socket := parse_socket(line)).waiting_bytes]
    return found


def parse_socket(line: str) -> Socket:
    """Read one line of /proc/net/tcp (proc_net_tcp.rst): remote address, queue and retransmits are hexadecimal."""
    fields = line.split()
    return Socket(
        state=fields[3],
        remote_port=int(fields[2].rpartition(":")[2], 16),
        waiting_bytes=int(fields[4].partition(":")[0], 16),
        retransmits=int(fields[6], 16),
    )
