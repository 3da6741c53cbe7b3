"""What the aggregator knows and has decided. Plain records; only fold.py assigns to them.

Everything is serialisable with msgspec, so a snapshot is the state itself. Times are fleet
seconds. Fields that live only as long as this life of the aggregator say so.
"""

from __future__ import annotations

from msgspec import Struct, field

from aggregator.core.events import (
    MigrationPhase,
    NodeState,
    PowerAnswer,
    ProofKind,
    RunOutcome,
    VmPhase,
    VmVerb,
)
from aggregator.core.objects import NodeSpec, Taint, VmSpec
from aggregator.core.policy import ClusterConfig
from fleet.messages import Order, OrderInHand
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

HISTORY_MAX = 2000
INCIDENT_STEPS_MAX = 400
INCIDENTS_MAX = 500
EPOCHS_PAST_MAX = 10_000


class Binding(Struct):
    """A node (one boot of it) on which a QEMU of the VM may run, until proven otherwise."""

    node: str
    boot_id: str
    epoch: int
    since: float
    why: str  # owner | start | migration-target | foreign
    order_id: str = ""


class SeenReport(Struct):
    """A node's last word on a VM, with the session it was said in."""

    report: VmReport
    session: SessionKey
    at: float
    full: bool = False  # part of a full state, not of a delta


class VmRecord(Struct):
    """One VM: what is ordered, where it may be, how its runs went."""

    name: str
    uuid: str
    spec: VmSpec
    created: float
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    version: int = 0
    disks: tuple[Disk, ...] = ()
    cpu_m: int = 0
    memory_bytes: int = 0
    epoch: int = 0  # the owner's
    epoch_top: int = 0  # the highest ever issued
    run: int = 0  # id of the newest run; 0: never ran
    run_open: bool = False
    run_reached_running: bool = False
    run_since: float = 0.0
    owner: str = ""
    bindings: list[Binding] = field(default_factory=list)
    reports: dict[str, SeenReport] = field(default_factory=dict)
    definition: Definition | None = None
    home: str = ""  # the node that reported the definition
    phase: VmPhase = VmPhase.PENDING
    phase_since: float = 0.0
    phase_reason: str = ""
    outcome: RunOutcome | None = None  # of the last run that ended
    last_end: EndReason = EndReason.NOT_ENDED
    stopping: RunOutcome | None = None  # the run is being ended on purpose: as what
    stop_force: bool = False
    start_wanted: bool = False  # a start by name, or the second half of a restart
    pause_asked: VmVerb | None = None  # pause or unpause, until it is so
    ran_under_strategy: bool = False  # a run was begun since this run strategy was set
    held_until: float = 0.0
    held_why: str = ""
    failed_starts: int = 0  # in a row, without reaching Running
    restarts: list[float] = field(default_factory=list)  # times, within the budget's window
    restart_count: int = 0
    failed_on: str = ""  # node of the last failed start
    rejected: dict[str, tuple[str, ...]] = {}
    migration: str = ""
    deleting: bool = False
    undefined_on: list[str] = field(default_factory=list)  # nodes that were told to forget a deleted VM
    retry_at: float = 0.0  # no new order before: the last one failed without a change
    gone_confirmed_at: float = 0.0  # a person vouched for every binding older than this
    ever_ran: bool = False  # a run of it was begun and did not prove void
    run_void: bool = False  # the newest run provably never began
    xml_version: int = 0  # rises when the ordered XML changes
    run_xml_version: int = 0  # of the XML the newest run was started from
    incident: str = ""  # about this VM alone
    fact: int = 0  # position of the last fact about it


class PowerRead(Struct):
    """One answer of a node's fence device to a status question."""

    rung: int
    answer: PowerAnswer
    asked_at: float
    answered_at: float


class Suspicion(Struct):
    """What has been gathered since a node fell silent. Lives as long as the silence."""

    since: float
    rounds: int = 0
    asked_at: float = 0.0
    power_asked_at: float = 0.0
    silent: dict[str, float] = field(default_factory=dict)  # plane -> when the last one left unanswered was asked
    answered: dict[str, float] = field(default_factory=dict)  # plane/port -> when the last one answered was asked
    reads: list[PowerRead] = field(default_factory=list)


class FenceQuestion(Struct):
    """A question or order to a fence device that has not been answered."""

    question_id: str
    rung: int
    question: str
    purpose: str
    asked_at: float
    deadline: float


class FenceAttempt(Struct):
    """One walk down a node's ladder."""

    number: int
    since: float
    rung: int = 0
    tries: int = 0
    off_sent_at: float = 0.0  # of the last off order of any rung
    answers: list[PowerAnswer] = field(default_factory=list)  # to the off orders of this rung
    answered_at: float = 0.0  # the last answer to an off order
    notes: list[str] = field(default_factory=list)
    may_act_until: float = 0.0  # until then an order of this attempt could still act


class RungReadiness(Struct):
    """What is known of a rung's device: proven right while the node beat, or why not."""

    device: str  # agent and parameters, in one string; another device is another proof
    on_at: float = 0.0
    checked_at: float = 0.0
    identity: str = ""  # InBand | Operator | "" (not shown to be the node's own)
    problem: str = "not checked yet"
    off_at: float = 0.0  # it said off while the node was Up; a beat after that makes it a wrong device
    distrusted: bool = False  # until the node is applied again


class Inert(Struct):
    """The proof that a node's last boot runs nothing."""

    boot_id: str
    proof: ProofKind
    at: float
    detail: str
    by_our_off: bool = False


class NodeRecord(Struct):
    """One node: what is ordered of it, what it says, what we hold of it."""

    name: str
    created: float
    labels: dict[str, str] = {}
    spec: NodeSpec = NodeSpec()
    version: int = 0
    approved: bool = False
    token_sha256: str = ""
    machine_id: str = ""
    host_uuid: str = ""
    facts: NodeFacts | None = None
    state: NodeState = NodeState.JOINING
    state_since: float = 0.0
    state_reason: str = ""
    boot_id: str = ""
    session: SessionKey | None = None  # the standing or last one
    session_since: float = 0.0
    connected: bool = False
    doubted: bool = False  # the standing session is being closed, to ask anew
    complete: bool = False  # the session's picture of the node is whole
    ledger: LedgerState = LedgerState.NEW
    in_hand: tuple[OrderInHand, ...] = ()
    last_sign: float = 0.0
    last_order_at: float = 0.0
    ended_how: str = ""
    seen: bool = False  # in this life of the aggregator
    taints: tuple[Taint, ...] = ()  # the system's
    drain: str = ""  # name of the drain that set maintenance; also after it is done
    suspicion: Suspicion | None = None
    attempt: FenceAttempt | None = None
    attempts: int = 0
    first_off_at: float = 0.0  # when the first off order since it was last Up was given
    questions: dict[str, FenceQuestion] = field(default_factory=dict)
    readiness: list[RungReadiness] = field(default_factory=list)
    inert: Inert | None = None
    power_on_asked_at: float = 0.0
    fence_wanted: bool = False  # a person asked for it
    off_confirmed_at: float = 0.0  # a person vouched that it is off, and who
    off_confirmed_by: str = ""
    quiet_until: float = 0.0  # no new attempt before
    silent_at: float = 0.0  # last time it fell silent (for the brake)
    convicted_at: float = 0.0  # last time it was found Lost or ordered off (for the brake)
    power_ons: list[float] = field(default_factory=list)
    incident: str = ""
    fact: int = 0


class OrderRecord(Struct):
    """An order that was issued and not closed."""

    order: Order
    node: str
    vm: str
    issued_at: float
    accepted: bool = False
    outcome: OrderOutcome | None = None  # the executor's final word
    code: str = ""
    message: str = ""
    dropped: str = ""  # why it never left this process


class MigrationRecord(Struct):
    """One attempt to move one VM."""

    name: str
    vm: str
    source: str
    priority: int
    created: float
    target: str = ""
    wanted_target: str = ""
    drain: str = ""
    phase: MigrationPhase = MigrationPhase.QUEUED
    reason: str = ""
    epoch: int = 0  # the new one
    source_epoch: int = 0
    started: float = 0.0
    handed_over: float = 0.0
    ended: float = 0.0
    percent: float = 0.0
    cancel_wanted: bool = False
    cancel_order: str = ""
    receive_order: str = ""
    migrate_order: str = ""


class DrainRecord(Struct):
    """Emptying one node."""

    node: str
    who: str
    since: float
    deadline: float = 0.0
    force: bool = False
    state: str = "Running"  # Running | Done | Cancelled | Expired
    vms: tuple[str, ...] = ()  # on the node when it began
    blocked: dict[str, str] = {}
    retry_at: dict[str, float] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    ended: float = 0.0


class IncidentStep(Struct, frozen=True):
    """One line of an incident."""

    at: float
    what: str
    detail: str = ""


class IncidentRecord(Struct):
    """Everything known and decided about one failure."""

    name: str
    title: str
    opened: float
    node: str = ""
    vm: str = ""
    closed: float = 0.0
    way_out: str = ""
    stuck: str = ""  # what keeps things from going on, as last said
    steps: list[IncidentStep] = field(default_factory=list)
    vms: list[str] = field(default_factory=list)


class HistoryLine(Struct, frozen=True):
    """One line of history; the same stream feeds events, explain, logs and stories."""

    position: int
    at: float
    kind: str
    reason: str = ""
    cause: int = 0
    node: str = ""
    vm: str = ""
    detail: str = ""


class State(Struct):
    """The whole fleet as the aggregator knows it."""

    leader: Leadership = Leadership(0, "", 0)
    secret: str = ""
    position: int = 0  # of the last event folded
    now: float = 0.0  # highest `at` seen
    config: ClusterConfig = ClusterConfig()
    nodes: dict[str, NodeRecord] = field(default_factory=dict)
    vms: dict[str, VmRecord] = field(default_factory=dict)  # deleted ones too, until unbound
    names: dict[str, str] = field(default_factory=dict)  # uuid -> name
    epochs_past: dict[str, int] = field(default_factory=dict)  # uuid of a removed VM -> its highest epoch
    orders: dict[str, OrderRecord] = field(default_factory=dict)
    migrations: dict[str, MigrationRecord] = field(default_factory=dict)
    drains: dict[str, DrainRecord] = field(default_factory=dict)  # by node
    incidents: dict[str, IncidentRecord] = field(default_factory=dict)
    history: list[HistoryLine] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    rotation: int = 0
    started_at: float = 0.0  # of this life
    grace_over: bool = False
    doubted_at: float = 0.0
    doubt: str = ""
    brake_closed: bool = False
    brake_incident: str = ""
    behind: str = ""  # why this aggregator only reconciles: an agent obeyed what this store does not hold
    met: Leadership | None = None  # the highest such leadership
    store_incident: str = ""
    off_orders: list[float] = field(default_factory=list)
    foreign: dict[str, dict[str, VmReport]] = field(default_factory=dict)  # node -> uuid -> report
