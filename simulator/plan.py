"""What a story or a seed asks the world to be at its beginning. Plain records, no behaviour."""

from __future__ import annotations

from msgspec import Struct, field

from aggregator.core.objects import VmSpec
from aggregator.core.policy import ClusterConfig

STORAGE = "nbd://storage:10809"  # the shared storage that a story's `storage` fault takes away


class NodePlan(Struct, frozen=True, kw_only=True):
    """One node. supervised: agent and libvirtd are back 2 s after a kill. aggregator: it runs on this host.

    fencing: its rungs, each of one or more of the words in simulator.outlets.
    """

    name: str
    labels: dict[str, str] = {}
    cpu_m: int = 16_000
    memory_bytes: int = 64 * 2**30
    fencing: tuple[tuple[str, ...], ...] = (("power",),)
    supervised: bool = True
    aggregator: bool = False


class VmPlan(Struct, frozen=True, kw_only=True):
    """One VM. node: where it runs at the beginning; empty: nowhere. storage: on which its disk lies."""

    name: str
    node: str = ""
    labels: dict[str, str] = {}
    cpu_m: int = 1_000
    memory_bytes: int = 2**30
    spec: VmSpec = VmSpec()
    storage: str = STORAGE


class WorldPlan(Struct, frozen=True, kw_only=True):
    """A fleet at 0 s."""

    seed: int = 0
    config: ClusterConfig = field(default_factory=ClusterConfig)
    nodes: tuple[NodePlan, ...] = ()
    vms: tuple[VmPlan, ...] = ()
    aggregators: int = 1


class WorldVm(Struct):
    """A VM as every host's libvirt would know it."""

    uuid: str
    name: str
    cpu_m: int
    memory_bytes: int
    storage: str = STORAGE


def uuid_of(number: int) -> str:
    """Return the uuid of the VM with this number, from 1."""
    return f"00000000-0000-4000-8000-{number:012d}"
