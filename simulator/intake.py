"""The aggregator's doors for agents, as the shipped intake does it: sockets in, facts out.

Hello is answered by the core (answer_hello), hello and first full state become SessionOpened, a
second connection of a node replaces the first, beats are answered at once, a missed generation
ends the session. A minimal model of aggregator/intake, because that one speaks asyncio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, structs

from aggregator.core import events as ev
from aggregator.core.arrival_check import arrival_checked
from aggregator.core.events import Event
from aggregator.core.freshness import AnswersSent
from aggregator.core.health import picture_fact
from aggregator.core.identity import identity_refused
from aggregator.core.welcome import answer_hello
from fleet.messages import (
    Beat,
    BeatAnswer,
    Delta,
    FromAgent,
    FullState,
    Goodbye,
    GuestPictured,
    Hello,
    MigrationProgress,
    MoveChecked,
    OrderReport,
    ProbeReport,
    Refusal,
)
from fleet.model import Leadership, SessionKey
from simulator.connection import Connection, Ending

if TYPE_CHECKING:
    from simulator.aggregator import SimulatedAggregator

SILENCE_S_MAX = 30.0


class Talk(Struct):
    """One connection as the intake knows it."""

    connection: Connection
    hello: Hello | None = None
    session: SessionKey | None = None  # set once the session stands
    generation: int = 0
    heard_at: float = 0.0  # world seconds
    answers: AnswersSent | None = None  # of a relayed one


class Intake:
    """All connections of one life of the aggregator."""

    def __init__(self, aggregator: SimulatedAggregator) -> None:
        self._aggregator = aggregator
        self._talks: list[Talk] = []
        self._standing: dict[str, Talk] = {}

    def accept(self, connection: Connection) -> None:
        self._talks.append(Talk(connection, heard_at=self._aggregator.queue.now))

    def standing(self, node: str) -> Talk | None:
        """Return the node's talk if its session stands."""
        return self._standing.get(node)

    def heard(self, connection: Connection, at: float) -> None:
        """Something was read from it at this world time, in quiet time."""
        talk = self._standing.get(connection.node)
        if talk is not None and talk.connection is connection:
            talk.heard_at = max(talk.heard_at, at)

    def close(self, node: str) -> None:
        talk = self._standing.get(node)
        if talk is not None:
            talk.connection.aggregator_closes()
            self._end(talk, "closed")

    def close_all(self) -> None:
        """The process is gone; its kernel says so."""
        for talk in self._talks:
            talk.connection.aggregator_closes()
        self._talks.clear()
        self._standing.clear()

    def drop_silent(self) -> None:
        """End connections nothing was read from for long."""
        due, quiet = self._aggregator.queue.now - SILENCE_S_MAX, self._aggregator.quiet
        for talk in [t for t in self._talks if t.heard_at < due and t.connection.node not in quiet]:
            talk.connection.aggregator_closes()
            self._end(talk, "timeout")

    def take(self, connection: Connection, item: FromAgent | Ending) -> None:
        """One message was read from a socket."""
        talk = self._standing.get(connection.node)
        if talk is None or talk.connection is not connection:
            talk = next((t for t in self._talks if t.connection is connection), None)
        if talk is None:
            return
        talk.heard_at = self._aggregator.queue.now
        if isinstance(item, Ending):
            connection.ended_at_aggregator()
            self._end(talk, item.how, by_it=True)
        elif isinstance(item, Hello):
            self._greet(talk, item)
        elif talk.session is None:
            if isinstance(item, FullState) and talk.hello is not None and item.session == talk.hello.session:
                self._open(talk, talk.hello, item)
        else:
            self._hear(talk, talk.session, item)

    # --- steps

    def _end(self, talk: Talk, how: str, *, by_it: bool = False) -> None:
        self._talks.remove(talk)
        node = talk.connection.node
        if talk.session is not None and self._standing.get(node) is talk:
            del self._standing[node]
            at = self._aggregator.now()
            self._aggregator.fact(ev.SessionEnded(at=at, node=node, session=talk.session, how=how, by_it=by_it))

    def _greet(self, talk: Talk, hello: Hello) -> None:
        aggregator = self._aggregator
        if talk.hello is not None or not aggregator.may_act():
            return
        via = talk.connection.via
        answer = answer_hello(aggregator.state, hello, f"token-{talk.connection.node}", via)
        if isinstance(answer, Refusal):
            refused = identity_refused(aggregator.state, hello, aggregator.now())
            if refused is not None:
                aggregator.fact(refused)
            talk.connection.aggregator_sends(answer)
            talk.connection.aggregator_closes()
            self._talks.remove(talk)
            return
        talk.hello = hello
        known = structs.replace(answer.leader, position=aggregator.position)
        talk.answers = AnswersSent(aggregator.now()) if via else None
        aggregator.world.acted(aggregator, f"a welcome to {hello.node}")
        talk.connection.aggregator_sends(structs.replace(answer, leader=known))

    def _open(self, talk: Talk, hello: Hello, full: FullState) -> None:
        node, at = hello.node, self._aggregator.now()
        if talk.answers is not None and at - talk.answers.sent_at(0) > self._aggregator.state.config.lease:
            talk.connection.aggregator_closes()
            self._talks.remove(talk)
            return
        old = self._standing.get(node)
        if old is not None and old.session is not None and _is_older(hello.session, old.session):
            talk.connection.aggregator_closes()
            self._talks.remove(talk)
            return
        if old is not None:
            old.connection.aggregator_closes()
            self._end(old, "replaced")
        talk.session, talk.generation = hello.session, full.generation
        self._standing[node] = talk
        self._aggregator.fact(
            ev.SessionOpened(
                protocol=hello.protocol_max,
                at=at,
                node=node,
                session=hello.session,
                facts=hello.facts,
                ledger=hello.ledger,
                generation=full.generation,
                vms=full.vms,
                in_hand=full.in_hand,
                complete=full.complete,
                definitions=full.definitions,
                highest=hello.highest,
                via=talk.connection.via,
            )
        )

    def _hear(self, talk: Talk, session: SessionKey, message: FromAgent) -> None:
        node, at, fact = talk.connection.node, self._aggregator.now(), self._aggregator.fact
        match message:
            case Beat(sequence=sequence, generation=generation, answered=answered):
                if not self._aggregator.may_act():
                    return
                made_after = None
                if talk.answers is not None:
                    made_after = talk.answers.sent_at(answered)
                    talk.answers.sent(sequence, at)
                leader = self._aggregator.state.leader
                answer = BeatAnswer(sequence, Leadership(leader.term, leader.instance, self._aggregator.position))
                self._aggregator.world.acted(self._aggregator, f"an answer to {node}'s beat")
                talk.connection.aggregator_sends(answer)
                fact(ev.BeatHeard(at=at, node=node, session=session, sequence=sequence, made_after=made_after))
                if generation > talk.generation:  # a delta was lost
                    self.close(node)
            case Delta():
                self._take_delta(talk, session, message)
            case FullState():
                talk.generation = message.generation
                fact(
                    ev.VmsReported(
                        at=at,
                        node=node,
                        session=session,
                        generation=message.generation,
                        vms=message.vms,
                        full=True,
                        complete=message.complete,
                        in_hand=message.in_hand,
                        definitions=message.definitions,
                    )
                )
            case OrderReport(order_id=order_id, uuid=uuid, epoch=epoch, outcome=outcome):
                report = ev.OrderReported(
                    at=at,
                    node=node,
                    session=message.session,
                    order_id=order_id,
                    uuid=uuid,
                    epoch=epoch,
                    outcome=outcome,
                    code=message.code,
                    message=message.message,
                    vm=message.vm,
                )
                fact(report)
            case MigrationProgress(uuid=uuid, order_id=order_id):
                fact(ev.MigrationProgressed(at=at, node=node, uuid=uuid, order_id=order_id, far=message))
            case ProbeReport() | GuestPictured():
                self._shown(node, at, message)
            case MoveChecked():
                fact(arrival_checked(message, node, at))
            case Goodbye():
                talk.connection.aggregator_closes()
                self._end(talk, "goodbye", by_it=True)

    def _shown(self, node: str, at: float, message: ProbeReport | GuestPictured) -> None:
        if isinstance(message, ProbeReport):
            fact: Event | None = ev.ProbeAnswered(
                at=at, prober=node, probe_id=message.probe_id, target=message.target, results=message.results
            )
        else:
            fact = picture_fact(self._aggregator.state, at, node, message, "" if message.png else "nothing came")
        if fact is not None:
            self._aggregator.fact(fact)

    def _take_delta(self, talk: Talk, session: SessionKey, delta: Delta) -> None:
        node = talk.connection.node
        if delta.generation <= talk.generation:
            return  # doubled
        if delta.generation != talk.generation + 1:
            self.close(node)
            return
        talk.generation = delta.generation
        self._aggregator.fact(
            ev.VmsReported(
                at=self._aggregator.now(),
                node=node,
                session=session,
                generation=delta.generation,
                vms=delta.vms,
                definitions=delta.definitions,
                facts=delta.facts,
            )
        )


def _is_older(session: SessionKey, standing: SessionKey) -> bool:
    same_start = (session.boot_id, session.agent_start) == (standing.boot_id, standing.agent_start)
    return same_start and session.number <= standing.number
