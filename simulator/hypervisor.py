"""libvirtd of one host: carries out deeds with drawn durations, and may die or freeze.

Durations follow the measurements in the field notes. A call outlives the agent that made it; a
frozen libvirtd performs what it was sent when it goes on; QEMUs outlive libvirtd. Migration has
a file of its own. Knows nothing of orders: that is the keeper's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import structs

from agent.keeper_types import (
    AWAY_ALIVE,
    AWAY_GONE,
    AWAY_MIGRATED,
    AWAY_MOVING,
    CODE_NOT_FOUND,
    CODE_NOT_PAUSED,
    CODE_NOT_RUNNING,
    CODE_UNKNOWN,
    AbortJob,
    AnyDeed,
    AskShutdown,
    AskState,
    Create,
    Define,
    Destroy,
    DestroyIncoming,
    Elsewhere,
    Migrate,
    Resume,
    Screenshot,
    SetDowntime,
    Suspend,
    Undefine,
    VmObservation,
)
from agent.pictures import SIGNATURE
from agent.wall import Way
from fleet.model import Definition, Disk, EndReason, Plane, QemuState
from simulator.migration import MigrationJob
from simulator.plan import STORAGE
from simulator.process import Process
from simulator.results import DONE, Result
from simulator.truth import Qemu

if TYPE_CHECKING:
    from simulator.host import Host

CODE_NO_CONNECTION = "NO_CONNECTION"  # libvirtd was not there: nothing was begun
CODE_INVALID = "OPERATION_INVALID"
CODE_STORAGE = "STORAGE"
CODE_HOOK = "LIBVIRT_HOOK_SCRIPT_FAILED"
KEEPALIVE_S = 4.0


Reply = Callable[[Result], None]


class HypervisorCall:
    """A deed that a client waits for. The reply is given once; the deed may outlive it."""

    def __init__(self, uuid: str, vm: str, deed: AnyDeed, reply: Reply) -> None:
        self.uuid = uuid
        self.vm = vm
        self.deed = deed
        self._reply: Reply | None = reply

    def answer(self, result: Result) -> None:
        if self._reply is not None:
            reply, self._reply = self._reply, None
            reply(result)


class Hypervisor(Process):
    """One libvirtd. Definitions lie on the host's disk, QEMUs in its process table."""

    def __init__(self, host: Host) -> None:
        super().__init__(host.world.queue)
        self.host = host
        self.ends: dict[str, tuple[EndReason, str]] = {}  # why the last QEMU ended, while libvirtd lives
        self.creating: dict[str, int] = {}
        self.create_hangs_s = 0.0
        self.outgoing: dict[str, MigrationJob] = {}
        self.incoming: dict[str, MigrationJob] = {}
        self._calls: list[HypervisorCall] = []

    # --- its life

    def start(self) -> None:
        if self.alive:
            return
        self.begin_life()
        self.later(0.15, self._look_around)

    def _look_around(self) -> None:
        """After a start: incoming halves nobody sends to any more are ended; clients reconnect."""
        for qemu in list(self.host.qemus.values()):
            if qemu.state is QemuState.INCOMING and qemu.uuid not in self.incoming:
                self.host.end_qemu(qemu, EndReason.CRASHED, "migration lost")
        self.host.agent.look_soon()

    def kill(self) -> None:
        """SIGKILL: its clients see the connection close, its QEMUs live on."""
        if not self.alive:
            return
        self.end_life()
        self.ends.clear()
        self.creating.clear()
        for job in [*self.outgoing.values(), *self.incoming.values()]:
            job.libvirtd_died(self.host)
        self.outgoing.clear()
        self.incoming.clear()
        self._break_calls("connection to libvirt lost")

    def pause(self, why: str = "itself") -> None:
        super().pause(why)
        self.queue.after(KEEPALIVE_S, lambda: self._keepalive_over(self.life))

    def _keepalive_over(self, life: int) -> None:
        if self.paused and self.life == life:
            self._break_calls("keepalive timeout")

    def _break_calls(self, message: str) -> None:
        calls, self._calls = self._calls, []
        for call in calls:
            call.answer(Result(ok=False, code=CODE_UNKNOWN, message=message))

    # --- what it shows

    def observe(self, uuid: str) -> VmObservation:
        """Look at one VM as a client sees it."""
        definition = self.host.definitions.get(uuid)
        qemu = self.host.qemus.get(uuid)
        vm = self.host.world.vms[uuid]
        if qemu is None:
            end, reason = self.ends.get(uuid, (EndReason.NOT_ENDED, ""))
            return VmObservation(
                uuid=uuid,
                name=vm.name,
                state=QemuState.GONE,
                reason=reason,
                end=end,
                defined=definition is not None,
                definition_hash=definition.hash if definition else "",
            )
        shown = QemuState.PAUSED if qemu.state is QemuState.ARRIVED else qemu.state
        return VmObservation(
            uuid=uuid,
            name=vm.name,
            state=shown,
            qemu=qemu.process,
            reason=qemu.reason,
            defined=definition is not None,
            paused_on_io_error=qemu.io_error,
            definition_hash=definition.hash if definition else "",
            cpu_m=vm.cpu_m,
            memory_bytes=vm.memory_bytes,
            busy="migration" if uuid in self.outgoing or uuid in self.incoming else "",
        )

    def observe_all(self) -> tuple[VmObservation, ...]:
        known = sorted(self.host.qemus.keys() | self.host.definitions.keys())
        return tuple(self.observe(uuid) for uuid in known)

    # --- what it does

    def begin(self, call: HypervisorCall) -> None:
        """Take a call; its reply comes once, whatever becomes of the deed."""
        if not self.alive:
            self.queue.after(
                0.003, lambda: call.answer(Result(ok=False, code=CODE_NO_CONNECTION, message="libvirtd is not running"))
            )
            return
        self._calls.append(call)
        if self.paused:
            life = self.life
            self.queue.after(KEEPALIVE_S, lambda: self._keepalive_over(life))
        draw = self.host.random.uniform
        deed = call.deed
        if isinstance(deed, Elsewhere):
            self._elsewhere(call, deed)
            return
        if isinstance(deed, AskState | Screenshot):
            self.later(draw(0.002, 0.01), lambda: self.finish(call, self._told(call)))
            return
        match deed:
            case Create():
                self.creating[call.uuid] = self.creating.get(call.uuid, 0) + 1
                self.later(draw(0.08, 0.45) + self.create_hangs_s, lambda: self._create(call))
            case Define(xml=xml):
                self.later(draw(0.02, 0.06), lambda: self._define(call, xml))
            case Undefine():
                self.later(draw(0.01, 0.05), lambda: self._undefine(call))
            case Migrate():
                self.later(draw(0.05, 0.1), lambda: self._migrate(call, deed))
            case AbortJob():
                self.later(draw(0.02, 0.3), lambda: self._abort(call))
            case Destroy() | DestroyIncoming():
                qemu = self.host.qemus.get(call.uuid)
                slow = qemu is not None and (qemu.frozen or qemu.stays)
                self.later(10.2 if slow else draw(0.1, 0.3), lambda: self._destroy(call))
            case AskShutdown() | Suspend() | Resume() | SetDowntime():
                self.later(draw(0.005, 0.03), lambda: self._press(call))

    def _told(self, call: HypervisorCall) -> Result:
        """Return what a question gets that changes nothing."""
        if isinstance(call.deed, Screenshot):
            return Result(ok=True, picture=SIGNATURE)
        return Result(ok=True, code=self._away(call.uuid))

    def _elsewhere(self, call: HypervisorCall, deed: Elsewhere) -> None:
        """Hand a deed to another host's libvirtd, over the network there and back."""
        there = self.host.world.hosts.get(deed.uri.removeprefix("sim://"))
        if there is None or f"uuid-{there.name}{there.machine}" != deed.host_uuid:
            return self._fail(call, "OTHER_HOST", "that is another machine")
        if not there.hypervisor.alive or not self.host.reaches(there, Plane.MIGRATION):
            self.later(0.5, lambda: self._fail(call, "LIBVIRT_DOWN", f"{there.name} does not answer"))
            return None

        def back(result: Result) -> None:
            heard = self.host.reaches(there, Plane.MIGRATION)
            lost = Result(ok=False, code=CODE_UNKNOWN, message="keepalive timeout")
            self.later(0.002 if heard else KEEPALIVE_S, lambda: self.finish(call, result if heard else lost))

        there.hypervisor.begin(HypervisorCall(call.uuid, call.vm, deed.deed, back))
        return None

    def _away(self, uuid: str) -> str:
        qemu = self.host.qemus.get(uuid)
        if qemu is None:
            end, _ = self.ends.get(uuid, (EndReason.NOT_ENDED, ""))
            return AWAY_MIGRATED if end is EndReason.MIGRATED else AWAY_GONE
        moving = uuid in self.outgoing or qemu.state is QemuState.FINISHED
        return AWAY_MOVING if moving else AWAY_ALIVE

    def finish(self, call: HypervisorCall, result: Result) -> None:
        if call in self._calls:
            self._calls.remove(call)
        call.answer(result)

    def _fail(self, call: HypervisorCall, code: str, message: str) -> None:
        self.finish(call, Result(ok=False, code=code, message=message))

    def _define(self, call: HypervisorCall, xml: str) -> None:
        definition = Definition(
            uuid=call.uuid,
            name=call.vm,
            xml=xml,
            hash=f"hash-{len(xml)}-{call.vm}",
            disks=(disk_of(call.vm, self.host.world.vms[call.uuid].storage),),
        )
        self.host.definitions[call.uuid] = definition
        self.finish(call, structs.replace(DONE, definition=definition))

    def _create(self, call: HypervisorCall) -> None:
        left = self.creating[call.uuid] - 1
        if left:
            self.creating[call.uuid] = left
        else:
            del self.creating[call.uuid]
        if call.uuid in self.host.qemus:
            return self._fail(call, CODE_INVALID, "domain is already running")
        if call.uuid not in self.host.definitions:
            return self._fail(call, CODE_NOT_FOUND, "no such domain")
        if not self.host.may_begin(call.uuid, Way.START):
            return self._fail(call, CODE_HOOK, "virtward: it is managed and has no permit to begin on this host")
        if self.host.lacks_disk(call.uuid):
            return self._fail(call, CODE_STORAGE, "cannot open the disk: input/output error")
        self.ends.pop(call.uuid, None)
        self.host.new_qemu(call.uuid, QemuState.RUNNING)
        self.later(self.host.random.uniform(0.005, 0.1), lambda: self.finish(call, DONE))
        return None

    def _undefine(self, call: HypervisorCall) -> None:
        if self.creating.get(call.uuid):  # the domain's job is held
            self.later(0.05, lambda: self._undefine(call))
        elif self.host.definitions.pop(call.uuid, None) is None:
            self._fail(call, CODE_NOT_FOUND, "no such domain")
        else:
            self.finish(call, DONE)
            self.host.agent.domain_event(call.uuid)

    def _migrate(self, call: HypervisorCall, deed: Migrate) -> None:
        qemu = self.host.qemus.get(call.uuid)
        if qemu is None or qemu.state not in (QemuState.RUNNING, QemuState.PAUSED) or call.uuid in self.outgoing:
            return self._fail(call, CODE_INVALID, "domain is not running")
        target = self.host.world.hosts.get(deed.peer_uri.removeprefix("sim://"))
        job = MigrationJob(self.host, target, qemu, lambda result: self.finish(call, result))
        job.auto_converges = deed.auto_converge
        job.keeps_definition = deed.keep_definition
        self.outgoing[call.uuid] = job
        job.start()
        return None

    def _abort(self, call: HypervisorCall) -> None:
        job = self.outgoing.get(call.uuid)
        if job is None or not job.abort():
            return self._fail(call, CODE_INVALID, "no job is active on the domain")
        return self.finish(call, DONE)

    def _destroy(self, call: HypervisorCall) -> None:
        qemu = self.host.qemus.get(call.uuid)
        if qemu is None:
            return self._fail(call, CODE_NOT_RUNNING, "domain is not running")
        if isinstance(call.deed, DestroyIncoming) and qemu.state is QemuState.RUNNING:
            return self._fail(call, CODE_NOT_PAUSED, "the CPUs run")
        if qemu.stays:
            qemu.killed = True
            return self._fail(call, CODE_UNKNOWN, "failed to terminate process: it is in the kernel")
        self.host.end_qemu(qemu, EndReason.DESTROYED, "destroyed")
        return self.finish(call, DONE)

    def _press(self, call: HypervisorCall) -> None:
        """Buttons that take effect at once: shutdown, suspend, resume, a longer pause."""
        qemu = self.host.qemus.get(call.uuid)
        if qemu is None:
            return self._fail(call, CODE_NOT_RUNNING, "domain is not running")
        if qemu.frozen:  # the monitor does not answer
            self.later(1.0, lambda: self._press(call))
            return None
        if isinstance(call.deed, SetDowntime):
            return self.finish(call, DONE)
        truth = self.host.world.truth
        if isinstance(call.deed, AskShutdown):
            self.host.guest_shuts_down(qemu)
        elif isinstance(call.deed, Suspend):
            if qemu.state is QemuState.RUNNING:
                truth.becomes(qemu, QemuState.PAUSED, "user")
        elif qemu.state in (QemuState.PAUSED, QemuState.ARRIVED, QemuState.FINISHED):
            self.host.runs_on(qemu)
            self._keep(call.uuid)
        elif qemu.state is QemuState.INCOMING:
            return self._fail(call, CODE_INVALID, "domain is being migrated in")
        self.host.agent.domain_event(call.uuid)
        return self.finish(call, DONE)

    def _keep(self, uuid: str) -> None:
        """Define a copy whose migration was cut off before libvirt did, as the driver does from the live XML."""
        if uuid not in self.host.definitions:
            found = (host.definitions[uuid] for host in self.host.world.hosts.values() if uuid in host.definitions)
            if (definition := next(found, None)) is not None:
                self.host.definitions[uuid] = definition
                self.host.agent.definition_changed(definition)


def disk_of(vm: str, storage: str = STORAGE) -> Disk:
    """Return the one, shared disk of a simulated VM."""
    return Disk(target="vda", identity=f"{storage}/{vm}", shared=True)


def proc_only(qemus: list[Qemu]) -> tuple[VmObservation, ...]:
    """Return what /proc shows where libvirt is silent."""
    return tuple(
        VmObservation(uuid=qemu.uuid, name=qemu.vm, state=QemuState.UNKNOWN, qemu=qemu.process) for qemu in qemus
    )
