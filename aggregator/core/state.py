"""What the aggregator knows and has decided. Plain records; only the fold modules assign to them.

Everything is serialisable with msgspec, so a snapshot is the state itself. Times are fleet
seconds. Fields that live only as long as this life of the aggregator say so. This module is the
one name for all records; those of nodes and VMs lie in state_node and state_vm.
"""

from __future__ import annotations

from functools import cached_property

from msgspec import Struct, field

from aggregator.core.derived import Derived
from aggregator.core.policy import ClusterConfig
from aggregator.core.state_node import *  # noqa: F403 (one name for all records)
from aggregator.core.state_node import NodeRecord
from aggregator.core.state_storage import *  # noqa: F403
from aggregator.core.state_storage import StorageLoss
from aggregator.core.state_vm import *  # noqa: F403
from aggregator.core.state_vm import (
    DrainRecord,
    KeptRecord,
    Leftover,
    MigrationPolicyRecord,
    MigrationRecord,
    OrderRecord,
    VmRecord,
)
from aggregator.core.words import ApiRole
from fleet.model import Leadership, VmReport

HISTORY_MAX = 2000
INCIDENT_STEPS_MAX = 400
INCIDENTS_MAX = 500
EPOCHS_PAST_MAX = 10_000
TENURES_PAST_MAX = 1000


class IncidentStep(Struct, frozen=True):
    """One line of an incident. An observation that repeats itself is one line: how often, and when last."""

    at: float
    what: str
    detail: str = ""
    who: str = ""  # whose observation it is
    times: int = 1
    last_at: float = 0.0  # where times is more than 1


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
    screenshot: bool = False  # what a guest showed before its end is kept beside it


class Disarming(Struct, frozen=True):
    """A person has stopped automatic action: on a node, a VM, what a selector matches, or else the fleet.

    until: 0 is no end.
    """

    node: str
    vm: str
    since: float
    until: float
    who: str
    selector: str = ""


class ApiToken(Struct, frozen=True):
    """A token of the API; its secret only as SHA-256."""

    token_sha256: str
    role: ApiRole
    selector: str
    until: float
    who: str


class PastTenure(Struct, frozen=True):
    """A leadership that is over. ended: position of its last event that this store holds."""

    term: int
    ended: int


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


class State(Struct, dict=True):
    """The whole fleet as the aggregator knows it. In its dict lies what is derived, which no codec and no copy sees."""

    leader: Leadership = Leadership(0, "", 0)
    secret: str = ""
    tenures: dict[str, PastTenure] = field(default_factory=dict)  # by instance, oldest first
    position: int = 0  # of the last event folded
    now: float = 0.0  # highest `at` seen
    config: ClusterConfig = ClusterConfig()
    nodes: dict[str, NodeRecord] = field(default_factory=dict)
    vms: dict[str, VmRecord] = field(default_factory=dict)  # deleted ones too, until unbound
    names: dict[str, str] = field(default_factory=dict)  # uuid -> name
    epochs_past: dict[str, int] = field(default_factory=dict)  # uuid of a removed VM -> its highest epoch
    leftovers: dict[str, Leftover] = field(default_factory=dict)  # "node uuid" -> a deleted VM it may still define
    orders: dict[str, OrderRecord] = field(default_factory=dict)
    migrations: dict[str, MigrationRecord] = field(default_factory=dict)
    migration_policies: dict[str, MigrationPolicyRecord] = field(default_factory=dict)
    drains: dict[str, DrainRecord] = field(default_factory=dict)  # by node
    incidents: dict[str, IncidentRecord] = field(default_factory=dict)
    history: list[HistoryLine] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    rotation: int = 0
    started_at: float = 0.0  # of this life
    own_machine_id: str = ""  # of the machine this life runs on
    reference_asked_at: float = 0.0
    reference_heard_at: float = 0.0  # when the last question it answered was asked
    reference_trouble: str = ""  # why it did not answer the last one
    grace_over: bool = False
    doubted_at: float = 0.0
    doubt: str = ""
    brake_closed: bool = False
    brake_incident: str = ""
    store_mark: str = ""  # of the copy of the store that this was journalled in
    behind: str = ""  # why this aggregator only reconciles: an agent obeyed what this store does not hold
    members_at: int = 0  # position of the last event that changed who belongs to the fleet
    rebuilding: bool = False  # the store was lost: agents are asked what they keep of VMs
    kept: dict[str, KeptRecord] = field(default_factory=dict)  # uuid -> what was told of it, while rebuilding
    store_incident: str = ""
    breach: str = ""  # the invariant last broken by a decision, which was not carried out, and how
    breaches: int = 0
    breach_incident: str = ""
    tokens: dict[str, ApiToken] = field(default_factory=dict)  # of the API, by name
    denied: dict[str, float] = field(default_factory=dict)  # enrolment that counts no more -> since when
    disarmed: dict[str, Disarming] = field(default_factory=dict)  # by scope (arming.scope_key)
    armed_at: float = 0.0  # when a disarming ended last: every silence counts from then
    off_orders: list[float] = field(default_factory=list)
    storage_losses: dict[str, StorageLoss] = field(default_factory=dict)  # by storage, while a node does not reach it
    foreign: dict[str, dict[str, VmReport]] = field(default_factory=dict)  # node -> uuid -> report

    @cached_property
    def derived(self) -> Derived:
        """What follows from all this; see there."""
        return Derived()
