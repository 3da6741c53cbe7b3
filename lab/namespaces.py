"""Network namespaces and commands that run in them.

Knows `ip netns`, `nsenter` and how to carry several `ip` or `nft` commands in one process.
Must not know what a host or a plane is.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from lab.errors import LaboratoryError

NETNS_DIR = Path("/run/netns")
COMMAND_TIMEOUT_S = 30.0


def run(command: Sequence[str], feed: str | None = None, *, tolerate: bool = False) -> str:
    """Run a command to its end and return its stdout; raises LaboratoryError with its last word on stderr."""
    try:
        done = subprocess.run(
            command, input=feed, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False
        )
    except FileNotFoundError:
        raise LaboratoryError(f"{command[0]} is not installed; run `make setup`") from None
    except subprocess.TimeoutExpired:
        raise LaboratoryError(f"`{' '.join(command)}` did not end within {COMMAND_TIMEOUT_S:g} s") from None
    if done.returncode and not tolerate:
        last_word = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}").splitlines()[-1]
        raise LaboratoryError(f"`{' '.join(command)}` failed: {last_word}")
    return done.stdout


def exists(namespace: str) -> bool:
    """Whether a network namespace of that name is there."""
    return (NETNS_DIR / namespace).exists()


def names() -> list[str]:
    """All network namespaces that have a name on this machine."""
    return sorted(entry.name for entry in NETNS_DIR.iterdir()) if NETNS_DIR.is_dir() else []


def create(namespace: str) -> None:
    """Make a namespace with its loopback up; no error when it is there already."""
    if not exists(namespace):
        run(["ip", "netns", "add", namespace])
    run(["ip", "-n", namespace, "link", "set", "lo", "up"])


def delete(namespace: str) -> None:
    """Remove the name; the namespace itself ends with its last process. No error when it is gone already."""
    if exists(namespace):
        run(["ip", "netns", "del", namespace], tolerate=True)


def ip_batch(namespace: str, lines: Sequence[str], *, force: bool = False) -> None:
    """Run several `ip` commands inside a namespace in one process; `force` goes on past the ones that fail."""
    if lines:
        command = ["ip", "-n", namespace, *(["-force"] if force else []), "-batch", "-"]
        run(command, "\n".join(lines) + "\n", tolerate=force)


def inside(namespace: str, command: Sequence[str]) -> list[str]:
    """The command line that runs `command` in a network namespace and shares everything else with this shell."""
    return ["nsenter", f"--net={NETNS_DIR / namespace}", *command]
