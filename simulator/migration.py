"""One live migration as libvirt and the two QEMUs do it, peer-to-peer and PAUSED.

Incoming → Arrived at the target, Running → Finished → gone at the source. The trap of safety.md
("Migration hand-over") is in here: when the target's answer to Finish is lost, libvirt lets the
source run again after its keepalive, while a complete copy waits at the target. Knows no orders.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING

from agent.keeper_types import MigrationMoved
from agent.wall import Way
from fleet.model import EndReason, Plane, QemuState
from simulator.results import DONE, Result
from simulator.truth import Qemu

if TYPE_CHECKING:
    from simulator.host import Host

STALL_S_MAX = 30.0
REPLY_LOST_S = 25.0
LOOK_S = 0.5
RATE_BYTES_PER_S = 100 * 1024 * 1024


class Phase(StrEnum):
    CONNECTING = "Connecting"
    TRANSFERRING = "Transferring"
    FINISHING = "Finishing"
    OVER = "Over"


class MigrationJob:
    """Driven by the source's libvirtd; `reply` gets the result of the migrate call."""

    def __init__(self, source: Host, target: Host | None, qemu: Qemu, reply: Callable[[Result], None]) -> None:
        self.source = source
        self.target = target
        self.qemu = qemu
        self.copy: Qemu | None = None
        self.phase = Phase.CONNECTING
        self._reply = reply
        self._left_s = source.random.uniform(0.6, 2.5)
        self._stalled_s = 0.0
        self._passes = 0
        self.auto_converges = False
        self.keeps_definition = False  # the source's, for whoever reads there how it ended

    def start(self) -> None:
        self._next(self.source.random.uniform(0.15, 0.4), self._connect)

    def abort(self) -> bool:
        """End the job if it has not passed the point of no return."""
        if self.phase in (Phase.FINISHING, Phase.OVER):
            return False
        self._fail("OPERATION_ABORTED", "migration job: canceled by client")
        return True

    def libvirtd_died(self, host: Host) -> None:
        """One end's libvirtd was killed, or the host with it."""
        if self.phase is Phase.OVER or self.target is None:
            return
        if host is self.target:
            if self.phase is Phase.FINISHING:
                return  # the source finds out by waiting for the answer
            self.target = host if host.power_on else None
            self._next(0.2 if host.power_on else STALL_S_MAX, self._target_lost)
            return
        # The source's libvirtd is gone: nobody drives the job. A copy that is not complete is ended
        # by the target's libvirtd; a complete one and a finished source wait for somebody who asks.
        finishing, self.phase = self.phase is Phase.FINISHING, Phase.OVER
        copy, target = self.copy, self.target
        target.hypervisor.incoming.pop(self.qemu.uuid, None)
        if copy is not None and not (finishing and copy.state is QemuState.ARRIVED):
            delay = 0.2 if host.power_on else STALL_S_MAX
            target.hypervisor.later(delay, lambda: _end_incoming(target, copy))
        if finishing and self.qemu in self.source.qemus.values() and host.power_on:
            self.source.agent.domain_event(self.qemu.uuid)

    # --- steps

    def _next(self, delay_s: float, step: Callable[[], None]) -> None:
        def run() -> None:
            if self.phase is not Phase.OVER and self.source.hypervisor.alive:
                self.source.hypervisor.when_running(step)

        self.source.world.queue.after(delay_s, run)

    def _target_lost(self) -> None:
        self._fail("MIGRATION_FAILED", "lost the connection to the target's libvirtd")

    def _connect(self) -> None:
        source, target = self.source, self.target
        uuid = self.qemu.uuid
        if target is None or not target.power_on or not target.hypervisor.alive:
            return self._fail("CANNOT_CONNECT", "cannot connect to the target's libvirtd")
        if not target.hypervisor.answers or not source.reaches(target, Plane.MIGRATION):
            return self._stall(self._connect, "the target's libvirtd does not answer")
        if uuid in target.qemus or target.lacks_disk(uuid):
            return self._fail("MIGRATION_FAILED", "the target refuses: domain is already active, or its disk is gone")
        if not target.may_begin(uuid, Way.INCOMING):
            return self._fail("MIGRATION_FAILED", "virtward: it is managed and may not arrive on the target")
        self.copy = target.new_qemu(uuid, QemuState.INCOMING)
        target.hypervisor.incoming[uuid] = self
        self.phase = Phase.TRANSFERRING
        self._next(min(LOOK_S, self._left_s), self._transfer)
        return None

    def _transfer(self) -> None:
        target, copy = self.target, self.copy
        if self.qemu.process not in self.source.processes():
            return self._fail("MIGRATION_FAILED", "the domain is gone")
        if target is None or copy is None or copy.process not in target.processes():
            return self._fail("MIGRATION_FAILED", "the incoming half is gone")
        if self.qemu.frozen or copy.frozen or not self.source.reaches(target, Plane.MIGRATION):
            return self._stall(self._transfer, "no progress")
        self._stalled_s = 0.0
        if self.qemu.writes:
            self._pass_again()
        else:
            self._left_s -= LOOK_S
        if self._left_s > 0:
            return self._next(min(LOOK_S, self._left_s), self._transfer)
        truth = self.source.world.truth
        self.phase = Phase.FINISHING
        truth.becomes(self.qemu, QemuState.FINISHED, "migration")
        truth.becomes(copy, QemuState.ARRIVED, "migration")
        self.source.agent.domain_event(self.qemu.uuid)
        target.agent.domain_event(self.qemu.uuid)
        return self._next(self.source.random.uniform(0.05, 0.2), self._finish)

    def _pass_again(self) -> None:
        """Tell of one more pass over a guest that writes as fast as the link takes it, slowed down where it may be."""
        self._passes += 1
        throttled = min(99, 10 * (self._passes // 2)) if self.auto_converges else 0
        self._left_s -= LOOK_S * throttled / 100
        left = int(self._left_s * RATE_BYTES_PER_S)
        self.source.agent.give(
            MigrationMoved(
                uuid=self.qemu.uuid,
                percent=0.0,
                remaining_bytes=left,
                rate_bytes_per_s=RATE_BYTES_PER_S,
                total_bytes=left,
                dirty_bytes_per_s=RATE_BYTES_PER_S * (100 - throttled) // 100,
                iteration=self._passes,
                throttle_percent=throttled,
            )
        )

    def _finish(self) -> None:
        """Ask the target to finish; end the source only when its answer is here."""
        source, target = self.source, self.target
        if target is not None and target.hypervisor.answers and source.reaches(target, Plane.MIGRATION):
            uuid = self.qemu.uuid
            definition = source.definitions.get(uuid)
            if not self.keeps_definition:
                source.definitions.pop(uuid, None)
            if definition is not None:
                target.definitions[uuid] = definition
                target.agent.definition_changed(definition)
            self._over()
            if self.qemu.process in source.processes():
                source.end_qemu(self.qemu, EndReason.MIGRATED, "migrated")
            target.agent.domain_event(uuid)
            hypervisor = source.hypervisor
            hypervisor.later(source.random.uniform(1.0, 1.8), lambda: self._reply(DONE))
            return
        self._stalled_s += LOOK_S
        if self._stalled_s < REPLY_LOST_S:
            self._next(LOOK_S, self._finish)
            return
        self._fail("MIGRATION_FAILED", "migration canceled: the target does not answer")

    def _stall(self, again: Callable[[], None], message: str) -> None:
        self._stalled_s += LOOK_S
        if self._stalled_s >= STALL_S_MAX:
            self._fail("MIGRATION_FAILED", message)
        else:
            self._next(LOOK_S, again)

    def _over(self) -> None:
        self.phase = Phase.OVER
        uuid = self.qemu.uuid
        self.source.hypervisor.outgoing.pop(uuid, None)
        if self.target is not None and self.target.hypervisor.incoming.get(uuid) is self:
            del self.target.hypervisor.incoming[uuid]

    def _fail(self, code: str, message: str) -> None:
        """libvirt gives up: the source runs on (this is the trap), an incomplete copy is ended."""
        target, copy = self.target, self.copy
        self._over()
        if self.qemu.process in self.source.processes() and self.qemu.state is QemuState.FINISHED:
            self.source.world.truth.becomes(self.qemu, QemuState.RUNNING, "migration canceled")
        self.source.agent.domain_event(self.qemu.uuid)
        if target is not None and copy is not None and target.hypervisor.alive:
            target.hypervisor.later(0.1, lambda: _end_incoming(target, copy))
        self._reply(Result(ok=False, code=code, message=message))


def _end_incoming(target: Host, copy: Qemu) -> None:
    if copy.process in target.processes() and copy.state is QemuState.INCOMING:
        target.end_qemu(copy, EndReason.CRASHED, "migration failed")
