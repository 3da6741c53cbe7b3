"""A fleet for tests of the core: real settle(), and agents and devices that answer as told.

Time is a number that tests move. Nothing here decides anything: agents carry out what they are
ordered at once (or not, if told so), fence devices say what the test wrote on them.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import structs

from aggregator.core import events as ev
from aggregator.core.actions import Action, AskFence, CloseSession, SendOrder, SendProbe, SendRelayOffer
from aggregator.core.events import Event, NodeState, PowerAnswer
from aggregator.core.fold import fold
from aggregator.core.history import kind_of
from aggregator.core.journal_form import decode_event, encode_event
from aggregator.core.objects import FencingRung, NodeSpec, VmSpec
from aggregator.core.settle import Settled, settle
from aggregator.core.state import NodeRecord, State, VmRecord
from fleet import messages as msg
from fleet.guest_health import GuestHealth
from fleet.messages import Order, ProbeResult
from fleet.model import (
    BmcIdentity,
    EndReason,
    Leadership,
    LedgerState,
    NodeFacts,
    OrderOutcome,
    QemuState,
    SessionKey,
    VmReport,
)

START = 1_000_000.0
LABORATORY = {"unseenAtLeast": "5s", "readinessEvery": "5s"}
GIB = 1 << 30


class Fleet:
    """The core and everything around it."""

    def __init__(self, nodes: int = 3, config: dict[str, object] | None = None) -> None:
        self.state = State()
        self.now = START
        self.journal: list[bytes] = []
        self.happened: list[Event] = []
        self.actions: list[Action] = []
        self.qemus: dict[tuple[str, str], VmReport] = {}  # (node, uuid) -> what its agent says
        self.health: dict[str, GuestHealth] = {}  # by VM: of the guests that are started
        self.power: dict[str, PowerAnswer] = {}  # what a node's device answers to status
        self.off_answer: dict[str, PowerAnswer] = {}
        self.silent: set[str] = set()  # nodes that neither beat nor obey nor answer probes
        self.deaf: set[str] = set()  # nodes that beat and do not obey
        self.heard: dict[str, bool] = {}  # whether peers reach it although it is silent
        self.answers_at: dict[str, tuple[str, ...]] = {}  # ports that answer peers although the node is silent
        self.hears: dict[str, set[str]] = {}  # silent node -> the peers that alone get its answers
        self.relayable: set[str] = set()  # silent nodes whose agents take a relay that is offered
        self.hanging: set[str] = set()  # nodes whose devices do not answer an off order
        self.refuse: dict[str, OrderOutcome] = {}  # vm -> what becomes of its start orders
        self.highest: dict[str, Leadership] = {}  # what an agent has obeyed, where it tells it
        self.refuse_resume: OrderOutcome | None = None  # what becomes of every resume order
        self.refuse_migrate: OrderOutcome | None = None  # what becomes of every order to migrate
        self.refuse_undefine: OrderOutcome | None = None  # what becomes of every order to undefine
        self.ledgers: dict[str, LedgerState] = {}  # of nodes whose ledger is not sound
        self.sessions: dict[str, int] = {}
        self.boots: dict[str, int] = {}
        self.settle(
            ev.AggregatorStarted(at=self.now, leader=Leadership(1, "i1", 0), secret="s" * 32),
            ev.ConfigChanged(at=self.now, config=config or dict(LABORATORY)),
        )
        for number in range(1, nodes + 1):
            self.join(f"n{number}")

    # --- the world -----------------------------------------------------------------------

    def join(self, name: str, spec: NodeSpec | None = None, labels: dict[str, str] | None = None) -> None:
        """Apply a node, give it a token and let its agent speak."""
        address = f"10.9.0.{len(self.state.nodes) + 1}"
        rung = FencingRung(agent="fence_ipmilan", params={"ip": address})
        self.settle(
            ev.NodeApplied(at=self.now, name=name, labels=labels or {}, spec=spec or NodeSpec(fencing=(rung,))),
            ev.NodeTokenIssued(at=self.now, name=name, token_sha256="t"),
        )
        self.boots[name] = 1
        self.connect(name)

    def cut_off(self, name: str) -> None:
        """Only the node's way to the aggregator is cut: peers hear it, and its agent takes a relay."""
        self.silent.add(name)
        self.heard[name] = True
        self.relayable.add(name)

    def mend(self, name: str) -> None:
        """The node's own way works again: its agent opens a session of its own."""
        self.relayable.discard(name)
        self.silent.discard(name)
        self.heard.pop(name, None)
        self.connect(name)

    def connect(
        self, name: str, in_hand: tuple[msg.OrderInHand, ...] = (), *, complete: bool = True, via: str = ""
    ) -> None:
        """Open a new session of a node's agent and report everything."""
        self.sessions[name] = self.sessions.get(name, 0) + 1
        session = SessionKey(f"boot{self.boots[name]}-{name}", "start", self.sessions[name])
        number = name.removeprefix("n")
        facts = NodeFacts(
            machine_id=f"machine-{name}",
            host_uuid=f"host-{name}",
            cpu_m=8000,
            memory_bytes=8 * GIB,
            addresses={"control": f"10.1.0.{number}", "migration": f"10.2.0.{number}"},
            bmc=BmcIdentity(f"10.9.0.{number}", "guid"),
        )
        reports = tuple(report for (node, _), report in self.qemus.items() if node == name)
        self.settle(
            ev.SessionOpened(
                protocol=msg.PROTOCOL_MAX,
                at=self.now,
                node=name,
                session=session,
                facts=facts,
                ledger=self.ledgers.get(name, LedgerState.SOUND),
                generation=1,
                vms=reports,
                in_hand=in_hand,
                complete=complete,
                highest=self.highest.get(name),
                via=via,
            )
        )

    def reboot(self, name: str, *reports: VmReport) -> None:
        """Lose everything on a node and let another boot of it join, with these reports."""
        self.boots[name] += 1
        self.qemus = {key: r for key, r in self.qemus.items() if key[0] != name}
        self.qemus |= {(name, report.uuid): report for report in reports}
        self.silent.discard(name)
        self.power.pop(name, None)
        self.connect(name)

    def kill_power(self, name: str) -> None:
        """The node is gone; its device says off."""
        self.silent.add(name)
        self.power[name] = PowerAnswer.OFF

    def restart(self) -> None:
        """A new life of the aggregator over the same journal."""
        self.state = self.replayed()
        away_s = self.now - self.state.now
        leader = Leadership(2, "i2", self.state.position)
        self.settle(ev.AggregatorStarted(at=self.now, leader=leader, away_s=away_s))

    def replayed(self) -> State:
        """Return the state that the journal alone gives."""
        state = State()
        for data in self.journal:
            fold(state, decode_event(data))
        return state

    # --- time and facts ------------------------------------------------------------------

    def settle(self, *facts: Event) -> Settled:
        """Fold facts, journal what happened, let the world answer the actions."""
        settled = settle(self.state, facts, self.now)
        self.journal += [encode_event(event) for event in settled.events]
        self.happened += settled.events
        self.actions += settled.actions
        answers = [fact for action in settled.actions for fact in self._answers(action)]
        if answers:
            self.settle(*answers)
        for action in settled.actions:
            if isinstance(action, SendRelayOffer) and action.offer.target in self.relayable:
                self.silent.discard(action.offer.target)
                self.connect(action.offer.target, via=action.peer)
            if isinstance(action, CloseSession) and action.node not in self.silent:
                self.connect(action.node)
        return settled

    def run(self, seconds: float, step: float = 0.25) -> None:
        """Let time pass; whoever is not silent beats once a second."""
        for index in range(round(seconds / step)):
            self.now += step
            facts: list[Event] = []
            if index % round(1 / step) == 0:
                facts = [
                    ev.BeatHeard(
                        at=self.now,
                        node=n.name,
                        session=n.session,
                        sequence=index,
                        made_after=self.now - 1 if n.via else None,
                    )
                    for n in self.state.nodes.values()
                    if n.session is not None and n.name not in self.silent
                ]
            self.settle(*facts)

    def run_until(self, condition: Callable[[], bool], limit_s: float = 120) -> float:
        """Let time pass until the condition holds; return how long it took."""
        begin = self.now
        while not condition():
            assert self.now - begin < limit_s, f"never: {self.story()[-12:]}"
            self.run(1)
        return self.now - begin

    def _answers(self, action: Action) -> list[Event]:
        if isinstance(action, AskFence):
            hangs = action.question == "off" and action.node in self.hanging
            return [] if hangs else [self._device(action)]
        if isinstance(action, SendProbe):
            return [self._probe(action)]
        if isinstance(action, SendOrder) and action.node not in self.silent | self.deaf:
            return self._obey(action.node, action.order)
        return []

    def _device(self, action: AskFence) -> Event:
        answer = self.power.get(action.node, PowerAnswer.ON)
        if action.question == "off":
            answer = self.off_answer.get(action.node, PowerAnswer.DONE)
            if answer is PowerAnswer.DONE:
                self.kill_power(action.node)
        elif action.question == "on":
            answer = PowerAnswer.DONE
        return ev.FenceAnswered(
            at=self.now,
            node=action.node,
            question_id=action.question_id,
            answer=answer,
            asked_at=self.now,
            line=f"says {answer}",
        )

    def _probe(self, action: SendProbe) -> Event:
        target = action.request.target
        alive = target not in self.silent or self.heard.get(target, False)
        alive = alive or action.prober in self.hears.get(target, ())
        ports = self.answers_at.get(target, ())
        results = tuple(ProbeResult(a.plane, a.port, alive or a.port in ports, 0.0) for a in action.request.addresses)
        return ev.ProbeAnswered(
            at=self.now,
            prober=action.prober,
            probe_id=action.request.probe_id,
            target=target,
            results=results,
        )

    def says_of_guest(self, name: str, health: GuestHealth) -> None:
        """The owner's agent reports what it found of a guest."""
        vm = self.vm(name)
        key = (vm.owner, vm.uuid)
        self.qemus[key] = structs.replace(self.qemus[key], guest=health)
        self.settle(self.reported(vm.owner, self.qemus[key]))

    def _obey(self, node: str, order: Order) -> list[Event]:
        body, key = order.body, (node, order.uuid)
        outcome = OrderOutcome.DONE
        now = self.qemus.get(key)
        run = getattr(body, "run", now.run if now else 0)
        defined = now.definition_hash if now else ""
        report = VmReport(order.uuid, order.name, QemuState.GONE, epoch=order.epoch, run=run, managed=True)
        report = structs.replace(report, definition_hash=defined)
        if isinstance(body, msg.StartVm) and order.name in self.refuse:
            outcome = self.refuse[order.name]
            if outcome is OrderOutcome.REFUSED:
                return [self._told(node, order, outcome, None)]
            report = structs.replace(report, released=True, end=EndReason.CRASHED)
        elif isinstance(body, msg.ResumeVm) and self.refuse_resume is not None:
            return [self._told(node, order, self.refuse_resume, now)]
        elif isinstance(body, msg.StartVm | msg.ResumeVm | msg.UnpauseVm):
            health = self.health.get(order.name, GuestHealth())
            report = structs.replace(report, state=QemuState.RUNNING, guest=health)
        elif isinstance(body, msg.PauseVm):
            report = structs.replace(report, state=QemuState.PAUSED)
        elif isinstance(body, msg.ReceiveVm):
            outcome = OrderOutcome.ACCEPTED
        elif isinstance(body, msg.MigrateVm):
            return self._migrate(node, order, body)
        elif isinstance(body, msg.SetIsolation | msg.SetProbes):
            return [self._told(node, order, outcome, now)]
        elif isinstance(body, msg.CancelMigration):
            return [self._told(node, order, outcome, None)]
        elif isinstance(body, msg.UndefineVm):
            return [self._told(node, order, self.refuse_undefine or outcome, now)]
        else:
            report = structs.replace(report, released=True, end=EndReason.ORDERED)
        self.qemus[key] = report
        return [self._told(node, order, outcome, report)]

    def _migrate(self, node: str, order: Order, body: msg.MigrateVm) -> list[Event]:
        if self.refuse_migrate is not None:
            return [self._told(node, order, self.refuse_migrate, self.qemus[node, order.uuid])]
        gone = VmReport(
            order.uuid,
            order.name,
            QemuState.GONE,
            end=EndReason.MIGRATED,
            epoch=order.epoch,
            run=body.run,
            released=True,
        )
        copy = structs.replace(self.qemus[body.target, order.uuid], state=QemuState.ARRIVED, epoch=body.target_epoch)
        self.qemus[node, order.uuid] = gone
        self.qemus[body.target, order.uuid] = copy
        return [self.reported(body.target, copy), self._told(node, order, OrderOutcome.DONE, gone)]

    def _told(self, node: str, order: Order, outcome: OrderOutcome, report: VmReport | None) -> Event:
        return ev.OrderReported(
            at=self.now,
            node=node,
            session=order.session,
            order_id=order.order_id,
            uuid=order.uuid,
            epoch=order.epoch,
            outcome=outcome,
            code="" if outcome is OrderOutcome.DONE else "TOLD_SO",
            message="" if outcome is OrderOutcome.DONE else "the test said so",
            vm=report,
        )

    def reported(self, node: str, report: VmReport) -> Event:
        """Return the fact that a node's agent says something new of a VM."""
        self.qemus[node, report.uuid] = report
        session = self.node(node).session
        assert session is not None
        return ev.VmsReported(at=self.now, node=node, session=session, generation=2, vms=(report,))

    def accepts(self, node: str) -> None:
        """A deaf node's agent says that it has what it was ordered, and no more."""
        orders = [r.order for r in self.state.orders.values() if r.node == node]
        self.settle(*(self._told(node, order, OrderOutcome.ACCEPTED, None) for order in orders))

    def ends(self, name: str, end: EndReason) -> None:
        """The VM's QEMU ends on its node, and the agent says so."""
        vm = self.vm(name)
        report = structs.replace(self.qemus[vm.owner, vm.uuid], state=QemuState.GONE, end=end, released=True)
        self.settle(self.reported(vm.owner, report))

    # --- people ----------------------------------------------------------------------------

    def apply(self, name: str, spec: VmSpec | None = None, **labels: str) -> None:
        """Apply a VM of one core and one GiB."""
        self.settle(
            ev.VmApplied(
                at=self.now,
                name=name,
                uuid=f"uuid-{name}",
                spec=spec or VmSpec(),
                labels=labels,
                cpu_m=1000,
                memory_bytes=GIB,
            )
        )

    def cordon(self, name: str, *, on: bool = True) -> None:
        """Cordon a node as a person does."""
        node = self.node(name)
        spec = structs.replace(node.spec, unschedulable=on)
        self.settle(ev.NodeApplied(at=self.now, name=name, labels=node.labels, spec=spec))

    # --- questions -------------------------------------------------------------------------

    def node(self, name: str) -> NodeRecord:
        """Return a node's record."""
        return self.state.nodes[name]

    def vm(self, name: str) -> VmRecord:
        """Return a VM's record."""
        return self.state.vms[name]

    def is_in(self, name: str, state: NodeState) -> Callable[[], bool]:
        """Return the condition that a node is in a state."""
        return lambda: self.node(name).state is state

    def story(self) -> list[str]:
        """Return the kinds of everything that happened, with their subject."""
        return [
            f"{kind_of(event)} {getattr(event, 'node', '') or getattr(event, 'vm', '')}".strip()
            for event in self.happened
        ]

    def asked(self, question: str) -> list[str]:
        """Return the nodes whose devices were asked this question, in order."""
        return [a.node for a in self.actions if isinstance(a, AskFence) and a.question == question]
