"""The checks on ground truth: what must never be (safety.md, invariants) and what must come at last.

S1 after every change of any QEMU; S2, S3, S6 and S10 where a decision becomes durable, against
what is really so in the world; S14 when the faults are over. The core's own invariants, once
they stand in one module, are called from here too. A violation is recorded, never raised.
"""

from __future__ import annotations

from msgspec import Struct

from agent.memory import recall
from aggregator.core import events as ev
from aggregator.core.events import Event, VmPhase
from aggregator.core.lookups import wants_run
from aggregator.core.phases import may_follow
from aggregator.core.policy import lost_nodes_max
from aggregator.core.state import State, VmRecord
from fleet.model import QemuState
from simulator.leader_checks import LeaderChecks
from simulator.truth import VmTruth
from simulator.world import World

MAY_WAIT = (QemuState.INCOMING, QemuState.ARRIVED, QemuState.FINISHED)


class Violation(Struct, frozen=True):
    """t: world seconds."""

    t: float
    invariant: str
    text: str


class Checkers:
    """Watches one world. `violations` holds at most one of a kind per VM or node."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.violations: list[Violation] = []
        self._said: dict[tuple[str, str], bool] = {}
        self._shot: dict[str, float] = {}
        self._epochs: dict[str, int] = {}
        self._phases: dict[str, VmPhase] = {}
        world.truth.watchers.append(self.qemu_changed)
        world.on_commit.append(self.committed)
        world.on_roll_back.append(self.rolled_back)
        self.leaders = LeaderChecks(world, self.violated)

    def violated(self, invariant: str, about: str, text: str) -> None:
        if (invariant, about) not in self._said:
            self._said[invariant, about] = True
            self.violations.append(Violation(self.world.queue.now, invariant, text))

    # --- at every step

    def qemu_changed(self, vm: VmTruth, why: str) -> None:
        """S1: of each VM at most one QEMU whose CPUs may run. A frozen one may go on at any time."""
        running = vm.running()
        if len(running) > 1:
            hosts = " and ".join(sorted(qemu.host for qemu in running))
            self.violated("S1", vm.vm, f"{vm.vm} runs on {hosts}: {why}")

    def committed(self, event: Event, state: State) -> None:
        """Judge a decision the moment it is durable, by what is really so."""
        if isinstance(event, ev.StartDecided):
            self._start_decided(event, state)
        elif isinstance(event, ev.FenceAsked) and event.question == "off":
            self._off_ordered(event, state)
        elif isinstance(event, ev.VmPhaseChanged):
            self._phase_changed(event)
        elif isinstance(event, ev.VmRemoved):
            self._phases.pop(event.vm, None)

    def rolled_back(self) -> None:
        """What was decided and is forgotten binds nobody, but for epochs that an agent has obeyed."""
        self._phases.clear()
        self._shot.clear()
        self._epochs = {
            name: max(
                (
                    promise.epoch
                    for host in self.world.hosts.values()
                    if (promise := recall(host.ledger).promises.get(uuid))
                ),
                default=0,
            )
            for uuid, name in ((vm.uuid, vm.name) for vm in self.world.vms.values())
        }

    def _start_decided(self, event: ev.StartDecided, state: State) -> None:
        vm = state.vms.get(event.vm)
        if vm is None:
            return
        truth = self.world.truth.vm(vm.uuid)
        for qemu in truth.qemus:
            self.violated(
                "S2", event.vm, f"{event.vm} is ordered to start on {event.node} while {qemu.host} has it {qemu.state}"
            )
        for host in self.world.hosts.values():
            if host.power_on and host.hypervisor.creating.get(vm.uuid):
                self.violated(
                    "S2", event.vm, f"{event.vm} is ordered to start on {event.node} while {host.name} creates it"
                )
        if event.epoch <= self._epochs.get(event.vm, 0):
            self.violated("S3", event.vm, f"{event.vm} is started at epoch {event.epoch}, which is not new")
        self._epochs[event.vm] = event.epoch
        self._check_room(event, state)

    def _check_room(self, event: ev.StartDecided, state: State) -> None:
        """S10, as far as numbers go: what is placed on a node fits into it."""
        node = state.nodes[event.node]
        if node.facts is None:
            return
        here = [vm for vm in state.vms.values() if any(b.node == event.node for b in vm.bindings)]
        if sum(vm.memory_bytes for vm in here) > node.facts.memory_bytes * state.config.overcommit.memory:
            self.violated("S10", event.node, f"{event.vm} does not fit into {event.node}'s memory")

    def _off_ordered(self, event: ev.FenceAsked, state: State) -> None:
        """S6: nobody is shot beyond the brake, but by a person."""
        now = self.world.queue.now
        self._shot[event.node] = now
        window = state.config.brake.window
        lately = sorted(node for node, at in self._shot.items() if at > now - window)
        limit = lost_nodes_max(state.config, len(state.nodes), _largest_domain(state))
        wanted = state.nodes[event.node].fence_wanted
        if len(lately) > limit and not wanted:
            self.violated("S6", event.node, f"off was ordered for {', '.join(lately)}; the brake is {limit}")

    def _phase_changed(self, event: ev.VmPhaseChanged) -> None:
        """What people see of a VM follows the table of phases."""
        before = self._phases.get(event.vm)
        if before is not None and not may_follow(before, event.phase):
            self.violated("phases", event.vm, f"{event.vm} was {before} and is {event.phase}")
        self._phases[event.vm] = event.phase

    # --- when the faults are over

    def check_liveness(self) -> None:
        """S14: every VM that should run and is not held runs exactly once."""
        state = self.world.aggregator.state
        for vm in state.vms.values():
            truth = self.world.truth.vm(vm.uuid, vm.name)
            running = truth.running()
            should = (vm.run_open and vm.stopping is None) or wants_run(vm)
            if not should or _excused(vm, state):
                continue
            if not running:
                self.violated("S14", vm.name, f"{vm.name} does not run: {describe(vm)}")
            elif not vm.owner or running[0].host != vm.owner:
                self.violated("S14", vm.name, f"{vm.name} runs on {running[0].host}, but: {describe(vm)}")
        for node in state.nodes.values():
            if node.state != "Up":
                self.violated("S14", node.name, f"{node.name} is {node.state}: {node.state_reason}")


def describe(vm: VmRecord) -> str:
    """Return what the aggregator thinks of a VM, in one line."""
    bound = ", ".join(f"{b.node} ({b.why})" for b in vm.bindings) or "nothing"
    return (
        f"it is {vm.phase} ({vm.phase_reason}), run {vm.run} {'open' if vm.run_open else vm.outcome}, bound to {bound}"
    )


def _excused(vm: VmRecord, state: State) -> bool:
    """A hold that the state names."""
    waits = vm.postponed is not None and vm.postponed.until > state.now
    return vm.held_until > state.now or waits or vm.pause_asked is not None or bool(vm.rejected)


def _largest_domain(state: State) -> int:
    counts: dict[tuple[str, str], int] = {}
    for node in state.nodes.values():
        for key in ("virtward/rack", "virtward/zone"):
            if key in node.labels:
                place = (key, node.labels[key])
                counts[place] = counts.get(place, 0) + 1
    return max(counts.values(), default=0)
