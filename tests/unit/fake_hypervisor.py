"""A hypervisor in memory under the agent's own Protocol, for tests of everything around it."""

from __future__ import annotations

import asyncio

from agent.deeds import CODE_NOT_FOUND, AnyDeed, AskShutdown, Create, Define, Destroy, Undefine, VmObservation
from agent.hypervisor import Facts, HypervisorFacts, Result, Unaskable
from agent.keeper_types import DefinitionRead, DomainChanged, DomainsListed, PidGone
from agent.workers import happens_within
from fleet.clock import Clock
from fleet.domain_xml import DomainXmlError, parse_domain
from fleet.messages import CheckArrival, CheckDeparture, MoveChecked
from fleet.model import Definition, EndReason, QemuState


class FakeHypervisor:
    """VMs are entries of a dict; deeds take no time unless `hold` is set."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.vms: dict[str, VmObservation] = {}
        self.deeds: list[tuple[str, AnyDeed]] = []
        self.go = asyncio.Event()
        self.go.set()
        self.silent = ""  # why libvirt does not answer
        self.turned = asyncio.Event()
        self._died: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._facts: Facts = lambda _fact: None
        self._processes = 0

    async def start(self, facts: Facts) -> None:
        self._facts = facts
        self.look()

    def died(self) -> asyncio.Future[None]:
        return self._died

    async def stop(self) -> None:
        return

    async def wait_ready(self, wait_s_max: float) -> bool:
        return True

    async def wait_turned(self, wait_s_max: float) -> bool:
        turned = await happens_within(self.turned, wait_s_max)
        self.turned.clear()
        return turned

    def node_facts(self) -> HypervisorFacts:
        return HypervisorFacts("host-uuid", "9.0.0", "7.2.0", ready=not self.silent, reason=self.silent)

    def look(self) -> None:
        self._facts(DomainsListed(tuple(self.vms.values()), complete=True, asked_s=self.clock.monotonic_s()))

    async def check_xml(self, xml: str) -> Result:
        try:
            parse_domain(xml)
        except DomainXmlError as error:
            return Result(ok=False, code="XML_REFUSED", message=str(error))
        return Result(ok=True)

    async def do(self, uuid: str, deed: AnyDeed, timeout_s: float) -> Result:
        self.deeds.append((uuid, deed))
        await self.go.wait()
        if isinstance(deed, Define):
            return await self._define(uuid, deed.xml)
        if uuid not in self.vms:
            return Result(ok=False, code=CODE_NOT_FOUND, message="no such VM")
        match deed:
            case Create():
                self._processes += 1
                self._show(uuid, QemuState.RUNNING, f"q{self._processes}")
            case Destroy() | AskShutdown():
                self.end(uuid, EndReason.DESTROYED)
            case Undefine():
                del self.vms[uuid]
            case _:
                return Result(ok=False, code="UNSUPPORTED", message=type(deed).__name__)
        return Result(ok=True)

    async def _define(self, uuid: str, xml: str) -> Result:
        checked = await self.check_xml(xml)
        if not checked.ok:
            return checked
        domain = parse_domain(xml)
        self.vms[uuid] = VmObservation(uuid, domain.name, QemuState.GONE, defined=True, definition_hash=domain.hash)
        definition = Definition(uuid, domain.name, xml, domain.hash, domain.disks)
        self._facts(DefinitionRead(definition))
        return Result(ok=True, definition=definition)

    def end(self, uuid: str, reason: EndReason) -> None:
        """The QEMU dies."""
        qemu = self.vms[uuid].qemu
        self._facts(PidGone(uuid, qemu, reason))
        self._show(uuid, QemuState.GONE, "", reason)

    def _show(self, uuid: str, state: QemuState, qemu: str, end: EndReason = EndReason.NOT_ENDED) -> None:
        vm = VmObservation(uuid, self.vms[uuid].name, state, qemu, end=end, defined=True)
        self.vms[uuid] = vm
        self._facts(DomainChanged(vm, self.clock.monotonic_s()))


class FakeGuests:
    """The guest channel beside it: every guest answers, unless it is named in `deaf`; `unknown` cannot be asked."""

    def __init__(self) -> None:
        self.deaf: set[str] = set()
        self.unknown: set[str] = set()

    def ping(self, uuid: str, timeout_s: float) -> tuple[bool, str]:
        if uuid in self.unknown:
            raise Unaskable("libvirtd is silent")
        return (False, f"no answer within {timeout_s:g} s") if uuid in self.deaf else (True, "")

    def address(self, uuid: str) -> str:
        if uuid in self.unknown:
            raise Unaskable("nobody knows the guest's address")
        return "127.0.0.1"


class FakeMoveChecks:
    """Finds nothing against any move, and guests that write nothing."""

    async def check(self, question: CheckArrival | CheckDeparture) -> MoveChecked:
        is_measured = isinstance(question, CheckDeparture) and question.measure_s > 0
        return MoveChecked(question.check_id, dirty_bytes_per_s=0 if is_measured else -1)
