"""The words between the keeper and whoever carries out its effects.

The keeper is the whole protocol behaviour of an agent without a clock and without I/O. Two
programs drive it: the daemon (agent.main) and the simulator. Both give it one fact at a time
with the time it was learnt, and perform the effects it returns.

The contract of the driver:

1. Effects are performed strictly in order, across steps too: one queue. A `Persist` is synced
   to disk before anything behind it is performed. A crash loses every effect not yet performed
   and everything the keeper remembered but for the records persisted so far.
2. `Call` and `TellPeer`, `Probe`, `LookNow` only *begin* work. Their ends come back as facts.
3. A `Send` or `CloseLink` for a link that is no longer open is dropped silently.
4. `LookAgainAt` asks for a `Tick` at that time at the latest; the newest one replaces the others.
5. Times are seconds of one monotonic clock of the node, never a wall clock.

Knows no libvirt, no sockets, no files.
"""

from __future__ import annotations

from msgspec import Struct

from agent.deeds import (
    AWAY_ALIVE,
    AWAY_GONE,
    AWAY_MIGRATED,
    AWAY_MOVING,
    CODE_NOT_FOUND,
    CODE_NOT_PAUSED,
    CODE_NOT_RUNNING,
    CODE_UNKNOWN,
    AbortJob,
    AnyDeed,
    AskShutdown,
    AskState,
    Create,
    Deed,
    Define,
    Destroy,
    DestroyIncoming,
    Elsewhere,
    Migrate,
    Resume,
    Screenshot,
    SetDowntime,
    Suspend,
    Undefine,
    VmObservation,
)
from agent.effects import (
    AnswerPeer,
    Call,
    CheckMove,
    CheckXml,
    CloseLink,
    Effect,
    LookAgainAt,
    LookNow,
    Note,
    OfferToPeer,
    OpenRelay,
    Persist,
    PictureGuest,
    Probe,
    ProbeGuest,
    Send,
    TellPeer,
)
from agent.keeper_settings import KeeperSettings
from agent.records import (
    AnyLedgerRecord,
    LeadershipSeen,
    LedgerLost,
    LedgerRecord,
    NoticeTaken,
    OrderBegun,
    OrderEnded,
    RunBegan,
    SessionOpened,
    VmForgotten,
    VmReleased,
)
from fleet.guest_health import ProbeKind
from fleet.messages import (
    FromAggregator,
    MoveChecked,
    ProbeResult,
    RelayOffer,
    ReleasedNotice,
    ReleasedReceipt,
)
from fleet.model import (
    Definition,
    EndReason,
    NodeFacts,
    NodeLoad,
)

__all__ = [
    "AWAY_ALIVE",
    "AWAY_GONE",
    "AWAY_MIGRATED",
    "AWAY_MOVING",
    "CODE_NOT_FOUND",
    "CODE_NOT_PAUSED",
    "CODE_NOT_RUNNING",
    "CODE_UNKNOWN",
    "AbortJob",
    "AnswerPeer",
    "AnyDeed",
    "AnyLedgerRecord",
    "AskShutdown",
    "AskState",
    "Call",
    "CallReturned",
    "CheckMove",
    "CheckXml",
    "CloseLink",
    "Create",
    "Deed",
    "Define",
    "DefinitionRead",
    "Destroy",
    "DestroyIncoming",
    "DomainChanged",
    "DomainsListed",
    "Effect",
    "Elsewhere",
    "Fact",
    "FactsRead",
    "GuestProbed",
    "KeeperSettings",
    "LeadershipSeen",
    "LedgerLost",
    "LedgerRecord",
    "LinkClosed",
    "LinkOpened",
    "LoadRead",
    "LookAgainAt",
    "LookNow",
    "MessageReceived",
    "Migrate",
    "MigrationMoved",
    "Note",
    "NoticeTaken",
    "OfferToPeer",
    "OpenRelay",
    "OrderBegun",
    "OrderEnded",
    "PeerAnswered",
    "PeerNoticeReceived",
    "Persist",
    "PictureGuest",
    "PictureTaken",
    "PidGone",
    "Probe",
    "ProbeGuest",
    "ProbeReturned",
    "RelayOffered",
    "Resume",
    "RunBegan",
    "Screenshot",
    "Send",
    "SessionOpened",
    "SetDowntime",
    "Stopping",
    "Suspend",
    "TellPeer",
    "Tick",
    "Undefine",
    "VmForgotten",
    "VmObservation",
    "VmReleased",
    "XmlChecked",
]

# --- facts ----------------------------------------------------------------------------------


class LinkOpened(Struct, frozen=True):
    """A connection to an aggregator stands; nothing was sent yet. `link` rises. via: the peer that carries it."""

    link: int
    via: str = ""


class LinkClosed(Struct, frozen=True):
    """The connection is over, whoever ended it."""

    link: int


class MessageReceived(Struct, frozen=True):
    """A decoded message of that connection."""

    link: int
    message: FromAggregator


class DomainsListed(Struct, frozen=True):
    """Every VM on the node. complete: libvirt and /proc were both read.

    asked_s: when the reading began; what was ordered later is not contradicted by it.
    """

    vms: tuple[VmObservation, ...]
    complete: bool
    asked_s: float


class DomainChanged(Struct, frozen=True):
    """One VM looked at anew (after an event). asked_s as in DomainsListed."""

    vm: VmObservation
    asked_s: float


class DefinitionRead(Struct, frozen=True):
    """A definition was read that is new or changed."""

    definition: Definition


class PidGone(Struct, frozen=True):
    """The QEMU process is gone: pidfd readable, or Z with exactly one task. The only proof."""

    uuid: str
    qemu: str
    end: EndReason = EndReason.NOT_ENDED
    reason: str = ""


class CallReturned(Struct, frozen=True):
    """A `Call` ended, as agent.hypervisor.Result says."""

    call_id: int
    ok: bool
    code: str = ""
    message: str = ""
    definition: Definition | None = None
    picture: bytes = b""


class MigrationMoved(Struct, frozen=True):
    """Progress of the job of a VM that is being migrated away."""

    uuid: str
    percent: float
    remaining_bytes: int = 0
    rate_bytes_per_s: int = 0
    total_bytes: int = 0
    dirty_bytes_per_s: int = 0
    iteration: int = 0
    throttle_percent: int = 0


class PeerNoticeReceived(Struct, frozen=True):
    """Another agent told us that it released a VM. Answer with AnswerPeer(request, …)."""

    request: int
    notice: ReleasedNotice


class PeerAnswered(Struct, frozen=True):
    """End of a TellPeer; receipt None: no address answered."""

    uuid: str
    migration: str
    receipt: ReleasedReceipt | None
    detail: str = ""


class RelayOffered(Struct, frozen=True):
    """A peer offers to carry our frames. address: host:port where it listens."""

    offer: RelayOffer
    address: str


class ProbeReturned(Struct, frozen=True):
    """End of a Probe. asked_s: when the questions were sent (asked_ago_s is filled in later)."""

    probe_id: str
    target: str
    results: tuple[ProbeResult, ...]
    asked_s: float


class XmlChecked(Struct, frozen=True):
    """End of a CheckXml: whether the hypervisor would take it, in its own words."""

    check_id: str
    ok: bool
    message: str = ""


class PictureTaken(Struct, frozen=True):
    """End of a PictureGuest. png is empty where there is none, and message says why."""

    request: str
    uuid: str
    png: bytes
    message: str = ""


class MoveLooked(Struct, frozen=True):
    """End of a CheckMove."""

    answer: MoveChecked


class GuestProbed(Struct, frozen=True):
    """The answer to a ProbeGuest. good: None where the guest could not be asked, which says nothing of it."""

    uuid: str
    kind: ProbeKind
    number: int
    good: bool | None
    words: str = ""


class LoadRead(Struct, frozen=True):
    """The node's load was read anew: it goes with the next beat."""

    load: NodeLoad


class FactsRead(Struct, frozen=True):
    """The node's facts were read anew."""

    facts: NodeFacts


class Stopping(Struct, frozen=True):
    """The agent is asked to end; guests live on."""

    reason: str


class Tick(Struct, frozen=True):
    """Time has passed; see LookAgainAt."""


Fact = (
    LinkOpened
    | LinkClosed
    | MessageReceived
    | DomainsListed
    | DomainChanged
    | DefinitionRead
    | PidGone
    | CallReturned
    | MigrationMoved
    | PeerNoticeReceived
    | PeerAnswered
    | RelayOffered
    | ProbeReturned
    | XmlChecked
    | PictureTaken
    | MoveLooked
    | FactsRead
    | LoadRead
    | GuestProbed
    | Stopping
    | Tick
)
