"""What the agent asks of a hypervisor. agent.libvirt_driver is the real one.

All methods are called in the agent's event loop. What the hypervisor shows comes through `facts`
as the keeper's own facts (DomainsListed, DomainChanged, DefinitionRead, PidGone, MigrationMoved).
No method raises for a hypervisor that fails: failures are results with a code.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from agent.deeds import AnyDeed
from agent.keeper_types import DefinitionRead, DomainChanged, DomainsListed, MigrationMoved, PidGone
from fleet.messages import CheckArrival, CheckDeparture, MoveChecked
from fleet.model import Definition, HostOffers

HypervisorFact = DomainsListed | DomainChanged | DefinitionRead | PidGone | MigrationMoved
Facts = Callable[[HypervisorFact], None]


class Result(Struct, frozen=True):
    """How a deed ended. code and message are empty when ok; definition: for Define, picture: for Screenshot, a PNG."""

    ok: bool
    code: str = ""
    message: str = ""
    definition: Definition | None = None
    picture: bytes = b""


class HypervisorFacts(Struct, frozen=True):
    """What the hypervisor knows of the node itself."""

    host_uuid: str = ""
    libvirt_version: str = ""
    qemu_version: str = ""
    ready: bool = False
    reason: str = ""
    offers: HostOffers | None = None


class Unaskable(Exception):  # noqa: N818 (it is what happened)
    """A guest could not be asked, which says nothing of it; the text says why."""


class GuestChannel(Protocol):
    """What the hypervisor can tell of a guest's inside. Calls block, and may hang: threads of their own make them."""

    def ping(self, uuid: str, timeout_s: float) -> tuple[bool, str]:
        """Return whether the guest's agent answers, and in words. Raises Unaskable."""
        ...

    def address(self, uuid: str) -> str:
        """Return the guest's address as others reach it. Raises Unaskable."""
        ...


class MoveChecker(Protocol):
    """Looks whether moves would succeed; begins nothing, and never raises."""

    async def check(self, question: CheckArrival | CheckDeparture) -> MoveChecked:
        """Say what this host has for a copy, or whether the way from here is open."""
        ...


class Hypervisor(Protocol):
    """Everything the agent may ask."""

    async def start(self, facts: Facts) -> None:
        """Begin watching; the first DomainsListed follows by itself."""
        ...

    def died(self) -> asyncio.Future[None]:
        """Return a future that fails when watching has ended by an error nobody expected."""
        ...

    async def stop(self) -> None:
        """Stop watching; guests live on."""
        ...

    async def do(self, uuid: str, deed: AnyDeed, timeout_s: float) -> Result:
        """Do one thing to one VM; RESULT_UNKNOWN when timeout_s passes or the connection is lost."""
        ...

    async def check_xml(self, xml: str) -> Result:
        """Say whether the hypervisor would take the XML; nothing is defined."""
        ...

    def look(self) -> None:
        """Have everything read anew; DomainsListed follows within 2 s, complete or not."""
        ...

    async def wait_ready(self, wait_s_max: float) -> bool:
        """Wait until node_facts() says ready; False if it does not within wait_s_max."""
        ...

    async def wait_turned(self, wait_s_max: float) -> bool:
        """Wait until libvirt has fallen silent or answers again; False if it did not within wait_s_max."""
        ...

    def node_facts(self) -> HypervisorFacts:
        """Return what is known by now; never blocks."""
        ...
