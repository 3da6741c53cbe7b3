"""Every message between agent and aggregator, and between two agents.

Knows the shapes and the protocol's numbers; the codec turns them into MessagePack.
docs/PROTOCOL.md is generated from these types, so each docstring is written for its reader.
"""

from __future__ import annotations

from msgspec import Struct

from fleet.message import *  # noqa: F403
from fleet.message import Message
from fleet.model import (
    Definition,
    Leadership,
    LedgerState,
    NodeFacts,
    NodeLoad,
    OrderOutcome,
    Plane,
    QemuState,
    SessionKey,
    VmReport,
)
from fleet.move_messages import *  # noqa: F403
from fleet.move_messages import CheckArrival, CheckDeparture, MoveChecked
from fleet.order_bodies import *  # noqa: F403 (one name for all that travels)
from fleet.order_bodies import OrderBody

PROTOCOL_MIN = 1
PROTOCOL_MAX = 2  # 2: agents keep VMs for an aggregator that loses its store (StartVm.kept, VmsKept)
FRAME_BYTES_MAX = 4 * 1024 * 1024
PICTURE_BYTES_MAX = 1024 * 1024
VMS_PER_NODE_MAX = 2000
MEMBERS_TOLD_MAX = 500  # of a larger fleet agents are not told who belongs to it
KEPT_BYTES_MAX = 12 * 1024  # of one VM in a ledger (StartVm.kept)


# --- agent to aggregator -------------------------------------------------------------------


class Hello(Message, frozen=True):
    """First frame of a connection: who speaks, and the promise of a new session.

    By sending it the agent states that all older sessions are closed and that nothing
    ordered under them will begin. `highest` is the highest leadership it ever obeyed, with its proof: one that
    is higher than all that this aggregator knows counts only if it was told by an aggregator of this fleet.
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
    load: NodeLoad | None = None


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
    """Progress of a live migration, at most once a second.

    rate_bytes_per_s: what gets through; dirty_bytes_per_s: what the guest writes meanwhile.
    iteration: the pass over memory; throttle_percent: by how much auto-converge slows the guest down.
    downtime_ms: the pause that is allowed at the end, by now.
    """

    uuid: str
    order_id: str
    percent: float
    remaining_bytes: int = 0
    rate_bytes_per_s: int = 0
    total_bytes: int = 0
    dirty_bytes_per_s: int = 0
    iteration: int = 0
    throttle_percent: int = 0
    downtime_ms: int = 0


class ProbeResult(Struct, frozen=True):
    """One question to a peer and what came back. asked_ago_s: when the report was sent, how long ago it was asked."""

    plane: Plane
    port: str  # agent | libvirt | ssh
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


class GuestPictured(Message, frozen=True):
    """What a guest's screen shows: asked for by TakePicture, or (no request) right before its run was ended.

    png: at most PICTURE_BYTES_MAX; empty where there is none, and message says why.
    """

    uuid: str
    run: int
    png: bytes
    request: str = ""
    message: str = ""


class KeptVm(Struct, frozen=True):
    """What a node's ledger keeps of a VM for the aggregator (StartVm.kept), at the epoch and run it was promised."""

    uuid: str
    name: str
    epoch: int
    run: int
    kept: bytes


class VmsKept(Message, frozen=True):
    """Everything that the ledger keeps, in portions behind the FullState. Only where the Welcome asks (rebuild).

    members: the nodes of the fleet, as this one was told last.
    """

    session: SessionKey
    vms: tuple[KeptVm, ...]
    more: bool = False  # another portion follows
    members: tuple[str, ...] = ()


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
    trust: names whom to trust and whom no more (fleet.trust); an agent that holds another one asks. Empty: nothing new.
    rebuild: this aggregator has lost its store; tell what the ledger keeps (VmsKept). members: the nodes of the fleet,
    for the ledger to keep; empty: nothing new.
    """

    protocol: int
    leader: Leadership
    session: SessionKey
    heartbeat_s: float
    assignments: tuple[Assignment, ...]
    trust: str = ""
    rebuild: bool = False
    members: tuple[str, ...] = ()


class BeatAnswer(Message, frozen=True):
    """Answer to a beat; its leadership is persisted when higher than any seen.

    A relayed beat is a sign of life only if the answer it names as `answered` (the welcome for 0)
    was sent no longer ago than a lease: so nothing that a relay kept back says that a node lives.
    trust, members: as in the welcome, once for each change.
    """

    sequence: int
    leader: Leadership
    trust: str = ""
    members: tuple[str, ...] = ()


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
    """One place to ask: `port` says who shall answer there: agent, libvirt, ssh (its banner), a storage's server."""

    plane: Plane
    port: str  # agent | libvirt | ssh; on the storage plane nbd or another kind of server
    host: str
    number: int


class ProbeRequest(Message, frozen=True):
    """Ask on these addresses for an application answer, each within 1 s. target: a suspect, or a storage."""

    probe_id: str
    target: str
    addresses: tuple[ProbeAddress, ...]


class Challenge(Message, frozen=True):
    """First frame of a relayed connection: what the agent's seal must be made of (see RelayOffer)."""

    nonce: str


class OfferRelay(Message, frozen=True):
    """Offer a silent node, whose agent you have just heard, to carry its frames. address: host:port."""

    target: str
    address: str


class CheckDefinition(Message, frozen=True):
    """Would this host's libvirt take this XML? Nothing is defined (apply asks before it accepts)."""

    check_id: str
    xml: str


class TakePicture(Message, frozen=True):
    """Show what the screen of this VM's guest holds. Only to agents of protocol 2."""

    request: str
    uuid: str


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


class RelayOffer(Message, frozen=True):
    """A peer in whose own, direct session we were asked about: you may speak through me for a moment.

    An agent whose beats are not answered connects to the address the offer came from, at `port`:
    `/peer/v1/relay?ticket=…`, a WebSocket. The peer opens another one to its own aggregator and
    carries binary frames both ways, unread: one hop, bounded, in order. The agent says who it is in
    `Authorization: Virtward-Relay node=…, via=…, nonce=…` (never its secret). The aggregator answers
    with Challenge; from then on every frame is preceded by an HMAC-SHA256 over direction, number and
    frame, keyed by the SHA-256 of its relay secret and all of these, so that the peer can neither forge nor alter.
    """

    peer: str
    target: str
    port: int
    ticket: str


FromAgent = (
    Hello
    | FullState
    | Delta
    | Beat
    | OrderReport
    | MigrationProgress
    | ProbeReport
    | DefinitionChecked
    | GuestPictured
    | MoveChecked
    | VmsKept
    | Goodbye
)
Question = ProbeRequest | OfferRelay | CheckDefinition | CheckArrival | CheckDeparture | TakePicture
FromAggregator = Welcome | BeatAnswer | Order | Question | Challenge | Refusal
BetweenAgents = ReleasedNotice | ReleasedReceipt | RelayOffer
