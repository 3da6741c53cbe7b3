"""Drives a keeper as its daemon would, without any I/O: keeps the ledger, the sent messages, the calls."""

from __future__ import annotations

from typing import TypeVar

from agent.keeper import Keeper
from agent.keeper_types import (
    AnyDeed,
    AnyLedgerRecord,
    Call,
    CallReturned,
    DomainChanged,
    DomainsListed,
    Effect,
    Fact,
    KeeperSettings,
    LinkOpened,
    LookNow,
    MessageReceived,
    Persist,
    PidGone,
    Send,
    Tick,
    VmObservation,
)
from agent.memory import recall
from fleet.messages import (
    Assignment,
    Beat,
    BeatAnswer,
    FromAgent,
    Hello,
    Order,
    OrderBody,
    OrderReport,
    ReceiveVm,
    StartVm,
    TakePicture,
    Welcome,
)
from fleet.model import EndReason, Leadership, LedgerState, NodeFacts, QemuState, SessionKey, VmReport

UUID = "11111111-2222-3333-4444-555555555555"
LEADER = Leadership(3, "a1", 10)
SECRET = "a secret of the hand-over"
M = TypeVar("M")


class Node:
    """A keeper, the ledger that survives it, and everything it ever asked for."""

    def __init__(self, name: str = "h1", *, migration_tls: bool = False) -> None:
        self.name, self.migration_tls = name, migration_tls
        self.boot_id = "boot-1"
        self.now = 100.0
        self.records: list[AnyLedgerRecord] = []
        self.effects: list[Effect] = []
        self.starts = 0
        self.link = 0
        self.orders = 0
        self.ledger = LedgerState.NEW
        self.restart()

    def restart(self, synced: int | None = None) -> None:
        """Kill the agent and start it anew; only the first `synced` records survived."""
        if synced is not None:
            del self.records[synced:]
        self.starts += 1
        settings = KeeperSettings(
            node=self.name,
            boot_id=self.boot_id,
            agent_start=f"{self.name}-{self.starts}",
            facts=NodeFacts(machine_id="m", host_uuid="u"),
            ledger=self.ledger,
            migration_tls=self.migration_tls,
            migration_tls_by_name=self.migration_tls,
        )
        self.keeper = Keeper(settings, recall(self.records))

    def step(self, fact: Fact, after_s: float = 0.001) -> list[Effect]:
        self.now += after_s
        effects = self.keeper.step(self.now, fact)
        self.effects += effects
        self.records += [e.record for e in effects if isinstance(e, Persist)]
        return effects

    def tick(self, after_s: float) -> list[Effect]:
        """Let time pass, second by second, the aggregator answering every beat."""
        effects: list[Effect] = []
        while after_s > 0:
            effects += self.step(Tick(), min(1.0, after_s))
            after_s -= 1.0
            for beat in sent_of(effects[-20:], Beat)[-1:]:
                effects += self.hear(BeatAnswer(beat.sequence, LEADER))
        return effects

    def connect(
        self, *vms: VmObservation, assignments: tuple[Assignment, ...] = (), leader: Leadership = LEADER
    ) -> list[Effect]:
        """Open a link, be welcomed, list what is here; returns the effects of the last step."""
        self.link += 1
        self.step(LinkOpened(self.link))
        self.hear(Welcome(1, leader, self.session, 1.0, assignments))
        return self.listed(*vms)

    def hear(self, message: Welcome | BeatAnswer | Order | TakePicture) -> list[Effect]:
        return self.step(MessageReceived(self.link, message))

    def listed(self, *vms: VmObservation, complete: bool = True) -> list[Effect]:
        self.now += 0.001
        return self.step(DomainsListed(vms, complete, self.now))

    def changed(self, vm: VmObservation) -> list[Effect]:
        self.now += 0.001
        return self.step(DomainChanged(vm, self.now))

    def gone(self, qemu: str = "q1", end: EndReason = EndReason.NOT_ENDED) -> list[Effect]:
        return self.step(PidGone(UUID, qemu, end))

    def order(self, body: OrderBody, epoch: int = 1, **other: object) -> list[Effect]:
        """Give an order of this session with a new id (or the one given)."""
        self.orders += 1
        values: dict[str, object] = {
            "order_id": f"o{self.orders}",
            "uuid": UUID,
            "name": "web-1",
            "epoch": epoch,
            "leader": LEADER,
            "session": self.session,
            "body": body,
        }
        return self.hear(Order(**(values | other)))  # type: ignore[arg-type]

    def returned(self, call: Call, code: str = "", **other: object) -> list[Effect]:
        return self.step(CallReturned(call.call_id, not code, code, **other))  # type: ignore[arg-type]

    def start(self, epoch: int = 1, run: int = 1, qemu: str = "q1") -> None:
        """Have the VM started and seen running."""
        define = only_call(self.order(StartVm("<domain/>", run), epoch))
        create = only_call(self.returned(define))
        self.changed(a_vm(QemuState.RUNNING, qemu))
        assert reports(self.returned(create))[-1].outcome == "Done"

    def permit(self, epoch: int = 2, run: int = 1) -> list[Effect]:
        return self.order(ReceiveVm("m1", run, "h1", epoch - 1, SECRET), epoch)

    @property
    def session(self) -> SessionKey:
        hellos = [m for m in self.sent() if isinstance(m, Hello)]
        return hellos[-1].session

    def sent(self) -> list[FromAgent]:
        return messages(self.effects)


def messages(effects: list[Effect]) -> list[FromAgent]:
    return [e.message for e in effects if isinstance(e, Send)]


def sent_of(effects: list[Effect], kind: type[M]) -> list[M]:
    return [m for m in messages(effects) if isinstance(m, kind)]


def reports(effects: list[Effect]) -> list[OrderReport]:
    return sent_of(effects, OrderReport)


def calls(effects: list[Effect]) -> list[Call]:
    return [e for e in effects if isinstance(e, Call)]


def only_call(effects: list[Effect]) -> Call:
    (call,) = calls(effects)
    return call


def deeds(effects: list[Effect]) -> list[AnyDeed]:
    return [call.deed for call in calls(effects)]


def looks(effects: list[Effect]) -> bool:
    return any(isinstance(e, LookNow) for e in effects)


def vm_reports(effects: list[Effect]) -> list[VmReport]:
    """Every report of a VM in these effects, in order of sending."""
    found: list[VmReport] = []
    for message in messages(effects):
        if isinstance(message, OrderReport) and message.vm is not None:
            found.append(message.vm)
        found += getattr(message, "vms", ())
    return found


def persisted(effects: list[Effect]) -> list[AnyLedgerRecord]:
    return [e.record for e in effects if isinstance(e, Persist)]


def a_vm(state: QemuState, qemu: str = "q1", **other: object) -> VmObservation:
    gone = state is QemuState.GONE
    values: dict[str, object] = {
        "uuid": UUID,
        "name": "web-1",
        "state": state,
        "qemu": "" if gone else qemu,
        "defined": True,
    }
    return VmObservation(**(values | other))  # type: ignore[arg-type]
