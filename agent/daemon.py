"""Drives the keeper: facts in from everywhere, effects out in order.

One queue of facts, one task that steps the keeper, one that performs effects strictly in order: a
Persist is synced before anything behind it is performed. Knows all hands of the agent and decides
nothing.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine

import aiohttp
import structlog

from agent import peer, prober
from agent.config import AgentConfig
from agent.host import Identity, node_facts, read_bmc
from agent.hypervisor import Hypervisor
from agent.keeper import Keeper
from agent.keeper_types import (
    AnswerPeer,
    Call,
    CallReturned,
    CheckXml,
    CloseLink,
    Effect,
    Fact,
    FactsRead,
    KeeperSettings,
    LookAgainAt,
    LookNow,
    Note,
    Persist,
    Probe,
    Send,
    Stopping,
    TellPeer,
    Tick,
    XmlChecked,
)
from agent.ledger import Ledger
from agent.link import Link
from fleet.clock import Clock
from fleet.model import BmcIdentity, NodeFacts
from fleet.service import Service

FACTS_EVERY_S = 10.0
FACTS_EVERY_UNTIL_READY_S = 0.5
BMC_EVERY_S = 60.0
QUEUE_MAX = 20_000
STOP_FLUSH_S_MAX = 2.0

log = structlog.get_logger(part="agent")


class Daemon:
    """One running agent."""

    def __init__(self, config: AgentConfig, identity: Identity, hypervisor: Hypervisor, clock: Clock) -> None:
        self.config = config
        self.identity = identity
        self.hypervisor = hypervisor
        self.clock = clock
        self.ledger: Ledger | None = None
        self.keeper: Keeper | None = None
        self._facts: asyncio.Queue[Fact] = asyncio.Queue(QUEUE_MAX)
        self._effects: asyncio.Queue[Effect] = asyncio.Queue(QUEUE_MAX)
        self._link: Link | None = None
        self._peers = peer.PeerServer(config.listen, self._put)
        self._session: aiohttp.ClientSession | None = None
        self._bmc: BmcIdentity | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._errands: set[asyncio.Task[None]] = set()
        self._dead: asyncio.Future[None] | None = None

    async def run(self, service: Service, ledger: Ledger, token: str) -> None:
        """Run until the service is asked to stop. Raises whatever a part of it died of."""
        loop = asyncio.get_running_loop()
        self._dead = loop.create_future()
        self.ledger = ledger
        memory = ledger.open()
        self._bmc = await read_bmc(self.config.bmc_identity_command)
        settings = KeeperSettings(
            node=self.config.node,
            boot_id=self.identity.boot_id,
            agent_start=secrets.token_hex(8),
            facts=self._read_facts(),
            ledger=ledger.state,
        )
        self.keeper = Keeper(settings, memory)
        log.info("agent started", node=self.config.node, ledger=ledger.state.value, in_hand=len(memory.open))
        self._link = Link(self.config.aggregators, token, self._put)
        timeout = aiohttp.ClientTimeout(total=peer.TELL_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as self._session:
            await self._peers.start()
            await self.hypervisor.start(self._put)
            self._errand(self._keep_stepping(service))
            self._errand(self._keep_performing())
            self._errand(self._keep_facts())
            self._link.start()
            service.ready(f"node {self.config.node}, ledger {ledger.state.value}")
            try:
                await self._until_stopped(service)
            finally:
                await self._stop(service.reason)

    async def _until_stopped(self, service: Service) -> None:
        stopping = asyncio.ensure_future(service.stopping.wait())
        assert self._dead is not None
        try:
            await asyncio.wait((stopping, self._dead), return_when=asyncio.FIRST_COMPLETED)
            if self._dead.done():
                self._dead.result()
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
        if self._link is not None:
            await self._link.stop()
        await self._peers.stop()
        await self.hypervisor.stop()
        for task in list(self._errands):
            task.cancel()
        await asyncio.gather(*self._errands, return_exceptions=True)
        if self.ledger is not None:
            self.ledger.close()

    def _put(self, fact: Fact) -> None:
        self._facts.put_nowait(fact)

    def _errand(self, errand: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(errand)
        self._errands.add(task)
        task.add_done_callback(self._errand_ended)

    def _errand_ended(self, task: asyncio.Task[None]) -> None:
        self._errands.discard(task)
        if task.cancelled() or task.exception() is None or self._dead is None or self._dead.done():
            return
        self._dead.set_exception(task.exception() or RuntimeError("a task ended"))

    # --- the two tasks that matter

    async def _keep_stepping(self, service: Service) -> None:
        watchdog_s = service.watchdog_every_s
        fed_s = float("-inf")
        assert self.keeper is not None
        while True:
            fact = await self._facts.get()
            now_s = self.clock.monotonic_s()
            for effect in self.keeper.step(now_s, fact):
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

    async def _keep_performing(self) -> None:
        while True:
            effect = await self._effects.get()
            try:
                await self._perform(effect)
            finally:
                self._effects.task_done()

    async def _perform(self, effect: Effect) -> None:
        match effect:
            case Persist(record=record):
                assert self.ledger is not None
                assert self.keeper is not None
                await asyncio.to_thread(self.ledger.append, record, self.keeper.memory)
            case Send(link=link, message=message):
                assert self._link is not None
                self._link.send(link, message)
            case CloseLink(link=link, reason=reason, wait_s=wait_s):
                assert self._link is not None
                self._link.close(link, reason, wait_s)
            case AnswerPeer(request=request, receipt=receipt):
                self._peers.answer(request, receipt)
            case LookNow():
                self.hypervisor.look()
            case Note(event=event, uuid=uuid, detail=detail, warning=warning):
                _note(event, uuid, detail, warning=warning)
            case Call() | TellPeer() | Probe() | CheckXml():
                self._errand(self._do(effect))
            case LookAgainAt():
                pass

    async def _do(self, effect: Call | TellPeer | Probe | CheckXml) -> None:
        match effect:
            case Call(call_id=call_id, uuid=uuid, deed=deed, timeout_s=timeout_s):
                result = await self.hypervisor.do(uuid, deed, timeout_s)
                self._put(CallReturned(call_id, result.ok, result.code, result.message, result.definition))
            case TellPeer():
                assert self._session is not None
                self._put(await peer.tell(self._session, effect))
            case Probe():
                self._put(await prober.probe(effect, self.clock))
            case CheckXml(check_id=check_id, xml=xml):
                result = await self.hypervisor.check_xml(xml)
                self._put(XmlChecked(check_id, result.ok, result.message))

    # --- the node's facts

    def _read_facts(self) -> NodeFacts:
        return node_facts(self.identity, self.config.addresses, self.hypervisor.node_facts(), self._bmc)

    async def _keep_facts(self) -> None:
        bmc_s = self.clock.monotonic_s()
        while True:
            ready = self.hypervisor.node_facts().ready
            await asyncio.sleep(FACTS_EVERY_S if ready else FACTS_EVERY_UNTIL_READY_S)
            if self.clock.monotonic_s() >= bmc_s + BMC_EVERY_S:
                bmc_s = self.clock.monotonic_s()
                self._bmc = await read_bmc(self.config.bmc_identity_command)
            self._put(FactsRead(self._read_facts()))


def _note(event: str, uuid: str, detail: str, *, warning: bool) -> None:
    words = {key: value for key, value in (("vm", uuid), ("detail", detail)) if value}
    (log.warning if warning else log.info)(event, **words)
