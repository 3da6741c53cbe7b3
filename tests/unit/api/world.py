"""A fleet behind FleetAccess for tests of the API: the real core on an in-memory journal, no loop.

The nodes, agents and fence devices are those of the core's own tests. Time moves when a test says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from hashlib import sha256

from aggregator.core.events import Event
from aggregator.core.preflight import ClosedWay
from aggregator.core.state import HistoryLine, State
from aggregator.core.turns import answer_turns, ask_turns
from aggregator.core.whatif import Readiness, answer_all, ask_all
from aggregator.fleet_access import DefinitionVerdict, HistoryQuery, NoPictureError, NotServingError
from fleet.identity import IdentityError
from fleet.messages import CheckArrival, CheckDeparture, MoveChecked
from tests.unit.core.fleet import Fleet

TOKEN = "the-admin-token"


class World:
    """Fulfils FleetAccess."""

    def __init__(self, nodes: int = 3, config: dict[str, object] | None = None) -> None:
        self.core = Fleet(nodes, config)
        self.core.run(2)
        self.ready = True
        self.authority = "a" * 64  # empty: agents speak openly
        self.verdict = DefinitionVerdict(ok=True, node="n1")
        self.reported = True  # a standing report has been made
        self.checked: list[str] = []
        self.pictures: dict[str, bytes] = {}  # by VM's uuid or incident
        self.closed: tuple[ClosedWay, ...] = ()
        self.asked: list[tuple[str, CheckArrival | CheckDeparture]] = []
        self.answers: dict[tuple[str, type], MoveChecked] = {}  # what a node says of a move
        self.before_fold: list[Callable[[], object]] = []  # run once each, between a write's check and its fold
        self.durable: int | None = None  # the journal lags behind the state; None: it does not
        self._changed = asyncio.Event()

    @property
    def position(self) -> int:
        """How far the journal is."""
        return self.state.position if self.durable is None else self.durable

    @property
    def state(self) -> State:
        return self.core.state

    @property
    def token_sha256(self) -> str:
        return sha256(TOKEN.encode()).hexdigest()

    @property
    def authority_sha256(self) -> str:
        return self.authority

    def certify_person(self, request: str, name: str, enrolment: str, life_s: float) -> str:
        raise IdentityError("there is no authority to sign a certificate")

    @property
    def leader_ready(self) -> bool:
        return self.ready

    @property
    def readiness(self) -> Readiness | None:
        return answer_all(ask_all(self.state, self.now())) if self.reported else None

    @property
    def closed_ways(self) -> Sequence[ClosedWay]:
        return self.closed

    def now(self) -> float:
        return self.core.now

    async def submit(self, fact: Event, check: Callable[[State], None] | None = None) -> int:
        if not self.ready:
            raise NotServingError("the store is lost")
        if self.before_fold:
            self.before_fold.pop(0)()
        if check is not None:
            check(self.state)
        self.core.settle(fact)
        self.tell()
        return self.state.position

    async def check_definition(self, xml: str, timeout_s: float = 5.0) -> DefinitionVerdict:
        self.checked.append(xml)
        return self.verdict

    async def take_picture(self, uuid: str) -> bytes:
        return self._picture(uuid)

    async def kept_picture(self, incident: str) -> bytes:
        return self._picture(incident)

    def _picture(self, of: str) -> bytes:
        if of not in self.pictures:
            raise NoPictureError("its screen is dark")
        return self.pictures[of]

    async def ask_move(
        self, node: str, question: CheckArrival | CheckDeparture, timeout_s: float = 8.0
    ) -> MoveChecked | None:
        self.asked.append((node, question))
        return self.answers.get((node, type(question)))

    async def history(self, query: HistoryQuery) -> Sequence[HistoryLine]:
        found = [
            line
            for line in self.state.history
            if query.after < line.position <= self.position
            and query.kind in ("", line.kind)
            and query.node in ("", line.node)
            and query.vm in ("", line.vm)
        ]
        return found[-query.limit :]

    async def wait_for_change(self, since_position: int) -> int:
        while self.position <= since_position:
            await self._changed.wait()
        return self.position

    def tell(self) -> None:
        """Wake whoever waits for a change."""
        self._changed.set()
        self._changed = asyncio.Event()

    def run(self, seconds: float) -> None:
        """Let time pass."""
        questions = ask_turns(self.state, self.now())
        for verdict in answer_turns(questions, self.now()) if questions is not None else ():
            self.core.settle(verdict)
        self.core.run(seconds)
        self.tell()
