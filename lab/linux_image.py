"""The linux guest: Debian's cloud kernel as `make setup` unpacked it, and an initramfs built here from busybox."""

from __future__ import annotations

from lab.errors import LaboratoryError
from lab.manifest import BootFiles


def boot_files() -> BootFiles:
    """Kernel and initramfs, built on first use."""
    raise LaboratoryError("the linux guest cannot be built yet")
