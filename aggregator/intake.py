"""Agents come in here: token, hello, welcome, and every frame after that turned into a fact.

Knows the protocol and who is connected; decides nothing about nodes (that is the core's work), but what is
no protocol ends the connection at once, with one line in the log. One connection a node: a newer session
replaces an older one, an older one is refused.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Protocol

import msgspec
import structlog
from aiohttp import web

from aggregator.authority import Authority
from aggregator.callers import Caller, by_token, certified, fault_of_caller, readmission
from aggregator.connection import BadFrameError, Connection, ConnectionEndedError
from aggregator.core.arrival_check import arrival_checked
from aggregator.core.events import (
    BeatHeard,
    Event,
    MigrationProgressed,
    OrderReported,
    ProbeAnswered,
    SessionEnded,
    SessionOpened,
    VmsReported,
)
from aggregator.core.freshness import AnswersSent
from aggregator.core.identity import identity_refused
from aggregator.core.state import State
from aggregator.core.welcome import answer_hello, kept_told, members_of
from aggregator.leadership_proof import is_believed
from aggregator.plausible import fault_of
from aggregator.questions import Questions
from fleet import messages as msg
from fleet.messages import FRAME_BYTES_MAX, FromAgent, Hello, Refusal
from fleet.model import Leadership, SessionKey
from fleet.sealing import NONCE_CHARACTERS, seal_of

AGENT_PATH = "/agent/v1"
HELLO_S_MAX = 5.0
FULL_STATE_S_MAX = 30.0
SILENCE_S_MAX = 60.0  # the core judges silence long before; this only frees what nobody uses
CONNECTIONS_MAX = 12_000
STRANGERS_MAX = 1_000  # connections that have not said who they are

_log = structlog.get_logger("aggregator.intake")


class Desk(Protocol):
    """What the intake needs of the loop."""

    @property
    def state(self) -> State: ...
    @property
    def durable_position(self) -> int: ...
    @property
    def leading(self) -> bool: ...
    def offer(self, fact: Event) -> bool: ...
    def report(self, fact: Event) -> None: ...
    async def at_rest(self) -> None: ...
    def now(self) -> float: ...


class _Session:
    """One agent that was welcomed. stands: its first full state is a fact. answers: empty in a direct one."""

    def __init__(self, node: str, key: SessionKey, connection: Connection, answers: AnswersSent | None) -> None:
        self.node, self.key, self.connection, self.answers = node, key, connection, answers
        self.generation = 0
        self.stands = False
        self.enrolment = ""  # that it was opened by
        self.trust_told = ""
        self.members_told = -1


Pictured = Callable[[str, msg.GuestPictured], None]


class Intake:
    """The agents' door. sessions: node -> its one session."""

    def __init__(self, desk: Desk, authority: Authority | None = None, pictured: Pictured = lambda *_: None) -> None:
        """authority: None where agents speak openly, without certificates. pictured: told what guests showed."""
        self._desk, self._authority, self._certificates = desk, authority, authority is not None
        self._proofs = authority.proofs if authority is not None else None
        self._sessions: dict[str, _Session] = {}
        self._strangers = 0
        self._serving: set[asyncio.Task[object]] = set()
        self._pictured = pictured
        self.questions = Questions(lambda: desk.state, self.standing, lambda: self._sessions)

    def make_app(self) -> web.Application:
        """Return the application to listen with."""
        app = web.Application(client_max_size=64 * 1024)
        app.router.add_get(AGENT_PATH, self._come_in)
        return app

    def standing(self, node: str, key: SessionKey | None = None) -> Connection | None:
        """Return the connection of a node's standing session, if it is this one (any, where key is None)."""
        session = self._sessions.get(node)
        if session is None or not session.stands or (key is not None and session.key != key):
            return None
        return session.connection if session.connection.open else None

    async def close(self) -> None:
        """End every connection."""
        for task in list(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    # --- one connection

    async def _come_in(self, request: web.Request) -> web.StreamResponse:
        if self._certificates and (fact := readmission(self._desk.state, request, self._desk.now())) is not None:
            self._desk.report(fact)
            await self._desk.at_rest()
        nodes = self._desk.state.nodes
        caller = certified(nodes, request) if self._certificates else by_token(nodes, request)
        if isinstance(caller, str):
            _log.warning("agent refused", peer=request.remote, reason=caller)
            return web.Response(status=401, text=f"{caller}\n")
        if not self._desk.leading:  # an agent that has another way, a peer's too, keeps it
            return web.Response(status=503, text="this aggregator does not lead now; try again\n")
        if len(self._serving) >= CONNECTIONS_MAX or self._strangers >= STRANGERS_MAX:
            return web.Response(status=503, text="too many connections; try again\n")
        socket = web.WebSocketResponse(max_msg_size=FRAME_BYTES_MAX, compress=False, autoping=True)
        await socket.prepare(request)
        connection = Connection(socket, str(request.remote), self._desk.now, self._desk.report, self._proofs)
        task = asyncio.current_task()
        if task is not None:
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)
        await self._serve(connection, caller)
        return socket

    async def _serve(self, connection: Connection, caller: Caller) -> None:
        session: _Session | None = None
        ended, last = ConnectionEndedError("closed", "the aggregator stops"), None
        self._strangers += 1
        try:
            try:
                session = await self._greet(connection, caller)
            finally:
                self._strangers -= 1
            while True:
                self._take(session, await _receive(connection, SILENCE_S_MAX if session.stands else FULL_STATE_S_MAX))
        except ConnectionEndedError as error:
            ended = error
        except BadFrameError as error:
            ended, last = ConnectionEndedError("reset", str(error)), Refusal(error.code, str(error))
        finally:
            self._leave(session, ended)
            log = _log.info if last is None else _log.warning
            log(
                "agent gone",
                node=session.node if session else "",
                peer=connection.peer,
                how=ended.how,
                reason=ended.why,
            )
            await connection.close(last)

    async def _greet(self, connection: Connection, caller: Caller) -> _Session:
        if caller.claim is not None:
            nonce = secrets.token_hex(NONCE_CHARACTERS // 2)
            await connection.challenge(nonce, seal_of(caller.claim, nonce, caller.token_sha256, at_agent=False))
        hello = await _receive(connection, HELLO_S_MAX)
        if not isinstance(hello, Hello):
            raise BadFrameError("no-hello", f"the first frame must be a Hello, not a {type(hello).__name__}")
        if not self._desk.leading:
            raise BadFrameError("not-leading", "this aggregator does not lead now; try again")
        await self._desk.at_rest()
        if fault := fault_of_caller(self._desk.state.nodes, hello.node, caller):
            raise BadFrameError(*fault)
        answer = answer_hello(self._desk.state, hello, caller.token_sha256, caller.via)
        if isinstance(answer, Refusal):
            refused = identity_refused(self._desk.state, hello, self._desk.now())
            if refused is not None:
                self._offer(refused)
            raise BadFrameError(answer.code, answer.message)
        answers = AnswersSent(self._desk.now()) if caller.via else None
        session = _Session(hello.node, hello.session, connection, answers)
        session.enrolment = caller.enrolment
        self._replace(session)
        connection.send(msgspec.structs.replace(answer, trust=self._new_trust(session)))
        first = await _receive(connection, self._desk.state.config.lease if caller.via else FULL_STATE_S_MAX)
        if not isinstance(first, msg.FullState):
            raise BadFrameError("no-state", f"after the welcome a FullState must come, not a {type(first).__name__}")
        self._open(session, hello, first, caller.via)
        return session

    def _replace(self, session: _Session) -> None:
        """Put the new session in the old one's place, which ends here; an older session is refused."""
        old = self._sessions.get(session.node)
        if old is not None:
            same_start = (old.key.boot_id, old.key.agent_start) == (session.key.boot_id, session.key.agent_start)
            if same_start and session.key.number <= old.key.number:
                raise BadFrameError("old-session", f"session {session.key.number} is older than the one that stands")
            why = "the agent opened a newer session"
            self._leave(old, ConnectionEndedError("replaced", why))
            old.connection.end("replaced", why)
        self._sessions[session.node] = session

    def _open(self, session: _Session, hello: Hello, first: msg.FullState, via: str) -> None:
        if self._sessions.get(session.node) is not session:
            raise ConnectionEndedError("replaced", "the agent opened a newer session")
        self._check_session(session, first.session)
        believed = is_believed(self._desk.state, hello, self._proofs)
        self._offer(
            SessionOpened(
                at=self._desk.now(),
                node=session.node,
                session=session.key,
                facts=hello.facts,
                ledger=hello.ledger,
                generation=first.generation,
                vms=first.vms,
                in_hand=first.in_hand,
                complete=first.complete,
                definitions=first.definitions,
                highest=hello.highest if believed else None,
                protocol=hello.protocol_max,
                via=via,
                disbelieved=None if believed else hello.highest,
            )
        )
        session.generation, session.stands = first.generation, True
        peer = session.connection.peer
        _log.info("agent stands", node=session.node, peer=peer, session=session.key.number, via=via)

    def _leave(self, session: _Session | None, ended: ConnectionEndedError) -> None:
        if session is None or self._sessions.get(session.node) is not session:
            return
        del self._sessions[session.node]
        if session.stands:
            session.stands = False
            at, how = self._desk.now(), ended.how
            self._desk.report(SessionEnded(at=at, node=session.node, session=session.key, how=how, by_it=ended.by_it))

    # --- frames of a standing session

    def _take(self, session: _Session, message: FromAgent) -> None:
        """Turn one frame into its fact, or answer it. BadFrameError, ConnectionEndedError."""
        now, node, key = self._desk.now(), session.node, session.key
        record = self._desk.state.nodes.get(node)
        if self._certificates and record is not None and record.credentials.enrolment != session.enrolment:
            raise BadFrameError("revoked", f"the credentials of {node} were revoked or replaced since it came in")
        match message:
            case msg.Beat():
                self._beat(session, message, now)
            case msg.Delta():
                self._check_session(session, message.session)
                if message.generation != session.generation + 1:
                    raise ConnectionEndedError(
                        "reset", f"delta {message.generation} does not follow {session.generation}"
                    )
                session.generation = message.generation
                self._offer(
                    VmsReported(
                        at=now,
                        node=node,
                        session=key,
                        generation=message.generation,
                        vms=message.vms,
                        definitions=message.definitions,
                        facts=message.facts,
                    )
                )
            case msg.FullState():
                self._check_session(session, message.session)
                session.generation = message.generation
                self._offer(
                    VmsReported(
                        at=now,
                        node=node,
                        session=key,
                        generation=message.generation,
                        vms=message.vms,
                        full=True,
                        complete=message.complete,
                        in_hand=message.in_hand,
                        definitions=message.definitions,
                    )
                )
            case msg.GuestPictured():
                self._pictured(node, message)
            case msg.DefinitionChecked() | msg.MoveChecked():
                if not self.questions.answered(node, message) and isinstance(message, msg.MoveChecked):
                    self._offer(arrival_checked(message, node, now))  # the core has asked
            case msg.Goodbye():
                self._check_session(session, message.session)
                raise ConnectionEndedError("goodbye", message.reason[:200], by_it=True)
            case _:
                self._report_of_work(session, message, now)

    def _report_of_work(self, session: _Session, message: FromAgent, now: float) -> None:
        node, key = session.node, session.key
        match message:
            case msg.OrderReport():
                self._check_session(session, message.session)
                self._offer(
                    OrderReported(
                        at=now,
                        node=node,
                        session=key,
                        order_id=message.order_id,
                        uuid=message.uuid,
                        epoch=message.epoch,
                        outcome=message.outcome,
                        code=message.code,
                        message=message.message,
                        vm=message.vm,
                    )
                )
            case msg.MigrationProgress():
                self._offer(
                    MigrationProgressed(at=now, node=node, uuid=message.uuid, order_id=message.order_id, far=message)
                )
            case msg.ProbeReport():
                self._check_session(session, message.session)
                self._offer(
                    ProbeAnswered(
                        at=now,
                        prober=node,
                        probe_id=message.probe_id,
                        target=message.target,
                        results=message.results,
                    )
                )
            case msg.VmsKept():
                self._check_session(session, message.session)
                self._offer(kept_told(message, now, node))
            case _:
                raise BadFrameError("unexpected", f"a {type(message).__name__} has no place in a standing session")

    def _beat(self, session: _Session, beat: msg.Beat, now: float) -> None:
        if beat.generation != session.generation:
            raise ConnectionEndedError(
                "reset", f"a beat speaks of state {beat.generation}, and {session.generation} came last"
            )
        made_after = session.answers.sent_at(beat.answered) if session.answers is not None else None
        fact = BeatHeard(
            at=now,
            node=session.node,
            session=session.key,
            sequence=beat.sequence,
            made_after=made_after,
            load=beat.load,
        )
        self._offer(fact)
        if self._desk.leading:  # an answer is a promise that somebody leads (S5)
            leader = self._desk.state.leader
            known = Leadership(leader.term, leader.instance, self._desk.durable_position)
            session.connection.send(
                msg.BeatAnswer(beat.sequence, known, self._new_trust(session), self._new_members(session))
            )
            if session.answers is not None:
                session.answers.sent(beat.sequence, now)

    def _new_trust(self, session: _Session) -> str:
        """Return what names the present trust, if this session was not told yet."""
        version = self._authority.trust(self._desk.state).version if self._authority is not None else ""
        if version == session.trust_told:
            return ""
        session.trust_told = version
        return version

    def _new_members(self, session: _Session) -> tuple[str, ...]:
        """Return who belongs to the fleet, if that has changed since this session was told."""
        if (state := self._desk.state).behind or session.members_told == state.members_at:
            return ()
        session.members_told = state.members_at
        return members_of(state)

    def _offer(self, fact: Event) -> None:
        if not self._desk.offer(fact):
            raise ConnectionEndedError("closed", "the aggregator has more facts than it can fold")

    @staticmethod
    def _check_session(session: _Session, named: SessionKey) -> None:
        if named != session.key:
            raise BadFrameError("session", f"a frame names session {named.number}, this one is {session.key.number}")


async def _receive(connection: Connection, seconds_max: float) -> FromAgent:
    """Return the next message that can be meant. BadFrameError, ConnectionEndedError."""
    message = await connection.receive(seconds_max)
    if fault := fault_of(message):
        raise BadFrameError("absurd", f"this cannot be meant: {fault}")
    return message
