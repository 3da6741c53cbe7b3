"""What one simulated agent asks other agents and hosts, and how it answers them.

Knows addresses of the form HOST.PLANE:PORT and who would answer there now. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from agent.keeper_types import (
    AnswerPeer,
    CheckMove,
    MoveLooked,
    OfferToPeer,
    OpenRelay,
    PeerAnswered,
    PeerNoticeReceived,
    Probe,
    ProbeReturned,
    RelayOffered,
    TellPeer,
)
from fleet.messages import MoveChecked, ProbeAddress, ProbeResult, RelayOffer, ReleasedNotice, ReleasedReceipt
from fleet.model import Finding, Plane
from simulator.process import Process

if TYPE_CHECKING:
    from simulator.agent import SimulatedAgent

PEER_TIMEOUT_S = 1.0
LOOK_S = 0.02


def plane_of(address: str) -> Plane:
    """Return the plane of an address such as n1.migration:8422."""
    return Plane(address.partition(":")[0].rpartition(".")[2])


class Peers:
    """The ways of one agent to others."""

    def __init__(self, agent: SimulatedAgent) -> None:
        self._agent = agent
        self._requests: dict[int, Callable[[ReleasedReceipt], None]] = {}
        self._request = 0

    def forget(self) -> None:
        """A new life begins: nobody waits for us."""
        self._requests.clear()

    def do(self, effect: Probe | TellPeer | OfferToPeer | OpenRelay | CheckMove) -> None:
        """Perform what the keeper wants of others."""
        match effect:
            case Probe():
                self._probe(effect)
            case TellPeer():
                self._tell(effect, list(effect.addresses))
            case OfferToPeer():
                self._offer(effect)
            case CheckMove(question=question):
                self._look(question.check_id)
            case OpenRelay(peer=peer, address=address):
                self._open_relay(peer, plane_of(address))

    def _look(self, check_id: str) -> None:
        """Find what this host has for a copy; a libvirtd that is silent says nothing in time."""
        host = self._agent.host
        if host.hypervisor.answers:
            storage = Finding("Storage", ok=not host.storage_gone, message="the storage is lost" * host.storage_gone)
            fact = MoveLooked(MoveChecked(check_id, (storage,)))
            self._agent.later(LOOK_S, lambda: self._agent.give(fact))

    def answer(self, effect: AnswerPeer) -> None:
        """Send the reply to a notice."""
        answer = self._requests.pop(effect.request, None)
        if answer is not None:
            answer(effect.receipt)

    def _offer(self, effect: OfferToPeer) -> None:
        plane = plane_of(effect.address)
        host = self._agent.host.world.hosts[effect.target]
        offer = RelayOffer(self._agent.host.name, effect.target, host.facts().agent_port, "")
        if self._agent.host.reaches(host, plane):
            address = f"{self._agent.host.name}.{plane}:{offer.port}"
            host.agent.later(0.001, lambda: host.agent.give(RelayOffered(offer, address)))

    def _open_relay(self, name: str, plane: Plane) -> None:
        """Ask the peer to carry us on to its aggregator; if it cannot, nothing follows."""
        world = self._agent.host.world
        peer = world.hosts[name].agent

        def opened() -> None:
            on = world.network.both_ways(name, peer.aggregator.name, Plane.CONTROL)
            if self._agent.host.reaches(peer.host, plane) and peer.answers and on and peer.aggregator.takes_agents:
                self._agent.relayed_by(peer, plane)

        self._agent.later(self._agent.host.random.uniform(0.002, 0.008), opened)

    def _probe(self, effect: Probe) -> None:
        asked_s = self._agent.now()
        results = tuple(self._ask(address) for address in effect.addresses)
        delay_s = 0.02 if all(result.answered for result in results) else PEER_TIMEOUT_S
        fact = ProbeReturned(effect.probe_id, effect.target, results, asked_s)
        self._agent.later(delay_s, lambda: self._agent.give(fact))

    def _ask(self, address: ProbeAddress) -> ProbeResult:
        """Ask the process behind an address; a living kernel says that nobody listens, a frozen or cut one nothing."""
        ours = self._agent.host
        if address.plane is Plane.STORAGE:
            return _result(address, "no answer within 1 s" if ours.storage_gone else "")
        host = ours.world.hosts.get(address.host.partition(".")[0])
        if host is None or host.frozen or not ours.reaches(host, address.plane):
            return _result(address, "no answer within 1 s")
        if address.port == "ssh":
            return _result(address, "")
        process: Process = host.agent if address.port == "agent" else host.hypervisor
        silence = "no answer within 1 s" if process.alive else "nobody listens, but the kernel says so"
        return _result(address, "" if process.answers else silence)

    def _tell(self, effect: TellPeer, addresses: list[str]) -> None:
        notice = effect.notice
        if not addresses:
            self._agent.give(PeerAnswered(notice.uuid, notice.migration, None, "no address answered"))
            return
        name, _, plane = addresses[0].partition(":")[0].partition(".")
        host = self._agent.host.world.hosts.get(name)
        open_question = [True]

        def answer(receipt: ReleasedReceipt | None) -> None:
            if not open_question:
                return
            open_question.clear()
            if receipt is None:
                self._tell(effect, addresses[1:])
            else:
                self._agent.give(PeerAnswered(notice.uuid, notice.migration, receipt))

        self._agent.later(PEER_TIMEOUT_S, lambda: answer(None))
        way = Plane(plane)
        if (
            host is None
            or not host.power_on
            or not self._agent.host.world.network.passes(self._agent.host.name, name, way)
        ):
            return

        def answered(receipt: ReleasedReceipt) -> None:
            if self._agent.host.world.network.passes(name, self._agent.host.name, way):
                self._agent.later(0.001, lambda: answer(receipt))

        if host.agent.alive:
            host.agent.later(0.001, lambda: host.agent.peers.asked(notice, answered))

    def asked(self, notice: ReleasedNotice, answered: Callable[[ReleasedReceipt], None]) -> None:
        """Another agent tells us something; the keeper's AnswerPeer is our reply."""
        self._request += 1
        self._requests[self._request] = answered
        self._agent.give(PeerNoticeReceived(self._request, notice))


def _result(address: ProbeAddress, problem: str) -> ProbeResult:
    return ProbeResult(address.plane, address.port, not problem, 0.0, problem)
