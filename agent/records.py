"""What an agent's ledger holds, record by record (agent.memory folds them, agent.ledger keeps them).

Knows the shapes and nothing of files.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from fleet.guest_health import GuestProbes
from fleet.messages import Order, ReceiveVm
from fleet.model import EndReason, Isolation, Leadership, OrderOutcome, SessionKey


class Standing(StrEnum):
    """What this node may do with a VM under the epoch it holds.

    PERMITTED: a start or an incoming copy is allowed, its CPUs have not been let run yet.
    RUNS: its CPUs may run or have run. RELEASED: they do not, and will not without a new order.
    """

    PERMITTED = "Permitted"
    RUNS = "Runs"
    RELEASED = "Released"


class Promise(Struct, frozen=True):
    """What this node has promised about one VM. epoch and run are the highest it accepted."""

    uuid: str
    name: str
    epoch: int
    run: int
    standing: Standing
    end: EndReason = EndReason.NOT_ENDED
    ran: bool = False  # CPUs of this (epoch, run) may have run here
    receive: ReceiveVm | None = None  # the permit for an incoming copy
    notice_taken: bool = False
    isolation: Isolation = Isolation()  # of the run that is here
    kept: bytes = b""  # for an aggregator that has lost its store (fleet.messages.KeptVm)
    probes: GuestProbes = GuestProbes()  # likewise
    let_go: bool = False  # undefined by order: whoever defines it by hand may start it by hand


class LedgerRecord(Struct, frozen=True, tag_field="r", tag=str.lower):
    """Base of what is kept on disk; the tag `r` is the lower-cased type name."""


class SessionOpened(LedgerRecord, frozen=True):
    """A session number that is used up: the next one is higher."""

    session: SessionKey


class LeadershipSeen(LedgerRecord, frozen=True):
    """The highest leadership this node ever obeyed."""

    leader: Leadership


class MembersTold(LedgerRecord, frozen=True):
    """The nodes of the fleet, as an aggregator told them: for one that has lost its store."""

    members: tuple[str, ...]


class OrderBegun(LedgerRecord, frozen=True):
    """An order was accepted; synced before its deed begins. Without its XML, which is large."""

    order: Order


class OrderEnded(LedgerRecord, frozen=True):
    """The final answer to an order, repeated when the order is repeated."""

    order_id: str
    outcome: OrderOutcome
    code: str = ""
    message: str = ""


class RunBegan(LedgerRecord, frozen=True):
    """CPUs of this run may have run here from now on: written before create or resume is called.

    confirmed: written a second time once a resume succeeded, or for a run found here that the
    aggregator says is ours; nothing is left to be done for it.
    """

    uuid: str
    name: str
    epoch: int
    run: int
    confirmed: bool = False


class VmReleased(LedgerRecord, frozen=True):
    """The QEMU of this epoch is gone and this node will not start the VM without a new order."""

    uuid: str
    name: str
    epoch: int
    run: int
    end: EndReason
    ran: bool  # false: its CPUs never ran here (a start that failed, a discarded copy)


class NoticeTaken(LedgerRecord, frozen=True):
    """The source told this target, with the right secret, that it is Released: resume may follow."""

    uuid: str
    migration: str


class PromiseKept(LedgerRecord, frozen=True):
    """A promise as it stood when the ledger was compacted."""

    promise: Promise


class VmForgotten(LedgerRecord, frozen=True):
    """A released VM the ledger had no more room for."""

    uuid: str


class LedgerLost(LedgerRecord, frozen=True):
    """The ledger of this boot was lost: only reports until the next boot."""

    boot_id: str


AnyLedgerRecord = (
    SessionOpened
    | LeadershipSeen
    | MembersTold
    | OrderBegun
    | OrderEnded
    | RunBegan
    | VmReleased
    | NoticeTaken
    | PromiseKept
    | VmForgotten
    | LedgerLost
)
