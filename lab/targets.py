"""What start, pause, resume and kill act on: a host, or one process named agent@h1, libvirtd@h1, qemu:VM, aggregator@1.

Nothing comes back by itself: `start` does what systemd would. Knows names and signals; the parts do the rest.
"""

from __future__ import annotations

import re
import signal

from lab import processes
from lab.errors import LaboratoryError
from lab.hosts import SIGNALS, Host
from lab.laboratory import Laboratory

_IN_HOST = re.compile(r"(agent|libvirtd)@(h[1-9][0-9]?)")
_HOST = re.compile(r"h[1-9][0-9]?")
FORMS = "h1, agent@h1, libvirtd@h1, qemu:VM, aggregator@1"


def signal_number(name: str) -> int:
    """TERM, SIGTERM or 15 as a number; LaboratoryError for anything else."""
    if name.isdigit() and int(name) in SIGNALS.values():
        return int(name)
    try:
        return SIGNALS[name.upper().removeprefix("SIG")]
    except KeyError:
        raise LaboratoryError(f"there is no signal {name!r}; use a name such as TERM or a number") from None


def send(laboratory: Laboratory, target: str, number: int) -> None:
    """Signal what `target` names; LaboratoryError when nothing of that name runs."""
    if _HOST.fullmatch(target):
        _send_to_host(laboratory.host(target), number)
        return
    for pid in _pids(laboratory, target):
        processes.send(pid, number)


def _send_to_host(host: Host, number: int) -> None:
    with host.lock():
        if number == signal.SIGSTOP:
            host.freeze()
        else:
            host.signal_all(number)


def _pids(laboratory: Laboratory, target: str) -> list[int]:
    """The processes of a target that is no host; at least one."""
    in_host = _IN_HOST.fullmatch(target)
    if in_host:
        pid = laboratory.host(in_host.group(2)).pid_of(in_host.group(1))
        pids = [] if pid is None else [pid]
    elif target.startswith("qemu:"):
        pids = [qemu.pid for qemu in laboratory.sample().vms.get(target.removeprefix("qemu:"), [])]
    elif target == laboratory.aggregator.role:
        pids = [] if laboratory.aggregator.pid is None else [laboratory.aggregator.pid]
    else:
        raise _unknown(laboratory, target)
    if not pids:
        raise LaboratoryError(f"{target} does not run in laboratory {laboratory.layout.name}")
    return pids


def start(laboratory: Laboratory, target: str) -> None:
    """Start what `target` names again; LaboratoryError when it runs or cannot be started from here."""
    in_host = _IN_HOST.fullmatch(target)
    if _HOST.fullmatch(target):
        laboratory.switch_power(target, on=True)
    elif in_host and in_host.group(1) == "agent":
        _start_agent(laboratory.host(in_host.group(2)))
    elif in_host:
        laboratory.host(in_host.group(2)).start_libvirtd()
    elif target == laboratory.aggregator.role:
        if not (laboratory.aggregator.dir / "aggregator.toml").exists():
            raise LaboratoryError(f"laboratory {laboratory.layout.name} was built without an aggregator (--no-agents)")
        laboratory.aggregator.start()
    elif target.startswith("qemu:"):
        raise LaboratoryError(f"{target} cannot be started from here: a VM is started with `virtward start` or virsh")
    else:
        raise _unknown(laboratory, target)


def _start_agent(host: Host) -> None:
    if not (host.dir / "agent.toml").exists():
        raise LaboratoryError(f"{host.name} has no agent: the laboratory was built with --no-agents")
    host.start_agent()


def _unknown(laboratory: Laboratory, target: str) -> LaboratoryError:
    if target.startswith("etcd@"):
        return LaboratoryError(
            f"laboratory {laboratory.layout.name} has no etcd: its one aggregator keeps its journal in SQLite"
        )
    return LaboratoryError(f"{target!r} is no target; use one of {FORMS}")
