"""Steps that the laboratory's own tests share: guests by virsh, waits on conditions. No daemon of virtward runs."""

from __future__ import annotations

import secrets
import subprocess
import time
from collections.abc import Callable

from lab import namespaces
from lab.guest_log import GuestLine
from lab.laboratory import Laboratory
from lab.layout import Plane
from lab.manifest import GuestKind

LIMIT_S = 30.0


def wait_for(condition: Callable[[], object], what: str, limit_s: float = LIMIT_S) -> None:
    """Wait until the condition holds; fails naming `what`."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, f"not within {limit_s:g} s: {what}"
        time.sleep(0.02)


def fresh_name() -> str:
    """A laboratory name that no other test uses now."""
    return "t" + secrets.token_hex(2)


def define(laboratory: Laboratory, host: str, name: str, **wishes: int) -> None:
    """Define a tiny guest on a host."""
    xml = laboratory.dir / f"{name}.xml"
    xml.write_text(laboratory.domain_xml(name, GuestKind.TINY, **wishes), encoding="ascii")
    laboratory.virsh(host, "define", str(xml))


def start(laboratory: Laboratory, host: str, name: str) -> None:
    """Define and start a tiny guest, and wait until it counts."""
    define(laboratory, host, name)
    laboratory.virsh(host, "start", name)
    counts_on(laboratory, name)


def counts_on(laboratory: Laboratory, name: str) -> None:
    """Wait for a tick that was not there when the wait began."""
    before = len(laboratory.guest_log(name))
    wait_for(lambda: any(line.tick for line in laboratory.guest_log(name)[before:]), f"another tick of {name}")


def said(laboratory: Laboratory, name: str, beginning: str) -> list[GuestLine]:
    """Everything a guest said that begins so."""
    return [line for line in laboratory.guest_log(name) if line.text.startswith(beginning)]


def peer_uri(laboratory: Laboratory, host: str) -> str:
    """How another host's libvirtd reaches this one."""
    return f"qemu+tls://{laboratory.layout.address(host, Plane.MIGRATION)}/system"


def in_host(laboratory: Laboratory, host: str, *command: str) -> subprocess.Popen[str]:
    """Start a program in a host's network, with pipes."""
    line = namespaces.inside(laboratory.layout.namespace(host), command)
    return subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
