"""One agent process: the shipped Keeper, and a driver that performs its effects in the world.

The contract is agent.keeper_types: effects strictly in order, a Persist is on disk before what
follows, a crash loses everything not yet performed. A kill may land between any two effects.
The ledger lies on the host's disk. Decides nothing itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from msgspec import structs

from agent.keeper import Keeper
from agent.keeper_types import (
    CODE_UNKNOWN,
    AnswerPeer,
    AnyLedgerRecord,
    Call,
    CallReturned,
    CheckMove,
    CloseLink,
    DefinitionRead,
    DomainChanged,
    DomainsListed,
    Effect,
    Fact,
    FactsRead,
    KeeperSettings,
    LinkClosed,
    LinkOpened,
    LookAgainAt,
    LookNow,
    MessageReceived,
    Note,
    OfferToPeer,
    OpenRelay,
    Persist,
    PidGone,
    Probe,
    ProbeGuest,
    Send,
    Stopping,
    TellPeer,
    Tick,
)
from agent.memory import recall
from agent.wall import Forbid, LetGo, Permit, RaiseWall
from fleet.messages import FromAggregator
from fleet.model import Definition, LedgerState, Plane
from simulator.connection import Connection
from simulator.hypervisor import HypervisorCall, proc_only
from simulator.peers import Peers
from simulator.process import Process
from simulator.quiet import QuietLink
from simulator.relay import RelayedConnection
from simulator.results import Result
from simulator.truth import Qemu

if TYPE_CHECKING:
    from simulator.clock import Timer
    from simulator.host import Host

SYNC_S = (0.0005, 0.004)
CONNECT_TIMEOUT_S = 2.0
RECONNECT_S = (0.1, 3.0)
LIST_EVERY_S = 10.0
LOOK_TIMEOUT_S = 2.0
PIDFD_S = 0.002
PROBE_S = 0.05
EVENT_S = (0.05, 0.25)


class SimulatedAgent(Process):
    """The agent of one host."""

    def __init__(self, host: Host) -> None:
        super().__init__(host.world.queue)
        self.host = host
        self._routine = host.world.random_of(f"{host.name}'s routine")  # of what quiet time jumps over
        self.keeper: Keeper | None = None
        self.connection: Connection | None = None
        self.quiet = QuietLink(self)
        self.peers = Peers(self)
        self.relays: list[RelayedConnection] = []  # that we carry for others
        self._connecting = False
        self._starts = 0
        self._links = 0
        self.aggregator = host.world.aggregators[0]  # whom we speak to, or try next
        self._effects: deque[Effect] = deque()
        self._performing = False
        self._tick: Timer | None = None
        self._told: DomainsListed | None = None  # the last list, if it was whole
        self._seen_s = float("-inf")  # when anything but a list last showed the keeper something

    # --- its life

    def start(self) -> None:
        """systemd starts it: remember what the ledger holds, look around, connect."""
        if self.alive or not self.host.power_on:
            return
        self.begin_life()
        self._starts += 1
        self._effects.clear()
        self._performing = self._connecting = False
        self.relays.clear()
        self.peers.forget()
        self._tick = self._told = None
        self._seen_s = float("-inf")
        settings = KeeperSettings(
            node=self.host.name,
            boot_id=self.host.boot_id,
            agent_start=f"{self.host.name}-agent-{self._starts}",
            facts=self.host.facts(),
            ledger=LedgerState.SOUND if self.host.ledger else LedgerState.NEW,
        )
        self.keeper = Keeper(settings, recall(self.host.ledger))
        self.later(0.05, self._read_everything)
        self._connecting = True
        self.later(self.host.random.uniform(0.1, 0.6), self._connect)
        self.later(LIST_EVERY_S, self._list_regularly)

    def kill(self) -> None:
        """SIGKILL: what was not performed is lost, the kernel closes its connection."""
        if not self.alive:
            return
        self.quiet.leave()
        self.end_life()
        self.keeper = None
        self._effects.clear()
        if self.connection is not None:
            self.connection.agent_closes()
            self.connection = None
        for relay in self.relays:
            relay.peer_dies()

    def stop(self) -> None:
        """`systemctl stop`: a goodbye, then the end."""
        if self.alive:
            self.give(Stopping("service stop"))
            self.later(0.1, self.kill)

    def pause(self, why: str = "itself") -> None:
        self.quiet.end()
        super().pause(why)

    def die_after(self, steps: int, die: Callable[[], None]) -> None:
        self.quiet.end()
        super().die_after(steps, die)

    def pause_after(self, steps: int) -> None:
        self.quiet.end()
        super().pause_after(steps)

    def lose_power(self) -> None:
        self.quiet.leave()
        if self.connection is not None:
            self.connection.lose_agent_kernel()
            self.connection = None
        for relay in self.relays:
            relay.peer_loses_power()
        if self.alive:
            self.end_life()
            self.keeper = None
            self._effects.clear()

    # --- facts in

    def now(self) -> float:
        return self.host.clock.now()

    def give(self, fact: Fact) -> None:
        """Hand the keeper one fact; what it wants done joins the one queue of effects."""
        if self.keeper is None:
            return
        self.quiet.leave()
        if isinstance(fact, (DomainChanged, PidGone, CallReturned)):
            self._told, self._seen_s = None, self.now()
        self._effects.extend(self.keeper.step(self.now(), fact))
        if not self._performing:
            self._perform()

    def take(self, connection: Connection, message: FromAggregator) -> None:
        """A message came out of the socket."""
        if connection is self.connection:
            self.give(MessageReceived(connection.link, message))

    def connection_ended(self, connection: Connection) -> None:
        if connection is self.connection:
            self.connection = None
            self.give(LinkClosed(connection.link))
            self._reconnect(0.0)

    def domain_event(self, uuid: str) -> None:
        """libvirt's event: the agent looks at that VM anew, a little later."""
        if self.alive and self.host.hypervisor.alive:
            self.later(self.host.random.uniform(*EVENT_S), lambda: self._look_at(uuid))

    def _look_at(self, uuid: str) -> None:
        hypervisor, asked_s = self.host.hypervisor, self.now()
        if hypervisor.answers:
            seen = hypervisor.observe(uuid)
            self.later(0.001, lambda: self.give(DomainChanged(seen, asked_s)))

    def qemu_gone(self, qemu: Qemu) -> None:
        """The pidfd is readable."""
        if self.alive:
            self.later(PIDFD_S, lambda: self.give(PidGone(qemu.uuid, qemu.process)))

    def definition_changed(self, definition: Definition) -> None:
        if self.alive:
            self.later(0.04, lambda: self.give(DefinitionRead(definition)))

    def look_soon(self) -> None:
        if self.alive:
            self.later(0.05, self._read_everything)

    def facts_changed(self) -> None:
        if self.alive:
            self.later(self.host.random.uniform(0.2, 2.0), lambda: self.give(FactsRead(self.host.facts())))

    def storage_changed(self) -> None:
        """The agent's next two questions to the storage are answered otherwise than the last ones."""
        if self.alive:
            self.later(self.host.random.uniform(2.0, 6.0), lambda: self.give(FactsRead(self.host.facts())))

    def _read_everything(self) -> None:
        for definition in list(self.host.definitions.values()):
            self.give(DefinitionRead(definition))
        self._look()

    def _list_regularly(self) -> None:
        hypervisor, told = self.host.hypervisor, self._told
        known = told is not None and hypervisor.answers and hypervisor.observe_all() == told.vms
        if told is None or not known or not self.quiet.jump_over_list(structs.replace(told, asked_s=self.now())):
            self._look()
        self.later(LIST_EVERY_S, self._list_regularly)

    def _look(self) -> None:
        """Read everything; what is read is a little older than the moment it is told."""
        hypervisor, asked_s = self.host.hypervisor, self.now()
        random = self._routine

        def read() -> None:
            complete = hypervisor.answers
            seen = hypervisor.observe_all() if complete else proc_only(list(self.host.qemus.values()))
            listed = DomainsListed(vms=seen, complete=complete, asked_s=asked_s)
            self.later(random.uniform(0.001, 0.005), lambda: self._tell(listed))

        self.later(LOOK_TIMEOUT_S - 0.1 if hypervisor.paused else random.uniform(0.002, 0.02), read)

    def _tell(self, listed: DomainsListed) -> None:
        current = listed.complete and listed.asked_s > self._seen_s  # else the keeper took parts of it for old
        self._told = listed if current else None
        self.give(listed)

    # --- effects out

    def _perform(self) -> None:
        self._performing = False
        while self._effects:
            if self.step_boundary():
                return
            if self.paused:
                self._performing = True
                self.when_running(self._perform)
                return
            effect = self._effects.popleft()
            if isinstance(effect, Persist):
                self._performing = True
                self.later(self._routine.uniform(*SYNC_S), partial(self._synced, effect.record))
                return
            self._do(effect)

    def _synced(self, record: AnyLedgerRecord) -> None:
        self._write(record)
        self._perform()

    def _write(self, record: AnyLedgerRecord) -> None:
        self.host.ledger.append(record)
        self.host.world.wrote(self.host.name, record)

    def _do(self, effect: Effect) -> None:
        match effect:
            case Send(link=link, message=message):
                if self.connection is not None and self.connection.link == link:
                    self.connection.agent_sends(message)
            case CloseLink():
                self._close(effect)
            case Call():
                self._call(effect)
            case LookNow():
                self._look()
            case LookAgainAt(at_s=at_s):
                self._look_again(at_s)
            case Probe() | TellPeer() | OfferToPeer() | OpenRelay() | CheckMove():
                self.peers.do(effect)
            case AnswerPeer():
                self.peers.answer(effect)
            case ProbeGuest():
                self.later(PROBE_S, lambda: self.give(self.host.probe_guest(effect)))
            case RaiseWall() | Permit() | Forbid() | LetGo():
                self.host.take(effect)
            case Note(event=event, uuid=uuid, detail=detail):
                self.host.world.note(f"agent@{self.host.name}", event, uuid, detail)

    def _close(self, effect: CloseLink) -> None:
        if self.connection is not None and self.connection.link == effect.link:
            self.connection.agent_closes()
            self.connection = None
            self.later(0.0, lambda: self.give(LinkClosed(effect.link)))
            self._reconnect(effect.wait_s)

    def learn_quietly(self, effects: list[Effect]) -> None:
        """What answers taught in quiet time was synced then."""
        for effect in effects:
            if isinstance(effect, Persist):
                self._write(effect.record)

    def _look_again(self, at_s: float) -> None:
        if self._effects or self.keeper is None or not self.quiet.begin_if_quiet(self.keeper):
            self.tick_at(at_s)
        elif self._tick is not None:
            self._tick.cancel()

    def tick_at(self, at_s: float) -> None:
        """Have the keeper look again at that time of its clock."""
        if self._tick is not None:
            self._tick.cancel()
        delay_s = self.host.clock.when(at_s) - self.queue.now
        self._tick = self.later(max(0.0, delay_s) + 1e-6, lambda: self.give(Tick()))

    def _call(self, effect: Call) -> None:
        def returned(result: Result) -> None:
            definition = result.definition
            fact = CallReturned(effect.call_id, result.ok, result.code, result.message, definition, result.picture)
            self.later(0.0005, lambda: self.give(fact))

        life = self.life
        call = HypervisorCall(effect.uuid, self.host.world.vms[effect.uuid].name, effect.deed, returned)
        late = Result(ok=False, code=CODE_UNKNOWN, message=f"no answer in {effect.timeout_s:g} s")
        self.queue.after(effect.timeout_s, lambda: call.answer(late) if self.life == life else None)
        self.host.hypervisor.begin(call)

    # --- the link

    def _reconnect(self, wait_s: float) -> None:
        """Try our own way, once at a time; also while a peer carries our frames."""
        if self._connecting:
            return
        self._connecting = True
        aggregators = self.host.world.aggregators
        self.aggregator = aggregators[(aggregators.index(self.aggregator) + 1) % len(aggregators)]
        pause_s = self.host.random.uniform(*RECONNECT_S) / len(aggregators)
        self.later(wait_s + pause_s, self._connect)

    def _connect(self) -> None:
        world, aggregator = self.host.world, self.aggregator
        if not world.network.both_ways(self.host.name, aggregator.name, Plane.CONTROL) or aggregator.paused:
            self.later(CONNECT_TIMEOUT_S, self._try_again)
        elif not aggregator.alive:
            self._try_again()
        else:
            self.later(self.host.random.uniform(0.001, 0.004), self._connected)

    def _connected(self) -> None:
        if not self.aggregator.takes_agents:
            self._try_again()
            return
        self._connecting = False
        self._links += 1
        self._use(Connection(self, self.aggregator, self._links))

    def _try_again(self) -> None:
        self._connecting = False
        self._reconnect(0.0)

    def relayed_by(self, peer: SimulatedAgent, plane: Plane) -> None:
        """Speak through a peer from now on, and go on trying our own way."""
        self._links += 1
        self._use(RelayedConnection(self, peer.aggregator, self._links, peer, plane))
        self._reconnect(0.0)

    def _use(self, connection: Connection) -> None:
        """Make it the present connection; the one before is closed."""
        if self.connection is not None:
            self.connection.agent_closes()
        self.connection = connection
        connection.aggregator.accept(connection)
        self.give(LinkOpened(connection.link, connection.via))
