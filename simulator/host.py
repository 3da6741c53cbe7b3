"""One host: power, boots, its process table, its disk, and what its guests do by themselves.

Power off says no goodbye: QEMUs, agent and libvirtd are simply gone, and nothing that waited in
the host's kernel is ever sent. The disk (definitions, the agent's ledger) survives. A frozen
host's kernel lives on, its processes do nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from agent.keeper_types import AnyLedgerRecord, GuestProbed, ProbeGuest
from agent.wall import Forbid, LetGo, Permit, RaiseWall, WallEffect, Way
from fleet.model import BmcIdentity, Definition, EndReason, NodeFacts, Plane, QemuState, StorageReach
from simulator.agent import SimulatedAgent
from simulator.hypervisor import Hypervisor
from simulator.plan import STORAGE
from simulator.truth import Qemu

if TYPE_CHECKING:
    from simulator.clock import LocalClock
    from simulator.plan import NodePlan
    from simulator.world import World

BOOT_S = (6.0, 14.0)
SUPERVISED_S = 2.0
CRASH_BOOT_S = (4.0, 7.0)
DUMP_S = (60.0, 90.0)


class Host:
    """A machine of the world. Starts powered off; `boot` brings it up."""

    def __init__(self, world: World, plan: NodePlan, clock: LocalClock) -> None:
        self.world = world
        self.plan = plan
        self.name = plan.name
        self.clock = clock
        self.random = world.random_of(plan.name)
        self.current = False  # there is electricity: what its fence device reads
        self.power_on = False  # and the machine is up
        self.frozen = False
        self.crash_kernel = False  # it runs, and tells so
        self.storage_gone = False
        self.storage_effect = "pause"
        self.boots = 0
        self.machine = ""  # of another machine in its place: what tells it from the first
        self.power_changes = 0
        self.definitions: dict[str, Definition] = {}
        self.ledger: list[AnyLedgerRecord] = []
        self.permits: dict[str, Permit] = {}  # under /run: every boot begins without one
        self.qemus: dict[str, Qemu] = {}
        self.hypervisor = Hypervisor(self)
        self.agent = SimulatedAgent(self)

    @property
    def boot_id(self) -> str:
        return f"{self.name}-boot-{self.boots}"

    def processes(self) -> list[str]:
        return [qemu.process for qemu in self.qemus.values()]

    def reaches(self, other: Host, plane: Plane) -> bool:
        """Do packets pass both ways between two powered hosts?"""
        return self.power_on and other.power_on and self.world.network.both_ways(self.name, other.name, plane)

    def facts(self) -> NodeFacts:
        """Return what this host's own agent reads about it."""
        bmc = self.world.fences[self.name].wired_as() if ("power",) in self.plan.fencing else ""
        return NodeFacts(
            machine_id=f"machine-{self.name}{self.machine}",
            host_uuid=f"uuid-{self.name}{self.machine}",
            hostname=self.name,
            arch="x86_64",
            cpu_m=self.plan.cpu_m,
            memory_bytes=self.plan.memory_bytes,
            addresses={plane: f"{self.name}.{plane}" for plane in ("control", "migration", "storage")},
            peer_uri=f"sim://{self.name}",
            storages=self._storages(),
            bmc=BmcIdentity(address=f"{bmc}.bmc", guid=f"guid-{bmc}") if bmc else None,
        )

    def _storages(self) -> tuple[StorageReach, ...]:
        """Return what the agent says of the one storage; nothing, while no VM is defined here."""
        if not any(self.world.vms[uuid].storage == STORAGE for uuid in self.definitions):
            return ()
        stuck = self.storage_effect != "pause" and any(self.lacks_disk(uuid) for uuid in self.qemus)
        return (StorageReach(STORAGE, not self.storage_gone, stuck),)

    def set_rate(self, rate: float) -> None:
        """Its clock runs fast or slow from now on."""
        self.agent.quiet.end()
        self.clock.set_rate(rate)

    # --- power

    def boot(self) -> None:
        """The machine is up: libvirtd and the agent start; no guest starts by itself."""
        self.current = self.power_on = True
        self.frozen = False
        self.boots += 1
        self.hypervisor.start()
        self.agent.start()

    def lose_power(self) -> None:
        """Everything on the host is gone at once and says nothing."""
        self.power_changes += 1
        self.current = self.crash_kernel = False
        if not self.power_on:
            return
        self.power_on = False
        self.frozen = False
        self.permits.clear()
        self.agent.lose_power()
        for process in (self.agent, self.hypervisor):
            process.resume("frozen")
        self.hypervisor.kill()
        for qemu in list(self.qemus.values()):
            del self.qemus[qemu.uuid]
            self.world.truth.dies(qemu, EndReason.NOT_ENDED)

    def replace(self) -> None:
        """Another machine with an empty disk is put in its place and switched on."""
        self.lose_power()
        self.machine += "-next"
        self.ledger.clear()
        self.definitions.clear()
        self.permits.clear()
        self.get_power()

    def panic(self) -> None:
        """Its kernel panics: the guests are gone at once, a crash kernel boots, writes its dump, and reboots."""
        if not self.power_on:
            return
        self.lose_power()
        self.current = True
        change = self.power_changes

        def unless_powered_off(deed: Callable[[], None]) -> Callable[[], None]:
            return lambda: deed() if self.power_changes == change else None

        self.world.queue.after(self.random.uniform(*CRASH_BOOT_S), unless_powered_off(self._crash_kernel_speaks))
        self.world.queue.after(self.random.uniform(*DUMP_S), unless_powered_off(self._dump_is_written))

    def _crash_kernel_speaks(self) -> None:
        self.crash_kernel = True

    def _dump_is_written(self) -> None:
        self.crash_kernel = False
        self.boot()

    def get_power(self) -> None:
        """Begin to boot, unless the host is up or loses power again meanwhile."""
        if self.current:
            return
        self.current = True
        self.power_changes += 1
        change = self.power_changes

        def up() -> None:
            if self.power_changes == change and not self.power_on:
                self.boot()

        self.world.queue.after(self.random.uniform(*BOOT_S), up)

    def freeze(self) -> None:
        if not self.power_on or self.frozen:
            return
        self.frozen = True
        for process in (self.agent, self.hypervisor):
            process.pause("frozen")
        for qemu in self.qemus.values():
            self.world.truth.freezes(qemu, frozen=True)

    def thaw(self) -> None:
        if not self.frozen:
            return
        self.frozen = False
        for qemu in self.qemus.values():
            self.world.truth.freezes(qemu, frozen=False)
        for process in (self.hypervisor, self.agent):
            process.resume("frozen")

    def kill_agent(self) -> None:
        self.agent.kill()
        if self.plan.supervised:
            self._back(self.agent.start)

    def kill_libvirtd(self) -> None:
        self.hypervisor.kill()
        if self.plan.supervised:
            self._back(self.hypervisor.start)

    def _back(self, start: Callable[[], None]) -> None:
        """systemd starts it again, unless the host went down meanwhile."""
        changes = self.power_changes

        def run() -> None:
            if self.power_on and self.power_changes == changes:
                start()

        self.world.queue.after(SUPERVISED_S, run)

    # --- QEMUs

    def take(self, effect: WallEffect) -> None:
        """What the agent wrote for libvirt's hook. Every VM of the world is virtward's, so only permits count."""
        match effect:
            case RaiseWall():
                self.permits.clear()
            case Permit(uuid=uuid):
                self.permits[uuid] = effect
            case Forbid(uuid=uuid) | LetGo(uuid=uuid):
                self.permits.pop(uuid, None)

    def may_begin(self, uuid: str, way: Way) -> bool:
        """libvirt's hook is asked, at the moment a QEMU is about to begin."""
        permit = self.permits.get(uuid)
        return permit is not None and permit.way is way and self.clock.now() < permit.until_s

    def new_qemu(self, uuid: str, state: QemuState) -> Qemu:
        qemu = self.world.truth.born(uuid, self.world.vms[uuid].name, self.name, state)
        self.qemus[uuid] = qemu
        self._lies_on_it(qemu)
        self.agent.domain_event(uuid)
        return qemu

    def end_qemu(self, qemu: Qemu, end: EndReason, reason: str = "") -> None:
        """The process is gone; the agent's pidfd tells first, libvirt's event later."""
        if self.qemus.get(qemu.uuid) is not qemu:
            return
        del self.qemus[qemu.uuid]
        if self.hypervisor.alive:
            self.hypervisor.ends[qemu.uuid] = (end, reason)
        self.world.truth.dies(qemu, end)
        self.agent.qemu_gone(qemu)
        self.agent.domain_event(qemu.uuid)

    def guest_shuts_down(self, qemu: Qemu) -> None:
        """The power button was pressed."""
        if not qemu.hung:
            self._later(qemu, self.random.uniform(0.4, 3.0))

    def guest_does(self, qemu: Qemu, what: str) -> None:
        """crash | poweroff | hang | write | rest."""
        if what in ("write", "rest"):
            qemu.writes = what == "write"
            return
        if what == "hang":
            qemu.hung = True
        elif not qemu.frozen:
            end = EndReason.CRASHED if what == "crash" else EndReason.POWEROFF
            self.end_qemu(qemu, end, f"guest {what}")

    def probe_guest(self, asked: ProbeGuest) -> GuestProbed:
        """Ask a guest: one that hangs does not answer, and neither does any while libvirtd or the host stands still."""
        qemu = self.qemus.get(asked.uuid)
        if qemu is None or not self.hypervisor.alive or self.hypervisor.paused:
            return GuestProbed(asked.uuid, asked.kind, asked.number, None, "it cannot be asked")
        good = not qemu.hung and not qemu.frozen
        return GuestProbed(asked.uuid, asked.kind, asked.number, good, "" if good else "no answer")

    def by_hand(self, name: str, does: str) -> None:
        """Do what a person's virsh does here: start | destroy."""
        uuid = next((uuid for uuid, vm in self.world.vms.items() if vm.name == name), "")
        if not self.hypervisor.alive or self.frozen or not uuid:
            return
        qemu = self.qemus.get(uuid)
        if does == "destroy" and qemu is not None:
            self.end_qemu(qemu, EndReason.DESTROYED, "destroyed")
        elif does == "start" and qemu is None:
            known = [host.definitions[uuid] for host in self.world.hosts.values() if uuid in host.definitions]
            self.definitions.setdefault(uuid, known[0])
            self.world.truth.vm(uuid).starts -= 1  # this one is not virtward's
            self.new_qemu(uuid, QemuState.RUNNING)

    def _later(self, qemu: Qemu, delay_s: float) -> None:
        def off() -> None:
            if qemu.frozen:
                self._later(qemu, 1.0)
            elif qemu.state is QemuState.RUNNING:
                self.end_qemu(qemu, EndReason.POWEROFF, "guest shutdown")

        self.world.queue.after(delay_s, off)

    # --- storage

    def set_storage(self, *, gone: bool, qemus: str = "pause") -> None:
        """Take the shared storage away from this host, or give it back.

        qemus: pause (a write fails, and QEMU pauses the guest), hang (writes get no answer), stay (they
        hang in the kernel, and a process that is killed is gone only when the storage is back).
        """
        self.storage_gone = gone
        self.storage_effect = qemus
        for qemu in list(self.qemus.values()):
            self._lies_on_it(qemu)
            if not gone and qemu.killed:
                self.end_qemu(qemu, EndReason.DESTROYED, "destroyed")
        self.agent.storage_changed()

    def lacks_disk(self, uuid: str) -> bool:
        return self.storage_gone and self.world.vms[uuid].storage == STORAGE

    def _lies_on_it(self, qemu: Qemu) -> None:
        lacks = self.lacks_disk(qemu.uuid)
        qemu.stays = lacks and self.storage_effect == "stay"
        if lacks and self.storage_effect == "pause":
            self._io_error(qemu)

    def runs_on(self, qemu: Qemu) -> None:
        """A guest that was paused runs; without its storage not for long."""
        qemu.io_error = False
        self.world.truth.becomes(qemu, QemuState.RUNNING)
        self._lies_on_it(qemu)

    def _io_error(self, qemu: Qemu) -> None:
        def stop() -> None:
            if self.storage_gone and self.qemus.get(qemu.uuid) is qemu and qemu.state is QemuState.RUNNING:
                qemu.io_error = True
                self.world.truth.becomes(qemu, QemuState.PAUSED, "ioerror")
                self.agent.domain_event(qemu.uuid)

        self.world.queue.after(self.random.uniform(1.0, 5.0), stop)
