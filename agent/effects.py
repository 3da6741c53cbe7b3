"""What the keeper asks of its driver. agent.keeper_types is the one name for it, and states the driver's contract."""

from __future__ import annotations

from msgspec import Struct

from agent.deeds import AnyDeed
from agent.records import AnyLedgerRecord
from agent.wall import Forbid, LetGo, Permit, RaiseWall
from fleet.guest_health import GuestProbe, ProbeKind
from fleet.messages import CheckArrival, CheckDeparture, FromAgent, ProbeAddress, ReleasedNotice, ReleasedReceipt


class Persist(Struct, frozen=True):
    """Append to the ledger and sync, before any later effect."""

    record: AnyLedgerRecord


class Send(Struct, frozen=True):
    """Send a message on that connection if it is still open."""

    link: int
    message: FromAgent


class CloseLink(Struct, frozen=True):
    """End that connection; connect again no sooner than wait_s from now."""

    link: int
    reason: str
    wait_s: float = 0.0


class Call(Struct, frozen=True):
    """Begin a deed; CallReturned(call_id) follows, at timeout_s with RESULT_UNKNOWN at the latest."""

    call_id: int
    uuid: str
    deed: AnyDeed
    timeout_s: float


class TellPeer(Struct, frozen=True):
    """Try the addresses (host:port) in order, 1 s each; PeerAnswered follows."""

    addresses: tuple[str, ...]
    notice: ReleasedNotice


class AnswerPeer(Struct, frozen=True):
    """The answer to PeerNoticeReceived(request)."""

    request: int
    receipt: ReleasedReceipt


class Probe(Struct, frozen=True):
    """Ask all addresses side by side, 1 s each; ProbeReturned follows."""

    probe_id: str
    target: str
    addresses: tuple[ProbeAddress, ...]


class ProbeGuest(Struct, frozen=True):
    """Ask a running guest once; GuestProbed with that number follows, or nothing."""

    uuid: str
    kind: ProbeKind
    number: int
    probe: GuestProbe


class OfferToPeer(Struct, frozen=True):
    """Send a RelayOffer with a fresh ticket to that agent (host:port); nothing follows."""

    target: str
    address: str


class OpenRelay(Struct, frozen=True):
    """Connect to the aggregator through that peer; LinkOpened(via) follows, or nothing."""

    peer: str
    address: str
    ticket: str


class PictureGuest(Struct, frozen=True):
    """Have the hypervisor show what a guest's screen holds; PictureTaken follows."""

    request: str
    uuid: str


class CheckXml(Struct, frozen=True):
    """Ask the hypervisor whether it would take the XML, defining nothing; XmlChecked follows."""

    check_id: str
    xml: str


class CheckMove(Struct, frozen=True):
    """Look whether a move would succeed, beginning nothing; MoveLooked follows, or nothing."""

    question: CheckArrival | CheckDeparture


class LookNow(Struct, frozen=True):
    """Read everything anew; DomainsListed follows (complete or not), within 2 s."""


class LookAgainAt(Struct, frozen=True):
    """Give a Tick at that monotonic time at the latest."""

    at_s: float


class Note(Struct, frozen=True):
    """One line for the log: a state change and its reason. Never acted upon."""

    event: str
    uuid: str = ""
    detail: str = ""
    warning: bool = False


Effect = (
    Persist
    | Send
    | CloseLink
    | Call
    | TellPeer
    | AnswerPeer
    | Probe
    | ProbeGuest
    | OfferToPeer
    | OpenRelay
    | CheckXml
    | PictureGuest
    | CheckMove
    | LookNow
    | LookAgainAt
    | Note
    | RaiseWall
    | Permit
    | Forbid
    | LetGo
)
