"""What a local path really is: the identity of a disk behind it (safety.md, S16).

Knows /proc/self/mountinfo and /dev/disk; knows no VM. What cannot be identified is local to this
node, so that it is never started elsewhere by mistake.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from msgspec import Struct

from fleet.domain_xml import Place

NETWORK_FILESYSTEMS = frozenset(
    {"nfs", "nfs4", "ceph", "glusterfs", "fuse.glusterfs", "lustre", "gpfs", "cifs", "smb3"}
)
CLUSTER_FILESYSTEMS = frozenset({"ocfs2", "gfs2"})
_OCTAL = re.compile(r"\\([0-7]{3})")


class Mount(Struct, frozen=True):
    """One line of mountinfo that matters: where, what kind, from where, and which part of it."""

    point: str
    root: str
    kind: str
    source: str


def read_mounts(text: str) -> list[Mount]:
    """Parse /proc/self/mountinfo (proc_pid_mountinfo(5))."""
    mounts = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        before, after = left.split(), right.split()
        if len(before) >= 5 and len(after) >= 2:  # noqa: PLR2004 - the fixed fields of the format
            mounts.append(Mount(_plain(before[4]), _plain(before[3]), after[0], _plain(after[1])))
    return mounts


def _plain(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match.group(1), 8)), text)


def mount_of(path: str, mounts: list[Mount]) -> Mount | None:
    """Return the mount a path lies in; of several on one point the last one is on top."""
    best = None
    for mount in mounts:
        point = mount.point.rstrip("/")
        inside = path == mount.point or path.startswith(point + "/")
        if inside and (best is None or len(point) >= len(best.point.rstrip("/"))):
            best = mount
    return best


def place_in(path: str, mount: Mount | None, node: str) -> Place:
    """Identify a file by its file system: server and export where it has one, else the node."""
    if mount is None:
        return Place(f"file:{node}:{path}", shared=False)
    inside = path[len(mount.point.rstrip("/")) :] or "/"
    within = (mount.root.rstrip("/") + inside) or "/"
    if storage := storage_of_mount(mount):
        return Place(f"{storage}{within}", shared=True)
    return Place(f"file:{node}:{path}", shared=False)


def storage_of_mount(mount: Mount) -> str:
    """Return the shared storage a mount gives access to (fleet.storage), empty for a local one."""
    if mount.kind in NETWORK_FILESYSTEMS:
        kind = "nfs" if mount.kind == "nfs4" else mount.kind.removeprefix("fuse.")
        return f"{kind}://{mount.source}".rstrip("/")
    return f"{mount.kind}:{mount.source}" if mount.kind in CLUSTER_FILESYSTEMS else ""


class Places:
    """Resolves paths on this node, each time from the present mounts."""

    def __init__(self, node: str) -> None:
        self.node = node

    def resolve(self, path: str) -> Place:
        """Return what a file or block device is."""
        real = os.path.realpath(path)
        if real.startswith("/dev/"):
            return self._device(real)
        try:
            mounts = read_mounts(Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace"))
        except OSError:
            mounts = []
        return place_in(real, mount_of(real, mounts), self.node)

    def _device(self, real: str) -> Place:
        """A WWN names a LUN everywhere; any other block device is this node's own."""
        by_id = Path("/dev/disk/by-id")
        names = sorted(by_id.glob("wwn-*")) if by_id.is_dir() else []
        for name in names:
            if os.path.realpath(name) == real:
                return Place(f"wwn:{name.name.removeprefix('wwn-')}", shared=True)
        return Place(f"block:{self.node}:{real}", shared=False)
