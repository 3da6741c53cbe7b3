"""The parts of one aggregator put together, without its listeners.

Fulfils FleetAccess for the API and Desk for the intake. Knows in which order parts start and stop; decides nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from aggregator.act.agents import AgentsHand
from aggregator.act.fence import FenceHand
from aggregator.act.hands import AllHands
from aggregator.act.reference import ReferenceHand
from aggregator.authority import Authority
from aggregator.breach_files import BreachFiles
from aggregator.clock import FleetClock
from aggregator.core.events import Event
from aggregator.core.journal_form import FORM_VERSION
from aggregator.core.preflight import ClosedWay
from aggregator.core.state import HistoryLine, State
from aggregator.core.whatif import Readiness
from aggregator.fact_queue import Check
from aggregator.fault_point import FaultPoint
from aggregator.fleet_access import DefinitionVerdict, HistoryQuery, NoPictureError, NotServingError
from aggregator.intake import Intake
from aggregator.journal_row import line_of
from aggregator.loop import CoreFailedError, Loop
from aggregator.new_life import begin
from aggregator.pictures import Pictures
from aggregator.readiness import StandingReadiness
from aggregator.settings import Settings
from aggregator.store.protocol import Store, StoreError
from aggregator.store.sqlite import SqliteStore
from aggregator.turns import judge_turns
from aggregator.way_watch import WayWatch
from fleet.identity import IdentityError, Role, read_request
from fleet.messages import CheckArrival, CheckDeparture, MoveChecked
from fleet.service import ServiceError

STOP_S_MAX = 5.0
PICTURE_S_MAX = 8.0  # the agent gives up before
PICTURES_SINCE = 2  # the protocol whose agents take TakePicture


class Fleet:
    """One life of the aggregator, begun by open_fleet() and ended by close()."""

    def __init__(self, loop: Loop, store: Store, clock: FleetClock, settings: Settings, first: Sequence[Event]) -> None:
        self.loop = loop
        self._store, self._clock = store, clock
        self.token_sha256 = settings.token_sha256
        self.now: Callable[[], float] = clock.now
        self.offer, self.report, self.at_rest = loop.offer, loop.report, loop.at_rest
        self.authority = (
            Authority(settings.state_dir / "identity", settings.name, settings.certificate_life_s)
            if settings.agents_tls
            else None
        )
        self._pictures = Pictures(self, settings.state_dir / "screenshots")
        self.intake = Intake(self, self.authority, self._pictures.told)
        self._fence = FenceHand(settings.fence_agents_dir, clock.now, loop.report, lambda: loop.leading)
        self._reference = ReferenceHand(clock.now, loop.report)
        self._readiness = StandingReadiness(lambda: loop.state, clock.now)
        self._reporting = asyncio.create_task(self._readiness.run())
        self._judging = asyncio.create_task(
            judge_turns(lambda: loop.state, clock.now, loop.report, lambda: loop.leading)
        )
        self._ways = WayWatch(lambda: loop.state, clock.now, lambda: loop.leading, self.intake.questions.moves.ask)
        self._watching = asyncio.create_task(self._ways.run())
        agents = AgentsHand(self.intake, clock.now, loop.report, lambda: loop.leading)
        self.turning = asyncio.create_task(loop.run(first, AllHands(agents, self._fence, self._reference)))

    @property
    def state(self) -> State:
        return self.loop.state

    @property
    def authority_sha256(self) -> str:
        return self.authority.sha256 if self.authority is not None else ""

    def certify_person(self, request: str, name: str, enrolment: str, life_s: float) -> str:
        if self.authority is None:
            raise IdentityError("agents_tls is false, so there is no authority to sign a certificate")
        key, _ = read_request(request)
        return self.authority.sign(key, Role.OPERATOR, name, enrolment, life_s=life_s)[0]

    @property
    def durable_position(self) -> int:
        return self.loop.durable_position

    @property
    def leading(self) -> bool:
        return self.loop.leading

    @property
    def leader_ready(self) -> bool:
        return self.loop.leading

    @property
    def readiness(self) -> Readiness | None:
        return self._readiness.report

    @property
    def closed_ways(self) -> Sequence[ClosedWay]:
        return self._ways.closed

    async def submit(self, fact: Event, check: Check | None = None) -> int:
        return await self.loop.submit(fact, check)

    async def check_definition(self, xml: str, timeout_s: float = 5.0) -> DefinitionVerdict:
        return await self.intake.questions.definitions.ask(xml, timeout_s)

    async def ask_move(
        self, node: str, question: CheckArrival | CheckDeparture, timeout_s: float = 8.0
    ) -> MoveChecked | None:
        return await self.intake.questions.moves.ask(node, question, timeout_s)

    async def take_picture(self, uuid: str) -> bytes:
        vm = self.state.vms.get(self.state.names.get(uuid, ""))
        node = self.state.nodes.get(vm.owner) if vm is not None else None
        if vm is None or node is None or not vm.run_open:
            raise NoPictureError("the VM does not run")
        connection = self.intake.standing(node.name)
        if connection is None:
            raise NoPictureError(f"the agent on {node.name} is not connected")
        if node.protocol < PICTURES_SINCE:
            raise NoPictureError(f"the agent on {node.name} is too old to take a screenshot; upgrade it")
        return await self._pictures.ask(node.name, connection.send, uuid, PICTURE_S_MAX)

    async def kept_picture(self, incident: str) -> bytes:
        return await self._pictures.kept(incident)

    async def history(self, query: HistoryQuery) -> Sequence[HistoryLine]:
        try:
            return [line_of(row) for row in await self._store.history(query)]
        except StoreError as error:
            raise NotServingError(str(error)) from None

    async def wait_for_change(self, since_position: int) -> int:
        return await self.loop.wait_for_change(since_position)

    async def close(self) -> None:
        """End the loop after its turn, then hands, agents and store. ServiceError says why the loop had failed."""
        self._reporting.cancel()
        self._judging.cancel()
        self._watching.cancel()
        self.loop.stop()
        await asyncio.wait({self.turning}, timeout=STOP_S_MAX)
        ended = self.turning.done()
        self.turning.cancel()
        self._fence.close()
        self._reference.close()
        await self.intake.close()
        await self._pictures.close()
        await self._store.close()
        if not ended:
            raise ServiceError(f"the loop did not end within {STOP_S_MAX:.0f} s; the store is too slow or hangs")
        error = self.turning.exception()
        if isinstance(error, (StoreError, CoreFailedError)):
            raise ServiceError(f"{error}; nothing more is done by this process") from None
        if error is not None:
            raise error


async def open_fleet(settings: Settings, fault_point: FaultPoint) -> Fleet:
    """Begin a life: journal read, term issued, first turn journalled. ServiceError, ConfigError."""
    clock = FleetClock()
    store = SqliteStore(settings.state_dir, FORM_VERSION)
    try:
        beginning = await begin(store, clock, settings)
    except StoreError as error:
        await store.close()
        raise ServiceError(str(error)) from None
    loop = Loop(beginning.state, store, clock, fault_point, BreachFiles(settings.state_dir))
    fleet = Fleet(loop, store, clock, settings, beginning.first)
    await fleet.loop.first_turn_or_end()
    if not fleet.leading:
        await fleet.close()
    return fleet
