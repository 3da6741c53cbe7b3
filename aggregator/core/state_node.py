"""What is known and decided about one node, its silence, its fencing. Plain records; only the fold modules assign."""

from __future__ import annotations

from msgspec import Struct, field

from aggregator.core.objects import NodeSpec, Taint
from aggregator.core.words import NodeState, PowerAnswer, ProofKind
from fleet.messages import PROTOCOL_MIN, OrderInHand
from fleet.model import LedgerState, NodeFacts, NodeLoad, Plane, SessionKey


class PowerRead(Struct):
    """One answer of a node's fence device to a status question."""

    rung: int
    answer: PowerAnswer
    asked_at: float
    answered_at: float
    device: int = 0


class PeerHeard(Struct, frozen=True):
    """Where a peer got an answer from the node's agent. asked_at: of the question."""

    plane: Plane
    asked_at: float


class CrashHeard(Struct):
    """The node's crash kernel was heard; asked_at: since when it was listened for."""

    rung: int
    asked_at: float
    heard_at: float
    words: str


class Suspicion(Struct):
    """What has been gathered since a node fell silent. Lives as long as the silence."""

    since: float
    rounds: int = 0
    asked_at: float = 0.0
    power_asked_at: float = 0.0
    silent: dict[str, float] = field(default_factory=dict)  # plane -> when the last one left unanswered was asked
    answered: dict[str, float] = field(default_factory=dict)  # plane/port -> when the last one answered was asked
    heard_by: dict[str, float] = field(default_factory=dict)  # peer -> when the last one answered was asked
    agent_heard: dict[str, PeerHeard] = field(default_factory=dict)  # peer -> where its agent last answered
    relay: str = ""  # the peer that was last asked to carry its frames
    relay_asked_at: float = 0.0
    relay_tries: int = 0
    reads: list[PowerRead] = field(default_factory=list)
    listened_at: dict[int, float] = field(default_factory=dict)  # rung -> when it was last listened for a crash kernel
    crashed: CrashHeard | None = None


class FenceQuestion(Struct):
    """A question or order to a fence device that has not been answered."""

    question_id: str
    rung: int
    question: str
    purpose: str
    asked_at: float
    deadline: float
    device: int = 0


class FenceAttempt(Struct):
    """One walk down a node's ladder."""

    number: int
    since: float
    rung: int = 0
    tries: int = 0
    off_sent_at: float = 0.0  # of the last off order of any rung
    answers: list[PowerAnswer] = field(default_factory=list)  # of the rung's devices to the last off order
    answered_at: float = 0.0  # the last answer to an off order
    notes: list[str] = field(default_factory=list)
    living: bool = False  # the node beats: it is fenced for QEMUs that do not end there
    may_act_until: float = 0.0  # until then an order of this attempt could still act
    answering: bool = False  # peers get answers from its host, which was known when it began


class RungReadiness(Struct):
    """What is known of one device of a rung: proven right while the node beat, or why not."""

    device: str  # agent and parameters, in one string; another device is another proof
    on_at: float = 0.0
    checked_at: float = 0.0
    found_in: str = ""  # another node that finds this very controller in itself
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


class Impostor(Struct, frozen=True):
    """Another machine that says hello under the node's name. incident: the one about it."""

    machine_id: str
    since: float
    last_at: float
    incident: str = ""


class Credentials(Struct):
    """How a node's agent shows who it is, where agents have certificates; secrets only as SHA-256.

    enrolment: stands in each certificate that counts; empty: none does. A session of another one ends.
    joined_at: when it began, let in by a person. hypervisor_keys: of its libvirt, the one it has shown to hold and
    the one certified last, whose certificate it may not have got.
    """

    join_sha256: str = ""
    join_until: float = 0.0
    enrolment: str = ""
    joined_at: float = 0.0
    hypervisor_keys: tuple[str, ...] = ()


class NodeRecord(Struct):
    """One node: what is ordered of it, what it says, what we hold of it."""

    name: str
    created: float
    labels: dict[str, str] = {}
    spec: NodeSpec = NodeSpec()
    version: int = 0
    approved: bool = False
    token_sha256: str = ""
    credentials: Credentials = field(default_factory=Credentials)
    machine_id: str = ""
    host_uuid: str = ""
    facts: NodeFacts | None = None
    state: NodeState = NodeState.JOINING
    state_since: float = 0.0
    state_reason: str = ""
    boot_id: str = ""
    session: SessionKey | None = None  # the standing or last one
    session_since: float = 0.0
    via: str = ""  # the peer that carries this session's frames; empty: it speaks directly
    connected: bool = False
    doubted: bool = False  # the standing session is being closed, to ask anew
    complete: bool = False  # the session's picture of the node is whole
    ledger: LedgerState = LedgerState.NEW
    in_hand: tuple[OrderInHand, ...] = ()
    last_sign: float = 0.0
    host_stopping: bool = False  # its host is being shut down, and it is emptied for that
    protocol: int = PROTOCOL_MIN  # the highest that its agent speaks
    load: NodeLoad | None = None  # by its last beat; not journalled, so nothing is decided by it
    last_order_at: float = 0.0
    ended_how: str = ""
    ended_by_it: bool = False  # its own end closed or broke the connection, not ours
    seen: bool = False  # in this life of the aggregator
    expected: bool = False  # a person named it when the store was rebuilt: nothing is done before it has spoken
    kept_told: bool = False  # in this session, all that its ledger keeps of VMs (rebuild.py)
    taints: tuple[Taint, ...] = ()  # the system's
    rescue_since: float = 0.0  # its agent is gone for so long that its VMs have to leave; 0: not so
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
    left_in_order: bool = False  # in maintenance, with nothing bound to it and a goodbye: that silence is no failure
    convicted_at: float = 0.0  # last time it was found Lost or ordered off (for the brake)
    failures: list[float] = field(default_factory=list)  # when it was convicted or found off, within a day
    flaps: bool = False  # it failed too often: no VM is placed on it
    power_ons: list[float] = field(default_factory=list)
    storage_lost: dict[str, float] = field(default_factory=dict)  # storage its agent does not reach -> since when
    storage_marked: tuple[str, ...] = ()  # those of them that others reach
    incident: str = ""
    impostor: Impostor | None = None
    fact: int = 0
    left_at: float = 0.0  # when a VM was bound to it no longer, the last time
