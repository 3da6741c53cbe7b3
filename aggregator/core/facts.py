"""Facts: what somebody else said or did. Folded as they come, journalled but for beats and progress."""

from __future__ import annotations

from msgspec import field

from aggregator.core.objects import MigrationPolicySpec, NodeSpec, VmSpec
from aggregator.core.words import ApiRole, Event, PowerAnswer, VmVerb
from fleet.messages import PROTOCOL_MIN, MigrationProgress, OrderInHand, ProbeResult
from fleet.model import (
    Definition,
    Disk,
    Leadership,
    LedgerState,
    NodeFacts,
    NodeLoad,
    OrderOutcome,
    SessionKey,
    VmReport,
)

# --- facts: the aggregator itself ----------------------------------------------------------


class AggregatorStarted(Event, frozen=True, kw_only=True):
    """A new life of the aggregator: every silence starts again from here (S7)."""

    leader: Leadership
    machine_id: str = ""  # of the machine it runs on
    secret: str = ""  # seed of hand-over secrets; empty: keep the one in the state
    away_s: float = 0.0  # since the last journalled event, by a wall clock that may have been set in between
    store_mark: str = ""  # of the copy of the store that was read: a restored backup has another
    lost_events: int = 0  # at least so many were journalled after the last one that was read


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
    protocol: int = PROTOCOL_MIN  # the highest that it speaks
    via: str = ""  # the peer that carries its frames
    disbelieved: Leadership | None = None  # what it says it obeyed, and no aggregator of this fleet has told


class SessionEnded(Event, frozen=True, kw_only=True):
    """The agent's connection is over. how: goodbye | closed | reset | timeout | replaced.

    by_it: the other end closed or broke it, which a host does whose agent died and whose kernel lives.
    """

    node: str
    session: SessionKey
    how: str
    by_it: bool = False


class IdentityRefused(Event, frozen=True, kw_only=True):
    """Another machine said hello under this node's name, with its token, and was refused."""

    node: str
    machine_id: str
    host_uuid: str = ""


class BeatHeard(Event, frozen=True, kw_only=True):
    """A sign of life of a standing session. Never journalled.

    made_after: fleet time at which we sent the answer that it shows it has seen, so it cannot be
    older; None where that is not asked (a direct session).
    """

    node: str
    session: SessionKey
    sequence: int
    made_after: float | None = None
    load: NodeLoad | None = None


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
    far: MigrationProgress


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


class ReferenceAnswered(Event, frozen=True, kw_only=True):
    """Whether the reference address answered. asked_at: fleet time just before it was asked."""

    asked_at: float
    answered: bool
    detail: str = ""


# --- facts: people ----------------------------------------------------------------------------


class VmApplied(Event, frozen=True, kw_only=True):
    """A VirtualMachine was created or replaced; already checked at the edge."""

    name: str
    uuid: str
    spec: VmSpec
    labels: dict[str, str]
    annotations: dict[str, str] = field(default_factory=dict)
    disks: tuple[Disk, ...] = ()
    cpu_m: int = 0
    memory_bytes: int = 0
    who: str = ""


class VmDeleteRequested(Event, frozen=True, kw_only=True):
    """A person deletes a VM; the edge refused a running one without force."""

    name: str
    who: str = ""


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


class JoinTokenIssued(Event, frozen=True, kw_only=True):
    """A join token's SHA-256: good once, until a time, for a certificate that names the node. An older one ends."""

    name: str
    token_sha256: str
    until: float
    who: str = ""


class NodeJoined(Event, frozen=True, kw_only=True):
    """A join token was used up. enrolment: stands in every certificate that comes of it; all older ones end.

    relay_sha256: of the secret that seals its relayed frames.
    """

    name: str
    enrolment: str
    relay_sha256: str


class NodeRevoked(Event, frozen=True, kw_only=True):
    """A person ends all that a node's agent could show: certificates, token, session. VMs on it run on."""

    name: str
    who: str = ""


class ApiTokenIssued(Event, frozen=True, kw_only=True):
    """A person's or program's token: its SHA-256, what it may, on which VMs (all, where selector is empty)."""

    token: str
    token_sha256: str
    role: ApiRole
    selector: str
    until: float
    who: str = ""


class ApiTokenRevoked(Event, frozen=True, kw_only=True):
    """A token ends before its time."""

    token: str
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


class NodeForgiven(Event, frozen=True, kw_only=True):
    """A person opens a node again that failed too often (uncordon): its failures so far count no more."""

    name: str
    who: str = ""


class Disarmed(Event, frozen=True, kw_only=True):
    """A person stops automatic action on a node, a VM, whatever a label selector matches, or else the fleet.

    until: fleet time; 0: no end.
    """

    node: str = ""
    vm: str = ""
    selector: str = ""
    until: float = 0.0
    who: str = ""


class Armed(Event, frozen=True, kw_only=True):
    """A person ends a disarming of the same scope."""

    node: str = ""
    vm: str = ""
    selector: str = ""
    who: str = ""


class DrainRequested(Event, frozen=True, kw_only=True):
    """A person empties a node. deadline_s: 0 means none.

    job: of several drains that go one failure domain after another; domain: this node's; turn: its place among them.
    keeps_spare: it begins only where another node could be lost meanwhile (TurnJudged).
    """

    node: str
    deadline_s: float = 0
    force: bool = False
    who: str = ""
    job: str = ""
    domain: str = ""
    turn: int = 0
    keeps_spare: bool = False


class DrainPaused(Event, frozen=True, kw_only=True):
    """A drain begins nothing more until it is resumed (paused: False); migrations in flight go on to their end."""

    node: str
    paused: bool
    who: str = ""


class DrainCancelled(Event, frozen=True, kw_only=True):
    """The drain stops where it is; migrations in flight go on to their end. Uncordon is this too."""

    node: str
    who: str = ""


class MigrationPolicyApplied(Event, frozen=True, kw_only=True):
    """A MigrationPolicy was created or replaced; already checked at the edge."""

    policy: str
    spec: MigrationPolicySpec
    labels: dict[str, str] = field(default_factory=dict)
    who: str = ""


class MigrationPolicyDeleted(Event, frozen=True, kw_only=True):
    """A MigrationPolicy is no more; migrations under way go on as they began."""

    policy: str
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
