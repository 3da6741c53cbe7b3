"""Ground truth: which QEMUs there are, and whether their CPUs run. Asked of /proc and of each QEMU itself.

Never of virtward, virsh or libvirt. Connections to the monitors stay open, so a sample costs a few milliseconds. A
QEMU that stands still (SIGSTOP) goes on where it was when it is woken: it counts as one whose CPUs may run if they
did.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from msgspec import Struct

from lab import manifest, processes
from lab.errors import LaboratoryError
from lab.qmp import Monitor, MonitorClosedError

ANSWER_TIMEOUT_S = 0.25
_NAME = re.compile(r"(?:^|,)guest=([^,]+)")
_QEMU = re.compile(r"qemu-(?:system|kvm)")


class Cpus(StrEnum):
    """What the CPUs of a QEMU do."""

    RUNNING = "running"
    PAUSED = "paused"
    INCOMING = "incoming"
    FINISHED = "finished"  # the source after its last pass
    STOPPED = "stopped"  # the process itself stands still, or its guest has powered off


class Qemu(Struct, frozen=True):
    """One QEMU as it is."""

    host: str
    pid: int
    uuid: str
    cpus: Cpus
    may_run: bool  # its CPUs run, or will when the frozen process is woken


class Sample(Struct, frozen=True):
    """Everything that was seen in one look."""

    at_s: float  # UNIX time
    vms: dict[str, list[Qemu]]


_WORDS = {
    "running": Cpus.RUNNING,
    "inmigrate": Cpus.INCOMING,
    "postmigrate": Cpus.FINISHED,
    "finish-migrate": Cpus.FINISHED,
    "shutdown": Cpus.STOPPED,
}

_EVENTS = {"RESUME": Cpus.RUNNING, "STOP": Cpus.PAUSED}


def twice(sample: Sample) -> list[str]:
    """Names of the VMs of which more than one QEMU's CPUs may run. Must always be empty."""
    return sorted(name for name, qemus in sample.vms.items() if sum(qemu.may_run for qemu in qemus) > 1)


class _Known(Struct):
    """What is remembered of one QEMU between two samples."""

    identity: processes.ProcessId
    host: str
    name: str
    uuid: str
    monitor: Monitor | None = None
    last: Cpus = Cpus.PAUSED  # libvirt starts every QEMU with its CPUs stopped
    has_monitor: bool = True
    was_asked: bool = False
    arrived: bool = False  # by migration: until its first word it is no more than half a copy


class GroundTruth:
    """Looks at all QEMUs of one laboratory. `privates`: host name to the directory it sees as PRIVATE_DIR."""

    def __init__(self, privates: Mapping[str, Path], pid_namespaces: Mapping[str, int]) -> None:
        self._privates = dict(privates)
        self._hosts = {inode: host for host, inode in pid_namespaces.items()}
        self._known: dict[int, _Known] = {}
        self._foreign: set[int] = set()

    def follow(self, pid_namespaces: Mapping[str, int]) -> None:
        """Hosts boot and die: tell which pid namespace is whose now."""
        hosts = {inode: host for host, inode in pid_namespaces.items()}
        if hosts != self._hosts:
            self._hosts = hosts
            self._foreign.clear()

    def sample(self) -> Sample:
        """Look once."""
        pids = processes.all_pids()
        self._forget_dead(set(pids))
        for pid in pids:
            if pid not in self._known and pid not in self._foreign:
                self._examine(pid)
        vms: dict[str, list[Qemu]] = {}
        for known in sorted(self._known.values(), key=lambda each: (each.name, each.host, each.identity.pid)):
            qemu = self._look(known)
            if qemu is not None:
                vms.setdefault(known.name, []).append(qemu)
        return Sample(time.time(), vms)

    def _forget_dead(self, pids: set[int]) -> None:
        for pid in [pid for pid in self._known if pid not in pids]:
            self._forget(pid)
        self._foreign &= pids

    def _forget(self, pid: int) -> None:
        known = self._known.pop(pid)
        if known.monitor is not None:
            known.monitor.close()

    def _examine(self, pid: int) -> None:
        """Take up a QEMU of one of our hosts; a process outside them is never looked at again."""
        namespace = processes.namespace_of(pid, "pid")
        if namespace is None:
            return
        host = self._hosts.get(namespace)
        if host is None:
            self._foreign.add(pid)
            return
        words = _command_line(pid)
        identity = processes.identify(pid)
        if not words or identity is None or not _QEMU.search(Path(words[0]).name):
            return
        found = _NAME.search(_after(words, "-name"))
        if found:
            has_monitor = any("id=truth" in word for word in words)
            last = Cpus.PAUSED if has_monitor else Cpus.RUNNING
            known = _Known(identity, host, found.group(1), _after(words, "-uuid"), None, last, has_monitor)
            known.arrived = "-incoming" in words
            self._known[pid] = known

    def _look(self, known: _Known) -> Qemu | None:
        pid = known.identity.pid
        state = processes.state_of(pid)
        if state in (None, "Z", "X") or processes.identify(pid) != known.identity:
            self._forget(pid)
            return None
        if state == "T":
            return Qemu(known.host, pid, known.uuid, Cpus.STOPPED, self._would_run(known))
        if known.has_monitor:
            known.last = self._ask(known)
        return Qemu(known.host, pid, known.uuid, known.last, known.last is Cpus.RUNNING)

    def _would_run(self, known: _Known) -> bool:
        """Whether a QEMU that stands still runs its CPUs when woken: its last word, or the worse case without one."""
        if not known.was_asked:
            return not known.arrived
        for event in known.monitor.waiting_events() if known.monitor is not None else ():
            known.last = _EVENTS.get(event, known.last)
        return known.last is Cpus.RUNNING

    def _ask(self, known: _Known) -> Cpus:
        """The QEMU's own word; without an answer, the last one: a QEMU that says nothing has not stopped."""
        path = self._privates[known.host] / manifest.monitor_socket(known.name)
        try:
            if known.monitor is None:
                known.monitor = Monitor(path, ANSWER_TIMEOUT_S)
            status = known.monitor.ask("query-status", timeout_s=ANSWER_TIMEOUT_S)
        except MonitorClosedError:
            if known.monitor is not None:
                known.monitor.close()
                known.monitor = None
            return known.last
        except LaboratoryError:
            return known.last
        known.was_asked = True
        word = status.get("status") if isinstance(status, dict) else None
        return _WORDS.get(str(word), Cpus.PAUSED)

    def close(self) -> None:
        """Close every connection."""
        for pid in list(self._known):
            self._forget(pid)


def _command_line(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def _after(words: Sequence[str], option: str) -> str:
    """The word after an option, or nothing."""
    return words[words.index(option) + 1] if option in words[:-1] else ""
