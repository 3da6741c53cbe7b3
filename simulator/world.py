"""The world of a story: hosts, networks, fence devices, an aggregator, and the one heap of time.

Puts the parts together and lets time pass. Faults are in faults.py, what people do in verbs.py,
ground truth in truth.py. All chance comes from generators that the story's seed makes.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from random import Random

from agent.keeper_types import AnyLedgerRecord
from aggregator.core.events import Event
from aggregator.core.journal_form import encode_state
from aggregator.core.leadership import LEADER_LEASE_S
from aggregator.core.objects import VmSpec
from aggregator.core.state import State
from fleet.model import QemuState
from simulator.aggregator import SimulatedAggregator
from simulator.beginning import FLEET_EPOCH_S, definition_of, ledger_of, state_of
from simulator.clock import LocalClock, Queue
from simulator.fences import FenceDevice
from simulator.host import Host
from simulator.network import Network
from simulator.outlets import make_outlet
from simulator.plan import VmPlan, WorldPlan, WorldVm, uuid_of
from simulator.store import SimulatedStore
from simulator.truth import Truth

WARM_UP_S = 3.0

Noter = Callable[[str, str, str, str], None]


class World:
    """Everything there is. `run_until(0)` ends the warm-up: the fleet is connected and checked."""

    def __init__(self, plan: WorldPlan) -> None:
        self.plan = plan
        self.queue = Queue(now=-WARM_UP_S)
        self.network = Network(self.queue, self.random_of)
        self.truth = Truth(lambda: self.queue.now)
        self.vms: dict[str, WorldVm] = {}
        self.hosts: dict[str, Host] = {}
        self.fences: dict[str, FenceDevice] = {}  # each host's own controller
        self.outlets: dict[str, FenceDevice] = {}  # what else its ladder names, such as n1.pdu
        self.fence_orders: list[tuple[float, str, str]] = []  # (when, node, question) as the hands ran them
        self.fenced_off: list[tuple[float, str]] = []  # (when, host) as devices did it
        self.reference_answers = True
        self.noter: Noter | None = None
        self.on_commit: list[Callable[[Event, State], None]] = []
        self.on_deed: list[Callable[[SimulatedAggregator, str], None]] = []
        self.on_roll_back: list[Callable[[], None]] = []
        self.on_ledger: list[Callable[[str, AnyLedgerRecord], None]] = []
        self.teller: Callable[[str], None] | None = None
        at = FLEET_EPOCH_S - WARM_UP_S
        lease_s = LEADER_LEASE_S if plan.aggregators > 1 else inf
        self.store = SimulatedStore(self.queue, encode_state(state_of(plan, at)), lease_s)
        self.aggregators = [
            SimulatedAggregator(self, number, state_of(plan, at), LocalClock(self.queue, shows=at))
            for number in range(1, plan.aggregators + 1)
        ]
        self.leader = self.aggregators[0]  # who came to lead last
        for number, vm in enumerate(plan.vms, start=1):
            self.add_vm(uuid_of(number), vm)
        for node in plan.nodes:
            self.fences[node.name] = FenceDevice(self, node.name)
            words = [word for rung in node.fencing for word in rung]
            self.outlets |= {f"{node.name}.{word}": make_outlet(self, node.name, word) for word in words}
            clock = LocalClock(self.queue, shows=self.random_of(f"{node.name}'s clock").uniform(100.0, 1e6))
            self.hosts[node.name] = Host(self, node, clock)
        self.network.on_disturbance.append(lambda host: self.hosts[host].agent.quiet.end())
        self._populate()

    @property
    def aggregator(self) -> SimulatedAggregator:
        """The aggregator that people speak to: the one that came to lead last."""
        return self.leader

    def acted(self, aggregator: SimulatedAggregator, what: str) -> None:
        """An aggregator does a deed or gives an answer."""
        for watch in self.on_deed:
            watch(aggregator, what)

    def wrote(self, node: str, record: AnyLedgerRecord) -> None:
        """An agent's record is on disk."""
        for watch in self.on_ledger:
            watch(node, record)

    def roll_back_store(self, by_s: float) -> None:
        """A backup takes the store's place."""
        self.store.roll_back(by_s)
        for watch in self.on_roll_back:
            watch()

    def tell(self, words: str) -> None:
        """Something happened among the aggregators."""
        if self.teller is not None:
            self.teller(words)

    def device_at(self, params: dict[str, str]) -> FenceDevice:
        """Return the device that a rung's parameters name (simulator.ladder)."""
        address = params.get("ip", "") or params["nodename"].replace(".control", ".kdump")
        return self.outlets.get(address) or self.fences[address.partition(".")[0]]

    def random_of(self, part: str) -> Random:
        """Return the chance of one part of the world: what happens to one does not change another's luck."""
        return Random(f"{self.plan.seed} {part}")

    def add_vm(self, uuid: str, plan: VmPlan) -> None:
        """Make a VM known to every hypervisor; it runs nowhere yet."""
        self.vms[uuid] = WorldVm(uuid, plan.name, plan.cpu_m, plan.memory_bytes, plan.storage)
        self.truth.vm(uuid, plan.name)

    def new_vm(self, name: str, cpu_m: int, memory_bytes: int) -> str:
        """Return the uuid of a VM a person makes during the story, or makes again under the name it had."""
        for uuid, vm in self.vms.items():
            if vm.name == name:
                return uuid
        uuid = uuid_of(len(self.vms) + 1)
        self.add_vm(uuid, VmPlan(name=name, cpu_m=cpu_m, memory_bytes=memory_bytes, spec=VmSpec()))
        return uuid

    def _populate(self) -> None:
        for host in self.hosts.values():
            host.ledger.extend(ledger_of(self.plan, host.name))
        for number, vm in enumerate(self.plan.vms, start=1):
            if vm.node:
                self.hosts[vm.node].definitions[uuid_of(number)] = definition_of(uuid_of(number), vm)
        self.aggregators[0].begin_quietly()
        for standby in self.aggregators[1:]:
            standby.start()
        for host in self.hosts.values():
            host.boot()
        for number, vm in enumerate(self.plan.vms, start=1):
            if vm.node:
                self.hosts[vm.node].new_qemu(uuid_of(number), QemuState.RUNNING)

    def note(self, who: str, event: str, uuid: str, detail: str) -> None:
        """A process wrote a line into its log."""
        if self.noter is not None:
            self.noter(who, event, self.vms[uuid].name if uuid in self.vms else uuid, detail)

    def run_until(self, until: float) -> None:
        self.queue.run_until(until)
