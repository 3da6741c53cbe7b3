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
BY_UNIT = "unit"  # stands behind the time where no person began it
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
        told = float(_words(run_dir)[0])
    except (OSError, ValueError, IndexError):
        return 0.0
    return min(max(told, WITHIN_S_MIN), WITHIN_S_MAX)


def forget_past(run_dir: Path) -> None:
    """Take back what the unit announced: nothing is started while a host stops, so an agent that starts is past it.

    A reboot empties run_dir; one of user space alone (`systemctl soft-reboot`) does not. What a person began stays.
    """
    try:
        if _words(run_dir)[1:] == [BY_UNIT]:
            (run_dir / FLAG).unlink()
    except (OSError, ValueError):
        return


def _words(run_dir: Path) -> list[str]:
    return (run_dir / FLAG).read_text(encoding="ascii").split()


def host_is_stopping() -> bool:
    """Return whether systemd is shutting this host down. It cannot be told: no, for an agent's restart is common."""
    try:
        found = subprocess.run(
            ["systemctl", "is-system-running"], capture_output=True, text=True, timeout=MANAGER_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return found.stdout.strip() == STOPPING


def empty_host(run_dir: Path, within_s: float, ask: Ask, say: Say, *, by_unit: bool = False) -> bool:
    """Announce the shutdown and wait; return whether no guest is left when it ends, within_s at the latest.

    ask: does a deed to a VM by its uuid. by_unit: the announcement ends with this run of the host.
    """
    until_s = time.monotonic() + within_s
    (run_dir / FLAG).write_text(f"{within_s:g}{f' {BY_UNIT}' if by_unit else ''}\n", encoding="ascii")
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
