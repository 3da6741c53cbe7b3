"""What `virtward-lab status` says: power, planes and pids of hosts, and the ground truth of every VM.

Records and their making. Must not print.
"""

from __future__ import annotations

from msgspec import Struct

from lab import processes
from lab.daemons import SETTINGS
from lab.hosts import Host
from lab.laboratory import Laboratory
from lab.layout import HOST_PLANES, Plane
from lab.truth import Cpus


class HostStatus(Struct):
    """One host. `planes`: plane to up, cut, cut-in or cut-out."""

    name: str
    power: str  # on | off | frozen
    boot_id: str
    planes: dict[str, str]
    agent: int | None
    libvirtd: int | None


class AggregatorStatus(Struct):
    """One aggregator. `state`: running, paused or stopped."""

    name: str
    pid: int | None
    state: str


class QemuStatus(Struct):
    """One QEMU of a VM."""

    host: str
    pid: int
    uuid: str
    cpus: Cpus


class Status(Struct):
    """Everything. `settings`: where the laboratory differs from the defaults of ClusterConfig."""

    dir: str
    name: str
    api: str
    token_file: str
    hosts: list[HostStatus]
    aggregators: list[AggregatorStatus]
    vms: dict[str, list[QemuStatus]]
    settings: dict[str, str]


def take(laboratory: Laboratory) -> Status:
    """Look at everything once."""
    plan = laboratory.plan
    sample = laboratory.sample()
    vms = {
        name: [QemuStatus(each.host, each.pid, each.uuid, each.cpus) for each in qemus]
        for name, qemus in sample.vms.items()
    }
    return Status(
        dir=str(laboratory.dir),
        name=plan.name,
        api=laboratory.api_url(plan),
        token_file=str(laboratory.aggregator.token_file),
        hosts=[_host(laboratory, host) for host in laboratory.hosts],
        aggregators=[_aggregator(laboratory)] if plan.agents else [],
        vms=vms,
        settings=dict(SETTINGS),
    )


def _host(laboratory: Laboratory, host: Host) -> HostStatus:
    planes = [*HOST_PLANES, *([Plane.BMC] if laboratory.plan.fencing == "ipmi" else [])]
    words = {plane.value: laboratory.planes.wire(laboratory.layout.link(host.name, plane)).word for plane in planes}
    return HostStatus(host.name, _power(host), host.boot_id, words, host.pid_of("agent"), host.pid_of("libvirtd"))


def _power(host: Host) -> str:
    """The truth, not the BMC's reading: a host with a living process 1 is not off."""
    if host.is_frozen:
        return "frozen"
    return "on" if host.init is not None else host.power_switch


def _aggregator(laboratory: Laboratory) -> AggregatorStatus:
    pid = laboratory.aggregator.pid
    if pid is None:
        return AggregatorStatus(laboratory.aggregator.name, None, "stopped")
    state = "paused" if processes.state_of(pid) == "T" else "running"
    return AggregatorStatus(laboratory.aggregator.name, pid, state)
