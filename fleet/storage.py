"""Shared storages by name: what the disks on one server, or on one mounted file system, have in common.

`nbd://10.1.3.9:10809` is the storage of the disk `nbd://10.1.3.9:10809/web-1`, `nfs://filer:/vms` that
of `nfs://filer:/vms/web-1.qcow2`. Pure; asking a storage is the agents' work.
"""

from __future__ import annotations

import re

from msgspec import Struct

SERVERS_MAX = 16
_NETWORK = re.compile(r"(nbd|iscsi|rbd|gluster|https?|ssh)://([^/]+)")


class Server(Struct, frozen=True):
    """One place where a network storage is asked. kind: nbd, or the scheme of another protocol."""

    kind: str
    host: str
    port: int


def network_storage(identity: str) -> str:
    """Return the storage of a network disk's identity, empty for a disk that is none or names no server."""
    found = _NETWORK.match(identity)
    return found.group(0) if found is not None and servers_of(found.group(0)) else ""


def servers_of(storage: str) -> tuple[Server, ...]:
    """Return where a network storage may be asked; empty for a mounted one."""
    found = _NETWORK.fullmatch(storage)
    if found is None:
        return ()
    kind, hosts = found.groups()
    pairs = [host.rpartition(":") for host in hosts.split(",")]
    return tuple(Server(kind, host, int(port)) for host, _, port in pairs if host and port.isdigit())[:SERVERS_MAX]


def lies_on(identity: str, storage: str) -> bool:
    """Return whether the disk of this identity lies on the storage."""
    return identity == storage or identity.startswith(storage.rstrip("/") + "/")
