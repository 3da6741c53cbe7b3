"""What happens when a lost store is rebuilt from what agents know. aggregator.core.events is the one name for it."""

from __future__ import annotations

from msgspec import field

from aggregator.core.objects import VmSpec
from aggregator.core.words import Event, Transition
from fleet.messages import KeptVm
from fleet.model import Disk, SessionKey


class RebuildBegun(Event, frozen=True, kw_only=True):
    """A person gave a lost store up, and named every member of the fleet (virtward-aggregator rebuild)."""

    members: tuple[str, ...]


class NodeReadmitted(Event, frozen=True, kw_only=True):
    """A named member came in with the fleet's certificate: its enrolment counts from now on, and no other one.

    relay_sha256: of no secret that anybody has, so nobody carries its frames until it joins anew.
    """

    name: str
    enrolment: str
    relay_sha256: str


class VmsKeptTold(Event, frozen=True, kw_only=True):
    """A portion of what a node's ledger keeps of VMs. more: another one follows. members: of the fleet, as it knows."""

    node: str
    session: SessionKey
    vms: tuple[KeptVm, ...]
    more: bool = False
    members: tuple[str, ...] = ()


class VmRebuilt(Transition, frozen=True, kw_only=True):
    """A VM is known again. runs: somebody reports a QEMU of it; without one it waits for a person."""

    vm: str
    uuid: str
    spec: VmSpec
    labels: dict[str, str]
    annotations: dict[str, str] = field(default_factory=dict)
    disks: tuple[Disk, ...] = ()
    cpu_m: int = 0
    memory_bytes: int = 0
    epoch: int = 0
    run: int = 0
    runs: bool = False


class FleetRebuilt(Transition, frozen=True, kw_only=True):
    """Every VM that any member keeps is known: now all are asked once more what runs, as after every start."""

    unread: tuple[str, ...] = ()  # VMs whose kept form could not be read; somebody must apply them anew
