"""Transitions: what the core decided, each with its reason and the position of the fact behind it."""

from __future__ import annotations

from msgspec import field

from aggregator.core.choice import Choice
from aggregator.core.words import (
    MigrationPhase,
    NodeState,
    ProofKind,
    RunOutcome,
    Transition,
    VmPhase,
)
from fleet.messages import Order
from fleet.model import EndReason, Plane

# --- transitions: nodes, evidence, fencing ----------------------------------------------------


class NodeStateChanged(Transition, frozen=True, kw_only=True):
    """A node took a step of its table; rendered as Node<State>."""

    node: str
    state: NodeState


class EvidenceSought(Transition, frozen=True, kw_only=True):
    """Peers are asked about a silent node."""

    node: str
    probe_id: str
    prober: str


class RelaySought(Transition, frozen=True, kw_only=True):
    """A peer that hears a silent node's agent is asked to carry its frames."""

    node: str
    peer: str
    plane: Plane


class FenceAsked(Transition, frozen=True, kw_only=True):
    """A question or order to a fence device. question: status | off | on | listen (for a crash kernel)."""

    node: str
    question_id: str
    rung: int
    device: int = 0
    question: str
    purpose: str  # readiness | evidence | fencing | power-on
    deadline: float  # fleet time at which the slot is given back


class ReferenceAsked(Transition, frozen=True, kw_only=True):
    """The reference address is asked, because a small fleet cannot judge without it."""

    address: str


class NodeProven(Transition, frozen=True, kw_only=True):
    """The node is proven inert: whatever ran on it when the proof was taken runs no more."""

    node: str
    boot_id: str
    proof: ProofKind
    detail: str


class DeviceDistrusted(Transition, frozen=True, kw_only=True):
    """A fence device said off and the node went on beating: it is another node's, until a person looked."""

    node: str
    rung: int
    device: int = 0


class SessionDoubted(Transition, frozen=True, kw_only=True):
    """What is bound to the node can be proven by its next session only: this one is closed."""

    node: str


class StorageAsked(Transition, frozen=True, kw_only=True):
    """A peer is asked whether it reaches a storage that a node has lost."""

    storage: str
    probe_id: str
    prober: str


class StorageOutageChanged(Transition, frozen=True, kw_only=True):
    """More nodes than the brake lets through do not reach a storage (many), or no longer so."""

    storage: str
    many: bool


class StorageLost(Transition, frozen=True, kw_only=True):
    """The node does not reach these storages and other nodes do: it gets no more VMs."""

    node: str
    storages: tuple[str, ...]


class StorageBack(Transition, frozen=True, kw_only=True):
    """Nothing is held against the node any more for storage it did not reach."""

    node: str


class FenceFailed(Transition, frozen=True, kw_only=True):
    """The whole ladder gave no proof; a person is the last rung."""

    node: str
    detail: str


class NodeFlapping(Transition, frozen=True, kw_only=True):
    """The node failed too often within a day and gets no VM by itself, or no longer so."""

    node: str
    flaps: bool


class BrakeChanged(Transition, frozen=True, kw_only=True):
    """Too many nodes at once (closed), or no longer."""

    closed: bool
    nodes: tuple[str, ...]


class DisarmEnded(Transition, frozen=True, kw_only=True):
    """A disarming is over because its time is."""

    node: str = ""
    vm: str = ""
    selector: str = ""


class ReconcileEnded(Transition, frozen=True, kw_only=True):
    """Everybody is accounted for: this aggregator leads, in a term above all that were obeyed."""


class InvariantBroken(Transition, frozen=True, kw_only=True):
    """The core decided what an invariant forbids: it was not done, and the fleet is disarmed."""

    invariant: str
    text: str


class IncidentOpened(Transition, frozen=True, kw_only=True):
    """Something failed; all that is seen and decided about it is kept together."""

    incident: str
    node: str = ""
    vm: str = ""
    about: str = ""  # store, invariant, or storage and its name, where it is about neither node nor VM nor the brake
    title: str


class IncidentNoted(Transition, frozen=True, kw_only=True):
    """One more thing to know in an incident; way_out: what a person can do."""

    incident: str
    text: str
    way_out: str = ""


class IncidentClosed(Transition, frozen=True, kw_only=True):
    """It is over."""

    incident: str


# --- transitions: VMs -------------------------------------------------------------------------


class OrderIssued(Transition, frozen=True, kw_only=True):
    """An order was decided; the action that sends it follows once this is journalled."""

    node: str
    vm: str
    order: Order


class OrderClosed(Transition, frozen=True, kw_only=True):
    """Nothing more is expected of an order; what is true is in reports and bindings."""

    order_id: str
    vm: str
    outcome: str  # Done | Failed | Refused | NeverBegan | Dropped | Overtaken


class StartDecided(Transition, frozen=True, kw_only=True):
    """A new run on a node: epoch and run rise, the VM is bound to it before the order leaves."""

    vm: str
    node: str
    boot_id: str
    epoch: int
    run: int
    choice: Choice | None = None


class BindingFreed(Transition, frozen=True, kw_only=True):
    """One node can no longer run this VM at this epoch or below, and this is the proof."""

    vm: str
    node: str
    boot_id: str
    epoch: int
    proof: ProofKind
    end: EndReason = EndReason.NOT_ENDED


class OwnerChanged(Transition, frozen=True, kw_only=True):
    """The run goes on elsewhere (migration). run: one the store had lost, 0 where it is the known one."""

    vm: str
    node: str
    epoch: int
    run: int = 0


class RunRestarted(Transition, frozen=True, kw_only=True):
    """A run failed, and its agent began the next one by itself on the same node, at the same epoch."""

    vm: str
    node: str
    run: int


class RunEnded(Transition, frozen=True, kw_only=True):
    """No QEMU of this run is left anywhere."""

    vm: str
    run: int
    outcome: RunOutcome


class StopDecided(Transition, frozen=True, kw_only=True):
    """The run shall end. outcome: Stopped (a person) or Evicted (drain, lost storage). force: without grace."""

    vm: str
    outcome: RunOutcome
    force: bool = False


class VmPhaseChanged(Transition, frozen=True, kw_only=True):
    """What people see of a VM changed."""

    vm: str
    phase: VmPhase


class PlacementRefused(Transition, frozen=True, kw_only=True):
    """No node takes the VM now; per node the rules that refuse it."""

    vm: str
    rejected: dict[str, tuple[str, ...]]


class VmHeld(Transition, frozen=True, kw_only=True):
    """The VM is not started before `until` (fleet time), and why."""

    vm: str
    until: float


class StartPostponed(Transition, frozen=True, kw_only=True):
    """The VM waits for others (dependsOn). until: fleet time at which it starts at the latest."""

    vm: str
    until: float


class VmRemoved(Transition, frozen=True, kw_only=True):
    """A deleted VM is unbound everywhere; its tombstone ends."""

    vm: str


class SecondRunSeen(Transition, frozen=True, kw_only=True):
    """Two nodes report a running QEMU of one VM: S1 is broken, a person is needed."""

    vm: str
    nodes: tuple[str, ...]


class SecondRunEnded(Transition, frozen=True, kw_only=True):
    """At most one node reports a running QEMU of the VM again."""

    vm: str


# --- transitions: migrations and drains ----------------------------------------------------------


class MigrationQueued(Transition, frozen=True, kw_only=True):
    """A move is wanted; it waits for limits and a target. target: asked for by name, and no other will do; planned:
    the one it would go to if nothing changes until its turn. Empty: not chosen yet.
    """

    migration: str
    vm: str
    source: str
    target: str = ""
    planned: str = ""
    priority: int
    drain: str = ""
    rescue: bool = False  # its source's agent is gone: the target does it, through the source's libvirtd


class MigrationChanged(Transition, frozen=True, kw_only=True):
    """A migration took a step. When PREPARING: target, boot_id, the new epoch and why this target are set."""

    migration: str
    vm: str
    phase: MigrationPhase
    target: str = ""
    boot_id: str = ""
    epoch: int = 0
    choice: Choice | None = None


class RescueDue(Transition, frozen=True, kw_only=True):
    """A node's agent has been gone for `rescueAfter`: its VMs have to leave it, live."""

    node: str


class VmEvictionChanged(Transition, frozen=True, kw_only=True):
    """A VM has to leave its node because of a NoExecute taint. blocked: why it cannot; over: no longer."""

    vm: str
    node: str
    blocked: str = ""
    over: bool = False


class DrainChanged(Transition, frozen=True, kw_only=True):
    """A drain's state or its list of blocked VMs changed; the states are those of DrainRecord."""

    node: str
    state: str
    blocked: dict[str, str] = field(default_factory=dict)  # vm -> why


class HostStopBegan(Transition, frozen=True, kw_only=True):
    """A node's host is being shut down: it is drained within that time, unless a person drains it already."""

    node: str
    within_s: float


class HostStopEnded(Transition, frozen=True, kw_only=True):
    """The host is back: what its shutdown drained takes VMs again."""

    node: str
