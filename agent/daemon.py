"""Drives the keeper: facts in from everywhere, effects out in order.

One queue of facts, one task that steps the keeper, one that performs effects strictly in order: a
Persist is synced before anything behind it is performed. Knows all hands of the agent and decides
nothing.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine
from pathlib import Path

import aiohttp
import structlog
from msgspec import Struct, structs

from agent import peer, prober
from agent.access import Access, CertifiedAccess
from agent.checks import NodeChecks
from agent.config import AgentConfig
from agent.deeds import PICTURE_S_MAX, Screenshot
from agent.guest_probing import GuestProber
from agent.host import Identity, node_facts, read_bmc
from agent.host_stop import announced_s
from agent.hypervisor import GuestChannel, Hypervisor, MoveChecker
from agent.hypervisor_identity import HypervisorIdentity
from agent.joining import Enrolment
from agent.keeper import Keeper
from agent.keeper_types import (
    AnswerPeer,
    Call,
    CallReturned,
    CheckMove,
    CheckXml,
    CloseLink,
    Effect,
    Fact,
    FactsRead,
    KeeperSettings,
    LoadRead,
    LookAgainAt,
    LookNow,
    MoveLooked,
    Note,
    OfferToPeer,
    OpenRelay,
    Persist,
    PictureGuest,
    PictureTaken,
    Probe,
    ProbeGuest,
    Send,
    Stopping,
    TellPeer,
    Tick,
    XmlChecked,
)
from agent.ledger import Ledger
from agent.link import Link
from agent.memory import Memory, to_records
from agent.own_checks import judge
from agent.permits import PermitFiles
from agent.relay import RelayDoor
from agent.sampler import Sampler
from agent.storage import StorageWatch
from agent.verdicts import Outcome
from agent.wall import Forbid, LetGo, Permit, RaiseWall, WallEffect
from fleet.clock import Clock
from fleet.config import secret_file
from fleet.model import BmcIdentity, NodeFacts
from fleet.service import Service

FACTS_EVERY_S = 10.0
SAMPLE_EVERY_S = 1.0
FACTS_EVERY_UNTIL_READY_S = 0.5
LIBVIRT_WAIT_S_MAX = 2.0
QUEUE_MAX = 20_000
STOP_FLUSH_S_MAX = 2.0

log = structlog.get_logger(part="agent")


class Hands(Struct, frozen=True):
    """What the daemon acts through."""

    hypervisor: Hypervisor
    clock: Clock
    access: Access
    storage: StorageWatch
    guests: GuestChannel
    moves: MoveChecker


class Daemon:
    """One running agent."""

    def __init__(self, config: AgentConfig, identity: Identity, ledger: Ledger, hands: Hands) -> None:
        self.config = config
        self.identity = identity
        self.ledger = ledger
        self.hypervisor = hands.hypervisor
        self.clock = hands.clock
        self._facts: asyncio.Queue[Fact] = asyncio.Queue(QUEUE_MAX)
        self._effects: asyncio.Queue[Effect] = asyncio.Queue(QUEUE_MAX)
        self._access = access = hands.access
        self._enrolment: Enrolment | None = None
        if isinstance(access, CertifiedAccess):
            hypervisor = None
            if config.pki_dir:
                addresses = tuple(dict.fromkeys(config.addresses.by_plane.values()))
                hypervisor = HypervisorIdentity(access, Path(config.pki_dir), addresses, config.pki_reload_command)
            self._enrolment = Enrolment(config.node, access, secret_file(config.token_file), hypervisor)
        self._link = Link(config.node, config.aggregators, access, self._put, self._enrolment)
        port = peer.split_listen(config.listen)[1]
        self._relay = RelayDoor(config.node, port, lambda: self._link.url, self._put, access)
        self._peers = peer.PeerServer(config.listen, self._put, self._relay, access)
        self._session = aiohttp.ClientSession()
        self._bmc: BmcIdentity | None = None
        self._storage = hands.storage
        self._sampler = Sampler()
        self._stopping_s = announced_s(Path(config.run_dir))
        self._guests = GuestProber(hands.guests)
        self._moves = hands.moves
        self._checks = NodeChecks(
            Path(config.checks_dir), config.checks_every_s, config.checks_taint, self._look_at_host
        )
        self._permits = PermitFiles(Path(config.state_dir), Path(config.run_dir), self.clock)
        self._timer: asyncio.TimerHandle | None = None
        self._errands: set[asyncio.Task[None]] = set()
        self._dead: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, service: Service) -> None:
        """Run until the service is asked to stop. Raises whatever a part of it died of."""
        async with self._session:
            memory = self.ledger.open()
            self._bmc = await read_bmc(self.config.bmc_identity_command)
            settings = KeeperSettings(
                node=self.config.node,
                boot_id=self.identity.boot_id,
                agent_start=secrets.token_hex(8),
                facts=self._read_facts(),
                ledger=self.ledger.state,
                migration_tls=self.config.migration_tls,
                migration_tls_by_name=bool(self.config.pki_dir),
            )
            state = self.ledger.state.value
            log.info("agent started", node=self.config.node, ledger=state, in_hand=len(memory.open))
            if self._access.standing.is_set():
                await self._peers.start()
            else:
                self._errand(self._open_to_peers())
            if self._enrolment is not None:
                self._errand(self._enrolment.keep_renewing(self.config.aggregators))
                self._errand(self._enrolment.keep_hypervisor(self.config.aggregators))
                self._errand(self._enrolment.keep_trust(self.config.aggregators, self._tell_facts))
            await self.hypervisor.start(self._put)
            self._errand(self._keep_stepping(service, Keeper(settings, memory)))
            self._errand(self._keep_performing(memory))
            await self._know_libvirt()
            self._errand(self._keep_facts())
            self._errand(self._storage.run(self._tell_facts))
            self._errand(self._checks.run(self._tell_facts))
            self._errand(self._keep_sampling())
            self._link.start()
            service.ready(f"node {self.config.node}, ledger {state}")
            try:
                await self._until_stopped(service)
            finally:
                await self._stop(service.reason)

    async def _open_to_peers(self) -> None:
        """A node that has not joined has nothing to show to others yet."""
        await self._access.standing.wait()
        await self._peers.start()

    async def _until_stopped(self, service: Service) -> None:
        stopping = asyncio.ensure_future(service.stopping.wait())
        ends = (self._dead, self.hypervisor.died())
        try:
            await asyncio.wait((stopping, *ends), return_when=asyncio.FIRST_COMPLETED)
            for end in ends:
                if end.done():
                    end.result()
        finally:
            stopping.cancel()

    async def _stop(self, reason: str) -> None:
        self._put(Stopping(reason or "stopping"))
        try:
            async with asyncio.timeout(STOP_FLUSH_S_MAX):
                await self._facts.join()
                await self._effects.join()
        except TimeoutError:
            log.warning("stopped with work in the queue")
        await self._link.stop()
        await self._peers.stop()
        await self.hypervisor.stop()
        for task in list(self._errands):
            task.cancel()
        await asyncio.gather(*self._errands, return_exceptions=True)
        self.ledger.close()

    def _put(self, fact: Fact) -> None:
        self._storage.take(fact)
        self._facts.put_nowait(fact)

    def _tell_facts(self) -> None:
        self._put(FactsRead(self._read_facts()))

    def _errand(self, errand: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(errand)
        self._errands.add(task)
        task.add_done_callback(self._errand_ended)

    def _errand_ended(self, task: asyncio.Task[None]) -> None:
        self._errands.discard(task)
        if task.cancelled() or task.exception() is None or self._dead.done():
            return
        self._dead.set_exception(task.exception() or RuntimeError("a task ended"))

    # --- the two tasks that matter

    async def _keep_stepping(self, service: Service, keeper: Keeper) -> None:
        watchdog_s = service.watchdog_every_s
        fed_s = float("-inf")
        while True:
            fact = await self._facts.get()
            now_s = self.clock.monotonic_s()
            for effect in keeper.step(now_s, fact):
                if isinstance(effect, LookAgainAt):
                    self._set_timer(effect.at_s - now_s)
                else:
                    self._effects.put_nowait(effect)
            self._facts.task_done()
            if watchdog_s is not None and now_s - fed_s >= watchdog_s / 2:
                fed_s = now_s
                service.feed_watchdog()

    def _set_timer(self, delay_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(max(0.0, delay_s), self._put, Tick())

    async def _keep_performing(self, memory: Memory) -> None:
        while True:
            effect = await self._effects.get()
            try:
                if isinstance(effect, Persist):
                    await self._persist(effect, memory)
                elif isinstance(effect, WallEffect):
                    await asyncio.to_thread(self._permits.do, effect)
                else:
                    self._perform(effect)
            finally:
                self._effects.task_done()

    async def _persist(self, effect: Persist, memory: Memory) -> None:
        """Sync one record. What is compacted may be ahead of the queue: a promise kept early does no harm."""
        await asyncio.to_thread(self.ledger.append, effect.record)
        if self.ledger.is_long and not await asyncio.to_thread(self.ledger.compact, to_records(memory)):
            log.warning("the disk is full: the ledger goes on in what was reserved for it", path=str(self.ledger.path))

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Send(link=link, message=message):
                self._link.send(link, message)
            case CloseLink(link=link, reason=reason, wait_s=wait_s):
                self._link.close(link, reason, wait_s)
            case AnswerPeer(request=request, receipt=receipt):
                self._peers.answer(request, receipt)
            case LookNow():
                self.hypervisor.look()
            case Note(event=event, uuid=uuid, detail=detail, warning=warning):
                _note(event, uuid, detail, warning=warning)
            case OpenRelay():
                self._link.open_relay(effect)
            case (
                Call() | TellPeer() | Probe() | ProbeGuest() | OfferToPeer() | CheckXml() | PictureGuest() | CheckMove()
            ):
                self._errand(self._do(effect))
            case Persist() | LookAgainAt() | RaiseWall() | Permit() | Forbid() | LetGo():
                raise AssertionError(f"a {type(effect).__name__} is performed elsewhere")

    async def _do(
        self, effect: Call | TellPeer | Probe | ProbeGuest | OfferToPeer | CheckXml | PictureGuest | CheckMove
    ) -> None:
        match effect:
            case ProbeGuest():
                self._put(await self._guests.ask(effect))
            case Call(call_id=call_id, uuid=uuid, deed=deed, timeout_s=timeout_s):
                result = await self.hypervisor.do(uuid, deed, timeout_s)
                self._put(CallReturned(call_id, **structs.asdict(result)))
            case TellPeer():
                self._put(await peer.tell(self._session, effect, self._access))
            case Probe():
                self._put(await prober.probe(effect, self.clock, agents_tls=self._access.secure))
            case OfferToPeer():
                await self._relay.offer(self._session, effect)
            case CheckXml(check_id=check_id, xml=xml):
                result = await self.hypervisor.check_xml(xml)
                self._put(XmlChecked(check_id, result.ok, result.message))
            case PictureGuest(request=request, uuid=uuid):
                result = await self.hypervisor.do(uuid, Screenshot(), PICTURE_S_MAX)
                self._put(PictureTaken(request, uuid, result.picture, result.message))
            case CheckMove(question=question):
                self._put(MoveLooked(await self._moves.check(question)))

    # --- the node's facts

    def _read_facts(self) -> NodeFacts:
        hypervisor, storages = self.hypervisor.node_facts(), self._storage.reaches()
        mounts = self._storage.mounts()
        facts = node_facts(self.identity, self.config.addresses, hypervisor, self._bmc, storages, mounts)
        return structs.replace(
            facts, trust=self._access.trust.version, checks=self._checks.verdicts(), stopping_s=self._stopping_s
        )

    def _look_at_host(self) -> dict[str, Outcome]:
        measured = self._sampler.measured(Path(self.config.state_dir), self._storage.took_ms())
        return {name: outcome for name, outcome in judge(measured).items() if name in self.config.checks_own}

    async def _keep_sampling(self) -> None:
        while True:
            self._put(LoadRead(self._sampler.load()))
            stopping_s = announced_s(Path(self.config.run_dir))
            if stopping_s != self._stopping_s:
                self._stopping_s = stopping_s
                self._tell_facts()
            await asyncio.sleep(SAMPLE_EVERY_S)

    async def _know_libvirt(self) -> None:
        """Give libvirt a moment, so that the hello can name the host's uuid; go on without it after that."""
        await self.hypervisor.wait_ready(LIBVIRT_WAIT_S_MAX)
        self._tell_facts()

    async def _keep_facts(self) -> None:
        bmc_s, bmc_every_s = self.clock.monotonic_s(), self.config.bmc_identity_every_s
        while True:
            ready = self.hypervisor.node_facts().ready
            await self.hypervisor.wait_turned(min(FACTS_EVERY_S, bmc_every_s) if ready else FACTS_EVERY_UNTIL_READY_S)
            if self.clock.monotonic_s() >= bmc_s + bmc_every_s:
                bmc_s = self.clock.monotonic_s()
                self._bmc = await read_bmc(self.config.bmc_identity_command)
            self._tell_facts()


def _note(event: str, uuid: str, detail: str, *, warning: bool) -> None:
    words = {key: value for key, value in (("vm", uuid), ("detail", detail)) if value}
    (log.warning if warning else log.info)(event, **words)
