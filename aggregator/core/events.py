"""Everything that can be folded into the state: facts from outside, transitions the core decided.

Facts are what somebody else said or did; transitions are decisions, each with a reason and the
position of the fact that caused it. Both are journalled in this form, so reading the journal is
reading history. `at` is fleet time: Unix seconds that never go backwards within a life.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from aggregator.core.objects import NodeSpec, VmSpec
from fleet.messages import Order, OrderInHand, ProbeResult
from fleet.model import (
    Definition,
    Disk,
    EndReason,
    Leadership,
    LedgerState,
    NodeFacts,
    OrderOutcome,
    SessionKey,
    VmReport,
)


class NodeState(StrEnum):
    """Where a node stands; the table of steps is in nodes.py."""

    JOINING = "Joining"
    UNSEEN = "Unseen"
    UP = "Up"
    SUSPECT = "Suspect"
    AGENT_LOST = "AgentLost"
    LOST = "Lost"
    FENCING = "Fencing"
    FENCED = "Fenced"


class VmPhase(StrEnum):
    """What people see of a VM (interfaces.md, words in status)."""

    PENDING = "Pending"
    STARTING = "Starting"
    RUNNING = "Running"
    PAUSED = "Paused"
    MIGRATING = "Migrating"
    STOPPING = "Stopping"
    STOPPED = "Stopped"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    RECOVERING = "Recovering"
    CRASH_LOOP_BACK_OFF = "CrashLoopBackOff"
    UNKNOWN = "Unknown"


class RunOutcome(StrEnum):
    """How a run ended (product.md, run strategies)."""

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    STOPPED = "Stopped"
    EVICTED = "Evicted"


class MigrationPhase(StrEnum):
    """How far one migration is; the table of steps is in migrate.py."""

    QUEUED = "Queued"
    PREPARING = "Preparing"
    RUNNING = "Running"
    HANDING_OVER = "HandingOver"
    DISCARDING = "Discarding"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


class ProofKind(StrEnum):
    """Why a node, or one VM on it, is known to be inert (safety.md)."""

    RELEASED = "Released"
    POWER_OFF = "PowerOff"
    REBOOTED = "Rebooted"
    NOT_HERE = "NotHere"  # complete report of a session opened after the binding was made
    SELF_FENCED = "SelfFenced"
    CRASH_KERNEL = "CrashKernel"
    OPERATOR = "Operator"


class PowerAnswer(StrEnum):
    """What a fence device's answer comes to; only OFF and ON are knowledge."""

    ON = "On"
    OFF = "Off"
    DONE = "Done"  # the program says the off or on order was carried out
    ERROR = "Error"
    TIMEOUT = "Timeout"
    MISSING = "Missing"  # the program is not there or did not run


class Event(Struct, frozen=True, kw_only=True, tag_field="e", tag=True):
    """Base of all facts and transitions."""

    at: float


class Transition(Event, frozen=True, kw_only=True):
    """Base of all decisions: why, and the journal position of the fact behind it."""

    reason: str = ""
    cause: int = 0


# --- facts: the aggregator itself ----------------------------------------------------------


class AggregatorStarted(Event, frozen=True, kw_only=True):
    """A new life of the aggregator: every silence starts again from here (S7)."""

    leader: Leadership
    secret: str = ""  # seed of hand-over secrets; empty: keep the one in the state


class SelfDoubted(Event, frozen=True, kw_only=True):
    """The aggregator was paused, overloaded or its clock jumped: verdicts wait one window (S9)."""

    kind: str
    detail: str = ""


class ConfigChanged(Event, frozen=True, kw_only=True):
    """The operator's ClusterConfig, in its plain form (policy.write_config)."""

    config: dict[str, object]
    who: str = ""


# --- facts: agents ----------------------------------------------------------------------------


class SessionOpened(Event, frozen=True, kw_only=True):
    """Hello, Welcome and the first FullState are through: from here the session stands."""

    node: str
    session: SessionKey
    facts: NodeFacts
    ledger: LedgerState
    generation: int
    vms: tuple[VmReport, ...]
    in_hand: tuple[OrderInHand, ...]
    complete: bool
    definitions: tuple[Definition, ...] = ()
    highest: Leadership | None = None


class SessionEnded(Event, frozen=True, kw_only=True):
    """The agent's connection is over. how: goodbye | closed | reset | timeout | replaced."""

    node: str
    session: SessionKey
    how: str


class BeatHeard(Event, frozen=True, kw_only=True):
    """A sign of life of a standing session. Never journalled."""

    node: str
    session: SessionKey
    sequence: int


class VmsReported(Event, frozen=True, kw_only=True):
    """A FullState (full) or Delta after the first."""

    node: str
    session: SessionKey
    generation: int
    vms: tuple[VmReport, ...]
    full: bool = False
    complete: bool = False
    in_hand: tuple[OrderInHand, ...] = ()
    definitions: tuple[Definition, ...] = ()
    facts: NodeFacts | None = None


class OrderReported(Event, frozen=True, kw_only=True):
    """An agent's word on an order."""

    node: str
    session: SessionKey
    order_id: str
    uuid: str
    epoch: int
    outcome: OrderOutcome
    code: str = ""
    message: str = ""
    vm: VmReport | None = None


class MigrationProgressed(Event, frozen=True, kw_only=True):
    """How far a running migration is. Never journalled."""

    node: str
    uuid: str
    order_id: str
    percent: float


class ProbeAnswered(Event, frozen=True, kw_only=True):
    """What a peer saw of a suspect. results' asked_ago_s count back from `at`."""

    prober: str
    probe_id: str
    target: str
    results: tuple[ProbeResult, ...]


# --- facts: our own hands ---------------------------------------------------------------------


class OrderDropped(Event, frozen=True, kw_only=True):
    """An order that provably never left this process (too old, no session): it will never begin."""

    order_id: str
    why: str


class FenceAnswered(Event, frozen=True, kw_only=True):
    """What a fence device answered. asked_at: fleet time just before the program was started."""

    node: str
    question_id: str
    answer: PowerAnswer
    asked_at: float
    exit_code: int | None = None
    line: str = ""  # the program's own words, secrets removed, at most 300 characters


# --- facts: people ----------------------------------------------------------------------------


class VmApplied(Event, frozen=True, kw_only=True):
    """A VirtualMachine was created or replaced; already checked at the edge."""

    name: str
    uuid: str
    spec: VmSpec
    labels: dict[str, str]
    annotations: dict[str, str] = {}
    disks: tuple[Disk, ...] = ()
    cpu_m: int = 0
    memory_bytes: int = 0
    who: str = ""


class VmDeleteRequested(Event, frozen=True, kw_only=True):
    """A person deletes a VM; the edge refused a running one without force."""

    name: str
    who: str = ""


class VmVerb(StrEnum):
    """What a person may command of a VM."""

    START = "start"
    STOP = "stop"
    RESTART = "restart"
    PAUSE = "pause"
    UNPAUSE = "unpause"


class VmCommanded(Event, frozen=True, kw_only=True):
    """A person's verb on a VM; `force` skips the grace period of a stop."""

    name: str
    verb: VmVerb
    force: bool = False
    who: str = ""


class VmGoneConfirmed(Event, frozen=True, kw_only=True):
    """A person vouches that no QEMU of this VM runs anywhere it is bound to."""

    name: str
    who: str = ""


class NodeApplied(Event, frozen=True, kw_only=True):
    """A Node's labels and spec were written (cordon, taint and label are this too)."""

    name: str
    labels: dict[str, str]
    spec: NodeSpec
    who: str = ""


class NodeApproved(Event, frozen=True, kw_only=True):
    """A person lets a joining node take VMs."""

    name: str
    who: str = ""


class NodeTokenIssued(Event, frozen=True, kw_only=True):
    """A join token's SHA-256; who holds it is approved."""

    name: str
    token_sha256: str
    who: str = ""


class NodeDeleted(Event, frozen=True, kw_only=True):
    """A node with no VM bound to it leaves the fleet."""

    name: str
    who: str = ""


class OffConfirmed(Event, frozen=True, kw_only=True):
    """`virtward fence NODE --confirm-off`: a person vouches that the node is off."""

    name: str
    who: str = ""


class FenceRequested(Event, frozen=True, kw_only=True):
    """`virtward fence NODE`: a person wants the node fenced by its ladder."""

    name: str
    who: str = ""


class DrainRequested(Event, frozen=True, kw_only=True):
    """A person empties a node. deadline_s: 0 means none."""

    node: str
    deadline_s: float = 0
    force: bool = False
    who: str = ""


class DrainCancelled(Event, frozen=True, kw_only=True):
    """The drain stops where it is; migrations in flight go on to their end. Uncordon is this too."""

    node: str
    who: str = ""


class MigrationRequested(Event, frozen=True, kw_only=True):
    """A person moves one VM. target: empty lets placement choose."""

    vm: str
    target: str = ""
    who: str = ""


class MigrationCancelRequested(Event, frozen=True, kw_only=True):
    """A person calls a migration off."""

    migration: str
    who: str = ""


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


class FenceAsked(Transition, frozen=True, kw_only=True):
    """A question or order to a fence device. question: status | off | on."""

    node: str
    question_id: str
    rung: int
    question: str
    purpose: str  # readiness | evidence | fencing | power-on
    deadline: float  # fleet time at which the slot is given back


class NodeProven(Transition, frozen=True, kw_only=True):
    """The node is proven inert: whatever ran on it when the proof was taken runs no more."""

    node: str
    boot_id: str
    proof: ProofKind
    detail: str


class FenceFailed(Transition, frozen=True, kw_only=True):
    """The whole ladder gave no proof; a person is the last rung."""

    node: str
    detail: str


class BrakeChanged(Transition, frozen=True, kw_only=True):
    """Too many nodes at once (closed), or no longer."""

    closed: bool
    nodes: tuple[str, ...]


class IncidentOpened(Transition, frozen=True, kw_only=True):
    """Something failed; all that is seen and decided about it is kept together."""

    incident: str
    node: str = ""
    vm: str = ""
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


class BindingFreed(Transition, frozen=True, kw_only=True):
    """One node can no longer run this VM, and this is the proof."""

    vm: str
    node: str
    boot_id: str
    proof: ProofKind
    end: EndReason = EndReason.NOT_ENDED


class OwnerChanged(Transition, frozen=True, kw_only=True):
    """The run goes on elsewhere (migration)."""

    vm: str
    node: str
    epoch: int


class RunEnded(Transition, frozen=True, kw_only=True):
    """No QEMU of this run is left anywhere."""

    vm: str
    run: int
    outcome: RunOutcome


class StopDecided(Transition, frozen=True, kw_only=True):
    """The run shall end. outcome: Stopped (a person) or Evicted (drain)."""

    vm: str
    outcome: RunOutcome


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


class VmRemoved(Transition, frozen=True, kw_only=True):
    """A deleted VM is unbound everywhere; its tombstone ends."""

    vm: str


class SecondRunSeen(Transition, frozen=True, kw_only=True):
    """Two nodes report a running QEMU of one VM: S1 is broken, a person is needed."""

    vm: str
    nodes: tuple[str, ...]


# --- transitions: migrations and drains ----------------------------------------------------------


class MigrationQueued(Transition, frozen=True, kw_only=True):
    """A move is wanted; it waits for limits and a target. target: empty: not chosen yet."""

    migration: str
    vm: str
    source: str
    target: str = ""
    priority: int
    drain: str = ""


class MigrationChanged(Transition, frozen=True, kw_only=True):
    """A migration took a step. When PREPARING: target, boot_id and the new epoch are set."""

    migration: str
    vm: str
    phase: MigrationPhase
    target: str = ""
    boot_id: str = ""
    epoch: int = 0


class DrainChanged(Transition, frozen=True, kw_only=True):
    """A drain's state or its list of blocked VMs changed. state: Running | Done | Cancelled | Expired."""

    node: str
    state: str
    blocked: dict[str, str] = {}  # vm -> why
