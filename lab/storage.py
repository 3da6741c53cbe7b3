"""The shared storage: one qemu-storage-daemon that exports each disk over NBD on the storage plane.

Knows disks as raw files of the laboratory. Must not know which guest uses which.
"""

from __future__ import annotations

import hashlib
import os

from lab import namespaces, processes
from lab.layout import NBD_PORT, STORAGE_ADDRESS, Layout
from lab.planes import Planes
from lab.processes import Registry
from lab.qmp import Monitor, MonitorClosedError

ROLE = "storage"
DISK_BYTES = 1 << 20
START_TIMEOUT_S = 10.0


class Storage:
    """The storage daemon of one laboratory and its disks."""

    def __init__(self, layout: Layout, planes: Planes, registry: Registry) -> None:
        self._layout = layout
        self._planes = planes
        self._registry = registry
        self._monitor_path = layout.run_dir / "storage.sock"

    def start(self) -> None:
        """Start the daemon and export every disk; no error when it runs."""
        self._layout.disks_dir.mkdir(parents=True, exist_ok=True)
        namespaces.create(self._layout.storage_namespace)
        self._planes.plug(self._layout.storage_link())
        if self._registry.find(ROLE) is not None:
            return
        self._layout.run_dir.mkdir(parents=True, exist_ok=True)
        self._monitor_path.unlink(missing_ok=True)
        options = [
            "--chardev",
            f"socket,id=monitor,path={self._monitor_path},server=on,wait=off",
            "--monitor",
            "chardev=monitor",
        ]
        server = ["--nbd-server", f"addr.type=inet,addr.host={STORAGE_ADDRESS},addr.port={NBD_PORT},max-connections=0"]
        command = namespaces.inside(self._layout.storage_namespace, ["qemu-storage-daemon", *options, *server])
        self._registry.start(ROLE, command, self._layout.logs_dir / "storage.log")
        processes.wait_until(self._answers, START_TIMEOUT_S, "the start of the storage daemon")
        for disk in sorted(self._layout.disks_dir.glob("*.raw")):
            self._export(disk.stem)

    def ensure_disk(self, name: str) -> None:
        """Make the disk `name` and export it; no error when it is there."""
        self._layout.disks_dir.mkdir(parents=True, exist_ok=True)
        disk = self._layout.disks_dir / f"{name}.raw"
        if not disk.exists():
            with disk.open("xb") as file:
                os.ftruncate(file.fileno(), DISK_BYTES)
        self._export(name)

    def has_disk(self, name: str) -> bool:
        """Whether the disk `name` was made."""
        return (self._layout.disks_dir / f"{name}.raw").exists()

    def _answers(self) -> bool:
        try:
            with Monitor(self._monitor_path, 1.0):
                return True
        except MonitorClosedError:
            return False

    def _export(self, name: str) -> None:
        """Export a disk under its name, which clients use; writable for several at once, as shared storage is."""
        with Monitor(self._monitor_path, 5.0) as monitor:
            exports = monitor.ask("query-block-exports")
            node = "disk-" + hashlib.sha256(name.encode()).hexdigest()[:16]  # node names are short and plain
            if isinstance(exports, list) and any(export.get("id") == node for export in exports):
                return
            file = {"driver": "file", "filename": str(self._layout.disks_dir / f"{name}.raw")}
            monitor.ask("blockdev-add", {"driver": "raw", "node-name": node, "file": file})
            monitor.ask(
                "block-export-add", {"type": "nbd", "id": node, "node-name": node, "name": name, "writable": True}
            )
