"""What is really so: every QEMU that lives, on which host, and whether its CPUs may run.

The product never sees this; checkers and summaries read it. Knows no orders, epochs or sessions.
"""

from __future__ import annotations

from collections.abc import Callable

from fleet.model import EndReason, QemuState

CPUS_MAY_RUN = (QemuState.RUNNING,)


class Qemu:
    """One QEMU process. `process` names it; two processes never share a name."""

    __slots__ = (
        "frozen",
        "host",
        "hung",
        "io_error",
        "killed",
        "process",
        "reason",
        "state",
        "stays",
        "uuid",
        "vm",
        "writes",
    )

    def __init__(self, uuid: str, vm: str, host: str, process: str, state: QemuState) -> None:
        self.uuid = uuid
        self.vm = vm
        self.host = host
        self.process = process
        self.state = state
        self.frozen = False  # SIGSTOP, or its host is frozen: it may go on at any time
        self.hung = False  # the guest does nothing about a power button
        self.io_error = False
        self.stays = False  # it hangs in the kernel: SIGKILL ends it only when its storage is back
        self.killed = False  # and was sent to it
        self.writes = False  # its memory, faster than any link takes it
        self.reason = ""


class VmTruth:
    """The lives of one VM."""

    __slots__ = ("down_s", "down_since", "qemus", "starts", "uuid", "vm")

    def __init__(self, uuid: str, vm: str) -> None:
        self.uuid = uuid
        self.vm = vm
        self.qemus: list[Qemu] = []
        self.starts = 0  # QEMUs that virtward's orders created after 0 s
        self.down_s = 0.0
        self.down_since: float | None = None

    def running(self) -> list[Qemu]:
        """QEMUs whose CPUs may run; a frozen one may go on, so it counts."""
        return [qemu for qemu in self.qemus if qemu.state in CPUS_MAY_RUN]

    def counting(self) -> bool:
        return any(not qemu.frozen for qemu in self.qemus if qemu.state in CPUS_MAY_RUN)


Watcher = Callable[[VmTruth, str], None]


class Truth:
    """All QEMUs of the world; watchers are called after every change with its reason."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.vms: dict[str, VmTruth] = {}
        self.watchers: list[Watcher] = []
        self._processes = 0

    def vm(self, uuid: str, name: str = "") -> VmTruth:
        if uuid not in self.vms:
            self.vms[uuid] = VmTruth(uuid, name or uuid)
            self.vms[uuid].down_since = self._now()
        return self.vms[uuid]

    def by_name(self, name: str) -> VmTruth | None:
        return next((vm for vm in self.vms.values() if vm.vm == name), None)

    def born(self, uuid: str, vm: str, host: str, state: QemuState) -> Qemu:
        """A new QEMU process."""
        self._processes += 1
        qemu = Qemu(uuid, vm, host, f"qemu-{self._processes}", state)
        record = self.vm(uuid, vm)
        record.qemus.append(qemu)
        if state is QemuState.RUNNING and self._now() >= 0:
            record.starts += 1
        self._changed(record, f"QEMU on {host} is {state}")
        return qemu

    def becomes(self, qemu: Qemu, state: QemuState, reason: str = "") -> None:
        qemu.state = state
        qemu.reason = reason
        self._changed(self.vms[qemu.uuid], f"QEMU on {qemu.host} becomes {state}")

    def freezes(self, qemu: Qemu, *, frozen: bool) -> None:
        qemu.frozen = frozen
        self._changed(self.vms[qemu.uuid], f"QEMU on {qemu.host} {'freezes' if frozen else 'goes on'}")

    def dies(self, qemu: Qemu, end: EndReason) -> None:
        record = self.vms[qemu.uuid]
        record.qemus.remove(qemu)
        self._changed(record, f"QEMU on {qemu.host} is gone ({end or 'power'})")

    def _changed(self, record: VmTruth, why: str) -> None:
        now = self._now()
        if record.counting():
            if record.down_since is not None:
                record.down_s += max(0.0, now - max(0.0, record.down_since))
                record.down_since = None
        elif record.down_since is None:
            record.down_since = now
        for watch in self.watchers:
            watch(record, why)

    def downtime_s(self, record: VmTruth) -> float:
        """Seconds since 0 s in which the VM did not count, the time until now included."""
        if record.down_since is None:
            return record.down_s
        return record.down_s + max(0.0, self._now() - max(0.0, record.down_since))
