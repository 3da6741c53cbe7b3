"""The linux guest: Debian's cloud kernel as `make setup` unpacked it, and an initramfs built here.

In the initramfs: busybox, the drivers that the cloud kernel has as modules, QEMU's guest agent with its libraries, and
the counter (guests/count.c) as the last word of init. Knows files only; what the guest does is in guests/.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from lab import namespaces
from lab.errors import LaboratoryError
from lab.guest_build import SOURCES, cached
from lab.layout import CACHE_DIR
from lab.manifest import BootFiles

KERNEL_DIR = CACHE_DIR / "kernel"
GUEST_AGENT = CACHE_DIR / "guest-agent/usr/sbin/qemu-ga"
BUSYBOX = Path("/bin/busybox")
# In the order of insertion: without them there is no disk, and the power button is ignored.
MODULES = (
    "virtio_ring",
    "virtio",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "evdev",
    "button",
    "pvpanic",
    "pvpanic-mmio",
    "pvpanic-pci",
)
_LIBRARY = re.compile(r"(/\S+) \(0x")


def boot_files() -> BootFiles:
    """Kernel and initramfs, built on first use."""
    try:
        release = (KERNEL_DIR / "release").read_text(encoding="ascii").strip()
    except FileNotFoundError:
        raise LaboratoryError(f"the kernel of the linux guest is missing in {KERNEL_DIR}; run `make setup`") from None
    if not GUEST_AGENT.exists():
        raise LaboratoryError(f"the guest agent of the linux guest is missing: no {GUEST_AGENT}; run `make setup`")
    kernel = KERNEL_DIR / "boot" / f"vmlinuz-{release}"
    inputs = [
        path.read_bytes()
        for path in (SOURCES / "count.c", SOURCES / "init", SOURCES / "shutdown", GUEST_AGENT, BUSYBOX)
    ]
    inputs += [release.encode(), " ".join(MODULES).encode()]
    return BootFiles(kernel, cached("linux", ".cpio.gz", inputs, lambda target: _build(target, release)))


def _build(target: Path, release: str) -> None:
    """Lay the tree out in a temporary directory and pack it."""
    with tempfile.TemporaryDirectory(prefix="virtward-initramfs-") as name:
        root = Path(name)
        for directory in ("bin", "sbin", "modules", "usr/sbin"):
            (root / directory).mkdir(parents=True)
        shutil.copy2(BUSYBOX, root / "bin/busybox")
        for script, place in (("init", "init"), ("shutdown", "sbin/shutdown")):
            shutil.copy(SOURCES / script, root / place)
            (root / place).chmod(0o755)
        namespaces.run(["gcc", "-O2", "-static", "-s", "-o", str(root / "bin/count"), str(SOURCES / "count.c")])
        _add_modules(root, release)
        _add_guest_agent(root)
        _pack(root, target)


def _add_modules(root: Path, release: str) -> None:
    drivers = KERNEL_DIR / "lib/modules" / release / "kernel"
    for module in MODULES:
        found = next(drivers.rglob(f"{module}.ko"), None)
        if found is None:
            raise LaboratoryError(f"kernel {release} has no module {module}; remove {KERNEL_DIR} and run `make setup`")
        shutil.copy2(found, root / "modules")
    (root / "modules/order").write_text("\n".join(MODULES) + "\n", encoding="ascii")


def _add_guest_agent(root: Path) -> None:
    """The agent and every library it is linked against, each at its own path."""
    shutil.copy2(GUEST_AGENT, root / "usr/sbin/qemu-ga")
    linked = namespaces.run(["ldd", str(GUEST_AGENT)])
    if "not found" in linked:
        raise LaboratoryError("the guest agent's libraries are not all installed; run `make setup`")
    for library in _LIBRARY.findall(linked):
        place = root / library.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(library, place)


def _pack(root: Path, target: Path) -> None:
    files = "\n".join([".", *sorted(f"./{path.relative_to(root)}" for path in root.rglob("*"))]) + "\n"
    command = ["cpio", "--create", "--format=newc", "--quiet", "--owner=0:0"]
    packed = subprocess.run(command, cwd=root, input=files.encode(), capture_output=True, check=False)
    if packed.returncode:
        raise LaboratoryError(f"cpio failed: {packed.stderr.decode(errors='replace').strip()}")
    zipped = subprocess.run(["gzip", "-1", "-n"], input=packed.stdout, capture_output=True, check=True)
    target.write_bytes(zipped.stdout)
