"""Builds the guests on first use and keeps them in the cache, under a name that changes with their source.

Knows the compiler's flags. Must not know how a guest is run.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from lab import namespaces
from lab.layout import CACHE_DIR

SOURCES = Path(__file__).with_name("guests")
_FREESTANDING = (
    "-m32 -O2 -ffreestanding -fno-pic -fno-pie -no-pie -fno-stack-protector -fno-asynchronous-unwind-tables"
    " -mgeneral-regs-only -static -nostdlib -Wl,--build-id=none -Wl,-n -Wl,--no-warn-rwx-segments"
)


def cached(stem: str, suffix: str, inputs: Iterable[bytes], make: Callable[[Path], None]) -> Path:
    """Return the cached file for these inputs, after `make(path)` wrote it if it was not there yet."""
    digest = hashlib.sha256()
    for part in inputs:
        digest.update(hashlib.sha256(part).digest())
    target = CACHE_DIR / "guests" / f"{stem}-{digest.hexdigest()[:12]}{suffix}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_name(f"{target.name}.{os.getpid()}")
        make(fresh)
        fresh.rename(target)
    return target


def tiny() -> Path:
    """The bare-metal guest, a multiboot file."""
    source, script = SOURCES / "tiny.c", SOURCES / "tiny.ld"

    def compile_tiny(target: Path) -> None:
        namespaces.run(["gcc", *_FREESTANDING.split(), "-T", str(script), "-o", str(target), str(source)])

    return cached("tiny", ".elf", [source.read_bytes(), script.read_bytes(), _FREESTANDING.encode()], compile_tiny)
