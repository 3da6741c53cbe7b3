"""The checks on ground truth: what must never be (safety.md, invariants) and what must come at last.

Gives the core's own functions (aggregator.core.invariant_truth) what is really so in the world: S1 after every
change of any QEMU; S2, S3 and S6 where a decision becomes durable; S14 when the faults are over. What the core
finds by itself (aggregator.core.invariants) comes as an event. A violation is recorded, never raised.
"""

from __future__ import annotations

from msgspec import Struct

from agent.memory import recall
from aggregator.core import events as ev
from aggregator.core import invariant_truth as truth
from aggregator.core.events import Event, VmPhase
from aggregator.core.phases import may_follow
from aggregator.core.state import State
from simulator.leader_checks import LeaderChecks
from simulator.truth import VmTruth
from simulator.world import World


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

    def _say(self, invariant: str, about: str, text: str) -> None:
        if text:
            self.violated(invariant, about, text)

    # --- at every step

    def qemu_changed(self, vm: VmTruth, why: str) -> None:
        """S1, at every change of any QEMU."""
        text = truth.runs_once(vm.vm, [qemu.host for qemu in vm.running()])
        if text:
            self.violated("S1", vm.vm, f"{text}: {why}")

    def committed(self, event: Event, state: State) -> None:
        """Judge a decision the moment it is durable, by what is really so."""
        if isinstance(event, ev.StartDecided):
            self._start_decided(event, state)
        elif isinstance(event, ev.FenceAsked) and event.question == "off":
            self._off_ordered(event, state)
        elif isinstance(event, ev.VmPhaseChanged):
            self._phase_changed(event)
        elif isinstance(event, ev.InvariantBroken):
            self.violated(event.invariant, event.text, f"the core was about to break it: {event.text}")
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
        left = {qemu.host: f"has it {qemu.state}" for qemu in self.world.truth.vm(vm.uuid).qemus}
        for host in self.world.hosts.values():
            if host.power_on and host.hypervisor.creating.get(vm.uuid):
                left.setdefault(host.name, "creates it")
        self._say("S2", event.vm, truth.nothing_is_left(event.vm, event.node, left))
        self._say("S3", event.vm, truth.epoch_is_new(event.vm, event.epoch, self._epochs.get(event.vm, 0)))
        self._epochs[event.vm] = event.epoch

    def _off_ordered(self, event: ev.FenceAsked, state: State) -> None:
        now = self.world.queue.now
        self._shot[event.node] = now
        self._say("S6", event.node, truth.shot_within_brake(state, self._shot, state.nodes[event.node], now))

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
            running = [qemu.host for qemu in self.world.truth.vm(vm.uuid, vm.name).running()]
            self._say("S14", vm.name, truth.runs_at_last(state, vm, running))
        for node in state.nodes.values():
            if node.state != "Up":
                self.violated("S14", node.name, f"{node.name} is {node.state}: {node.state_reason}")
