"""The host is being shut down: say so, wait until its guests have left, and ask those that are left to power off.

Run by the unit before the agent is stopped, in a process of its own; a restart of the agent is no shutdown of the host,
and systemd knows which it is. The agent reads what is written here and tells the aggregator, which empties the host.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from agent.deeds import AskShutdown
from agent.proc import scan

FLAG = "host-stopping"
LOOK_EVERY_S = 0.5
GRACE_S = 60.0  # of the time there is, for guests that nobody took
WITHIN_S = 300.0
WITHIN_S_MIN, WITHIN_S_MAX = 1.0, 3600.0
MANAGER_TIMEOUT_S = 5.0
STOPPING = "stopping"  # systemctl(1), is-system-running

Say = Callable[[str], None]
Ask = Callable[[str, AskShutdown], object]


def announced_s(run_dir: Path) -> float:
    """Return how long a shutdown of the host that was begun waits for its guests, in seconds; 0 if none was."""
    try:
        told = float((run_dir / FLAG).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0.0
    return min(max(told, WITHIN_S_MIN), WITHIN_S_MAX)


def host_is_stopping() -> bool:
    """Return whether systemd is shutting this host down. It cannot be told: no, for an agent's restart is common."""
    try:
        found = subprocess.run(
            ["systemctl", "is-system-running"], capture_output=True, text=True, timeout=MANAGER_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return found.stdout.strip() == STOPPING


def empty_host(run_dir: Path, within_s: float, ask: Ask, say: Say) -> bool:
    """Announce the shutdown and wait; return whether no guest is left when it ends, within_s at the latest.

    ask: does a deed to a VM by its uuid.
    """
    until_s = time.monotonic() + within_s
    (run_dir / FLAG).write_text(f"{within_s:g}\n", encoding="ascii")
    before = -1
    asked = False
    while (left := len(scan())) and time.monotonic() < until_s:
        if left != before:
            say(f"the host is being shut down: {left} guests are here")
            before = left
        if not asked and time.monotonic() >= until_s - min(GRACE_S, within_s / 2):
            asked = True
            say(f"{left} guests have not left: they are asked to power off")
            for process in scan():
                ask(process.uuid, AskShutdown())
        time.sleep(LOOK_EVERY_S)
    say(f"{left} guests are left" if left else "no guest is left")
    return not left
