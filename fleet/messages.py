"""Every message between agent and aggregator, and between two agents.

Knows the shapes and the protocol's numbers; the codec turns them into MessagePack.
docs/PROTOCOL.md is generated from these types, so each docstring is written for its reader.
"""

from __future__ import annotations

from msgspec import Struct

from fleet.model import (
    Definition,
    Leadership,
    LedgerState,
    NodeFacts,
    OrderOutcome,
    Plane,
    QemuState,
    SessionKey,
    VmReport,
)

PROTOCOL_MIN = 1
PROTOCOL_MAX = 1
FRAME_BYTES_MAX = 4 * 1024 * 1024
VMS_PER_NODE_MAX = 2000


class Message(Struct, frozen=True, tag_field="t", tag=str.lower):
    """Base of all messages; the tag `t` is the lower-cased type name."""


# --- agent to aggregator -------------------------------------------------------------------


class Hello(Message, frozen=True):
    """First frame of a connection: who speaks, and the promise of a new session.

    By sending it the agent states that all older sessions are closed and that nothing
    ordered under them will begin. `highest` is the highest leadership it ever obeyed.
    """

    protocol_min: int
    protocol_max: int
    node: str
    session: SessionKey
    facts: NodeFacts
    ledger: LedgerState
    highest: Leadership | None = None


class OrderInHand(Struct, frozen=True):
    """An order the agent has begun and not finished (of this or an older session)."""

    order_id: str
    uuid: str
    epoch: int
    kind: str


class FullState(Message, frozen=True):
    """Everything on the node; sent after Welcome and whenever a delta would not do.

    complete: libvirt and /proc were both read, so a VM that is not listed is not here.
    Where it is false nothing may be concluded from an absence.
    """

    session: SessionKey
    generation: int
    vms: tuple[VmReport, ...]
    in_hand: tuple[OrderInHand, ...]
    complete: bool
    definitions: tuple[Definition, ...] = ()


class Delta(Message, frozen=True):
    """VMs whose report changed since `generation` - 1, and facts if they changed."""

    session: SessionKey
    generation: int
    vms: tuple[VmReport, ...] = ()
    definitions: tuple[Definition, ...] = ()
    facts: NodeFacts | None = None


class Beat(Message, frozen=True):
    """A sign of life. `answered` is the highest sequence whose answer the agent has seen."""

    sequence: int
    generation: int
    answered: int = 0


class OrderReport(Message, frozen=True):
    """What became of an order. Repeated for a repeated order (idempotent by order id)."""

    session: SessionKey
    order_id: str
    uuid: str
    epoch: int
    outcome: OrderOutcome
    code: str = ""
    message: str = ""
    vm: VmReport | None = None


class MigrationProgress(Message, frozen=True):
    """Progress of a live migration, at most once a second."""

    uuid: str
    order_id: str
    percent: float
    remaining_bytes: int = 0
    rate_bytes_per_s: int = 0


class ProbeResult(Struct, frozen=True):
    """One question to a peer and what came back. asked_ago_s: when the report was sent, how long ago it was asked."""

    plane: Plane
    port: str  # agent | libvirt
    answered: bool
    asked_ago_s: float
    detail: str = ""


class ProbeReport(Message, frozen=True):
    """What a peer saw of a suspect: an *application* answer within 1 s, or none."""

    session: SessionKey
    probe_id: str
    target: str
    results: tuple[ProbeResult, ...]


class DefinitionChecked(Message, frozen=True):
    """Answer to CheckDefinition: whether this host's libvirt takes the XML, in its own words."""

    check_id: str
    ok: bool
    message: str = ""


class Goodbye(Message, frozen=True):
    """The agent stops on purpose (service stop, upgrade): its guests live on."""

    session: SessionKey
    reason: str


# --- aggregator to agent -------------------------------------------------------------------


class Assignment(Struct, frozen=True):
    """What the aggregator holds about one VM the agent may know: whose it is, at which epoch."""

    uuid: str
    name: str
    epoch: int
    run: int
    here: bool  # this node is its owner; else it is in other hands (or nobody's)


class Welcome(Message, frozen=True):
    """Answer to Hello: the session stands once the agent's FullState is in.

    assignments name every VM the aggregator knows to concern this node, those in other
    hands included: the agent learns what is no longer its own before it may run any.
    """

    protocol: int
    leader: Leadership
    session: SessionKey
    heartbeat_s: float
    assignments: tuple[Assignment, ...]


class BeatAnswer(Message, frozen=True):
    """Answer to a beat; its leadership is persisted when higher than any seen."""

    sequence: int
    leader: Leadership


class StartVm(Struct, frozen=True, tag_field="k", tag="start"):
    """Define (XML as given) and create; autostart stays off. Report the completed definition."""

    xml: str
    run: int
    force_boot: bool = True


class ShutdownVm(Struct, frozen=True, tag_field="k", tag="shutdown"):
    """Ask the guest to power off, destroy it when grace_s is over; then Released."""

    run: int
    grace_s: float


class DestroyVm(Struct, frozen=True, tag_field="k", tag="destroy"):
    """End the QEMU at once; then Released."""

    run: int


class PauseVm(Struct, frozen=True, tag_field="k", tag="pause"):
    """Stop the guest's CPUs."""

    run: int


class UnpauseVm(Struct, frozen=True, tag_field="k", tag="unpause"):
    """Let the guest's CPUs run again (never a copy that waits for its hand-over)."""

    run: int


class ReceiveVm(Struct, frozen=True, tag_field="k", tag="receive"):
    """Target's part of a migration, ordered before the source's: accept the incoming half.

    The order's epoch is the *new* epoch. The target resumes its paused copy when it has the
    source's Released for source_epoch, from the source's agent (proved by handover_secret) or
    by an order ResumeVm; never on libvirt's word.
    """

    migration: str
    run: int
    source: str
    source_epoch: int
    handover_secret: str


class MigrateVm(Struct, frozen=True, tag_field="k", tag="migrate"):
    """Source's part: peer-to-peer, VIR_MIGRATE_PAUSED, PERSIST_DEST and UNDEFINE_SOURCE.

    When its QEMU's pidfd is readable it persists Released, then tells the target's agent
    (peer_agent, with handover_secret) and the aggregator.
    """

    migration: str
    run: int
    target: str
    target_epoch: int
    peer_uri: str
    migration_address: str
    peer_agent: tuple[str, ...]  # host:port, one per plane, tried in order
    handover_secret: str
    bandwidth_bytes_per_s: int = 0
    downtime_ms_max: int = 300
    timeout_s: float = 600.0


class ResumeVm(Struct, frozen=True, tag_field="k", tag="resume"):
    """Target: the source is Released, run your arrived copy. The order's epoch is the new one."""

    migration: str
    run: int


class CancelMigration(Struct, frozen=True, tag_field="k", tag="cancel"):
    """Source: abort the migration job; the guest goes on here."""

    migration: str


class DiscardIncoming(Struct, frozen=True, tag_field="k", tag="discard"):
    """Target: remove the incoming or arrived copy, only if it has never run; then Released."""

    migration: str


class UndefineVm(Struct, frozen=True, tag_field="k", tag="undefine"):
    """Remove the definition of a VM that has no QEMU here. Disks, NVRAM and TPM state stay."""

    reason: str


OrderBody = (
    StartVm
    | ShutdownVm
    | DestroyVm
    | PauseVm
    | UnpauseVm
    | ReceiveVm
    | MigrateVm
    | ResumeVm
    | CancelMigration
    | DiscardIncoming
    | UndefineVm
)


class Order(Message, frozen=True):
    """One thing to do to one VM. Refused if term, epoch or session is older than what the agent knows.

    Idempotent by order_id: the ledger holds it, synced, before the deed begins.
    """

    order_id: str
    uuid: str
    name: str
    epoch: int
    leader: Leadership
    session: SessionKey
    body: OrderBody


class ProbeAddress(Struct, frozen=True):
    """One place to ask: `port` says whether the agent or libvirt shall answer there."""

    plane: Plane
    port: str  # agent | libvirt
    host: str
    number: int


class ProbeRequest(Message, frozen=True):
    """Ask a suspect on these addresses for an application answer, each within 1 s."""

    probe_id: str
    target: str
    addresses: tuple[ProbeAddress, ...]


class CheckDefinition(Message, frozen=True):
    """Would this host's libvirt take this XML? Nothing is defined (apply asks before it accepts)."""

    check_id: str
    xml: str


class Refusal(Message, frozen=True):
    """The aggregator does not take this agent: why, and what a person can do."""

    code: str
    message: str


# --- agent to agent (HTTP on the agent port) ------------------------------------------------


class ReleasedNotice(Message, frozen=True):
    """Source's agent to target's: my QEMU is gone and I have persisted that it stays so."""

    uuid: str
    migration: str
    source: str
    source_epoch: int
    target_epoch: int
    handover_secret: str
    leader: Leadership


class ReleasedReceipt(Message, frozen=True):
    """The target's answer: whether it took the notice, and what it sees of the VM."""

    uuid: str
    accepted: bool
    state: QemuState
    message: str = ""


FromAgent = (
    Hello | FullState | Delta | Beat | OrderReport | MigrationProgress | ProbeReport | DefinitionChecked | Goodbye
)
FromAggregator = Welcome | BeatAnswer | Order | ProbeRequest | CheckDefinition | Refusal
BetweenAgents = ReleasedNotice | ReleasedReceipt
