"""What the HTTP API may ask of the running aggregator, and nothing else.

The shell (aggregator.service) fulfils this Protocol; the API's tests may fulfil it with their own
object. Everything here is called on the aggregator's event loop, never from another thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec import Struct

from aggregator.core.events import Event
from aggregator.core.preflight import ClosedWay
from aggregator.core.state import HistoryLine, State
from aggregator.core.whatif import Readiness
from fleet.messages import CheckArrival, CheckDeparture, MoveChecked

HISTORY_LINES_MAX = 5000


class NotServingError(Exception):
    """The aggregator cannot take a write now (starting, stopping, store lost): HTTP 503, try again."""


class NoPictureError(Exception):
    """There is no screenshot; the text is one sentence."""


class DefinitionVerdict(Struct, frozen=True):
    """What a host's libvirt says about a domain XML. ok is None when no agent could be asked; message says why."""

    ok: bool | None
    message: str = ""
    node: str = ""


class HistoryQuery(Struct, frozen=True, kw_only=True):
    """Which lines of history. after: only positions above it; limit: the newest so many of those that match."""

    after: int = 0
    kind: str = ""
    node: str = ""
    vm: str = ""
    limit: int = 500


class FleetAccess(Protocol):
    """The API's only door to the fleet."""

    @property
    def state(self) -> State:
        """The present state. Read only: build views from it without awaiting in between."""

    @property
    def token_sha256(self) -> str:
        """SHA-256 of the admin token, 64 lower-case hex digits; compare in constant time."""

    @property
    def authority_sha256(self) -> str:
        """SHA-256 of the certificate that agents know this fleet's aggregators by; empty where agents speak openly."""

    def certify_person(self, request: str, name: str, enrolment: str, life_s: float) -> str:
        """Return a PEM certificate for a person or program, by a PEM request; IdentityError if none can be made."""

    @property
    def leader_ready(self) -> bool:
        """True while writes are taken: this aggregator leads, has read its journal and its store works."""

    @property
    def readiness(self) -> Readiness | None:
        """The newest standing report on the loss of each part of the fleet; None until the first one is made."""

    @property
    def closed_ways(self) -> Sequence[ClosedWay]:
        """The ways between nodes that were found closed in the background; empty where none was, or not yet."""

    def now(self) -> float:
        """Fleet time: Unix seconds that never go backwards. A fact's `at`."""

    async def submit(self, fact: Event, check: Callable[[State], None] | None = None) -> int:
        """Hand a person's fact to the loop; return its journal position once it is folded and journalled.

        check is called with the state right before the fact is folded (nothing comes in between): what it
        raises is raised here and the fact is not folded. So resourceVersion conflicts and names that
        exist are decided there. NotServingError if the fact cannot be taken.
        """

    async def check_definition(self, xml: str, timeout_s: float = 5.0) -> DefinitionVerdict:
        """Ask the agent of one Up node whether its libvirt takes this XML; nothing is defined anywhere."""

    async def take_picture(self, uuid: str) -> bytes:
        """Return a PNG of what the guest of this VM shows now. NoPictureError."""

    async def kept_picture(self, incident: str) -> bytes:
        """Return the PNG that is kept beside an incident. NoPictureError."""

    async def ask_move(
        self, node: str, question: CheckArrival | CheckDeparture, timeout_s: float = 8.0
    ) -> MoveChecked | None:
        """Ask a node's agent about a move that has not begun; None if it cannot be asked or does not answer."""

    async def history(self, query: HistoryQuery) -> Sequence[HistoryLine]:
        """Return lines of history, oldest first, at most HISTORY_LINES_MAX; also from before this life."""

    async def wait_for_change(self, since_position: int) -> int:
        """Return the journal position as soon as it is above since_position (watches; cancel it freely)."""
