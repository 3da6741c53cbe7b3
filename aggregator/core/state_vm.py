"""What is known and decided about one VM, its orders and its moves. Plain records; only the fold modules assign."""

from __future__ import annotations

from msgspec import Struct, field

from aggregator.core.choice import Choice
from aggregator.core.objects import MigrationPolicySpec, VmSpec
from aggregator.core.words import MigrationPhase, RunOutcome, VmPhase, VmVerb
from fleet.guest_health import GuestProbes
from fleet.messages import KeptVm, MigrationProgress, Order
from fleet.model import Definition, Disk, EndReason, Finding, Isolation, OrderOutcome, SessionKey, VmReport


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


class Postponed(Struct, frozen=True):
    """A start that waits for other VMs (dependsOn). until: it starts then at the latest."""

    since: float
    until: float
    words: str


class SecondRun(Struct, frozen=True):
    """Two nodes reported a running QEMU of the VM. since: it may have begun as early as then."""

    nodes: tuple[str, ...]
    seen_at: float
    since: float
    over_at: float = 0.0


class Eviction(Struct):
    """A VM has to leave its node because of a taint. blocked: why it cannot; retry_at: of a migration that failed."""

    node: str
    since: float
    reason: str
    blocked: str = ""
    retry_at: float = 0.0
    failures: int = 0


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
    stopping_since: float = 0.0
    stop_force: bool = False
    resumed_at: list[float] = field(default_factory=list)  # when this run was told to run on, paused as it was
    start_wanted: bool = False  # a start by name, or the second half of a restart
    pause_asked: VmVerb | None = None  # pause or unpause, until it is so
    ran_under_strategy: bool = False  # a run was begun since this run strategy was set
    held_until: float = 0.0
    held_why: str = ""
    postponed: Postponed | None = None
    node_losses: list[float] = field(default_factory=list)  # when a run went down with its node, within an hour
    failed_starts: int = 0  # in a row, without reaching Running
    restarts: list[float] = field(default_factory=list)  # times, within the budget's window
    restart_count: int = 0
    failed_on: str = ""  # node of the last failed start
    lost_with: str = ""  # node that the last run went down with
    choice: Choice | None = None  # why its newest run is where it is; None: it was found there, or put there by name
    chosen_at: float = 0.0
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
    isolation_told: Isolation = Isolation()  # what the run's owner was told to do without its lease
    kept_told: int = 0  # the version of the VM that the run's owner was given to keep (rebuild.py)
    probes_told: GuestProbes = GuestProbes()  # what it was told to ask of the guest
    eviction: Eviction | None = None  # by a NoExecute taint
    second_run: SecondRun | None = None  # until a person stops or restarts it: its disk may be damaged
    fact: int = 0  # position of the last fact about it


class Leftover(Struct):
    """A node that was away when a VM was deleted: it may still hold its definition.

    session: in which it said that the VM is defined there and does not run.
    """

    node: str
    uuid: str
    name: str
    epoch: int
    session: SessionKey | None = None
    asked_at: float = 0.0


class KeptRecord(Struct, frozen=True):
    """What a node's ledger keeps of a VM that this aggregator does not know, at the highest epoch that was told."""

    node: str
    vm: KeptVm


class OrderRecord(Struct):
    """An order that was issued and not closed. vm: empty where the VM was removed meanwhile (leftovers.py)."""

    order: Order
    node: str
    vm: str
    issued_at: float
    accepted: bool = False
    outcome: OrderOutcome | None = None  # the executor's final word
    code: str = ""
    message: str = ""
    dropped: str = ""  # why it never left this process
    kept_version: int = 0  # of the VM that it gives to keep


class MigrationRecord(Struct):
    """One attempt to move one VM."""

    name: str
    vm: str
    source: str
    priority: int
    created: float
    target: str = ""
    wanted_target: str = ""
    planned_target: str = ""
    drain: str = ""
    rescue: bool = False  # by its target, through the libvirtd of a source whose agent is gone
    source_read: bool = False  # its target has read there that the source is "shut off (migrated)"
    phase: MigrationPhase = MigrationPhase.QUEUED
    reason: str = ""
    epoch: int = 0  # the new one
    source_epoch: int = 0
    started: float = 0.0
    handed_over: float = 0.0
    ended: float = 0.0
    percent: float = 0.0
    far: MigrationProgress | None = None  # as its source said last; not journalled
    cancel_wanted: bool = False
    cancel_order: str = ""
    receive_order: str = ""
    migrate_order: str = ""
    copy_ran: bool = False  # its agent says that the copy's CPUs may have run
    choice: Choice | None = None
    arrival: tuple[Finding, ...] | None = None  # what its target found beforehand; None: it has not answered


class MigrationPolicyRecord(Struct, frozen=True):
    """A MigrationPolicy. version: journal position of its last writing."""

    name: str
    spec: MigrationPolicySpec
    labels: dict[str, str]
    created: float
    version: int


class DrainRecord(Struct):
    """Emptying one node."""

    node: str
    who: str
    since: float
    deadline: float = 0.0
    force: bool = False
    state: str = "Running"  # Waiting | Running | Paused | Done | Cancelled | Expired
    job: str = ""  # of drains that go one failure domain after another
    domain: str = ""
    turn: int = 0
    keeps_spare: bool = False  # it begins only where another node could be lost meanwhile
    judged_at: float = 0.0  # when that was thought through last
    judged_why: str = ""  # why it could not; empty: it could
    vms: tuple[str, ...] = ()  # on the node when it began
    blocked: dict[str, str] = {}
    retry_at: dict[str, float] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    ended: float = 0.0
