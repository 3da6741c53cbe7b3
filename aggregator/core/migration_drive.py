"""How a VM's migrations are driven: its own settings, those of a MigrationPolicy, those of the cluster.

Field by field the first that says something counts. Of the policies that match a VM's labels the
one that names most labels counts, of equals the first by name (as KubeVirt). Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from msgspec import Struct

from aggregator.core.objects import MigrationSettings
from aggregator.core.state import MigrationPolicyRecord, MigrationRecord, NodeRecord, State, VmRecord
from fleet.messages import RescueVm
from fleet.model import Plane
from fleet.units import parse_bytes

TIMEOUT_S_MIN = 60.0
GIB = 1024**3
_NOTHING = MigrationSettings()


class Drive(Struct, frozen=True):
    """What holds for one migration. bandwidth_bytes_per_s, parallel_connections: 0 is no limit, and one connection."""

    bandwidth_bytes_per_s: int
    downtime_ms_max: int
    timeout_s: float
    progress_timeout_s: float
    auto_converge: bool
    parallel_connections: int


def policy_of(state: State, vm: VmRecord) -> MigrationPolicyRecord | None:
    """Return the MigrationPolicy that counts for a VM, None without one."""
    matching = [policy for policy in state.migration_policies.values() if _labels(policy).items() <= vm.labels.items()]
    return min(matching, key=lambda policy: (-len(_labels(policy)), policy.name), default=None)


def _labels(policy: MigrationPolicyRecord) -> dict[str, str]:
    return policy.spec.selectors.virtual_machine_instance_selector


def drive_of(state: State, vm: VmRecord) -> Drive:
    """Return how a migration of this VM would be driven now."""
    policy = policy_of(state, vm)
    own, shared, last = vm.spec.migration or _NOTHING, policy.spec if policy else _NOTHING, state.config.migration
    bandwidth = _first(own.bandwidth_per_migration, shared.bandwidth_per_migration, last.bandwidth_per_migration)
    per_gib = _first(own.completion_timeout_per_gib, shared.completion_timeout_per_gib, last.completion_timeout_per_gib)
    return Drive(
        bandwidth_bytes_per_s=parse_bytes(bandwidth),
        downtime_ms_max=_first(own.max_downtime_ms, shared.max_downtime_ms, last.max_downtime_ms),
        timeout_s=max(TIMEOUT_S_MIN, per_gib * vm.memory_bytes / GIB),
        progress_timeout_s=_first(own.progress_timeout, shared.progress_timeout, last.progress_timeout),
        auto_converge=_first(own.allow_auto_converge, shared.allow_auto_converge, last.allow_auto_converge),
        parallel_connections=_first(own.parallel_connections, shared.parallel_connections, last.parallel_connections),
    )


_Value = TypeVar("_Value")


def _first(own: _Value | None, shared: _Value | None, last: _Value) -> _Value:
    return own if own is not None else shared if shared is not None else last


def has_bandwidth(state: State, vm: VmRecord, node: str, flying: Sequence[MigrationRecord]) -> bool:
    """Return whether what migrations may take of a node's link leaves enough for one of this VM.

    Asked only where spec.migrationBandwidth of the node and the limit of the VM's migrations are both known;
    one migration at a time may always go.
    """
    record = state.nodes.get(node)
    link = parse_bytes(record.spec.migration_bandwidth or 0) if record is not None else 0
    own = drive_of(state, vm).bandwidth_bytes_per_s
    others = [m for m in flying if node in (m.source, m.target) and m.vm in state.vms]
    if not link or not own or not others:
        return True
    return own + sum(drive_of(state, state.vms[m.vm]).bandwidth_bytes_per_s for m in others) <= link


def migration_address_of(target: NodeRecord) -> str:
    """Return where guests come to a node: as a person set it, its migration network, else its only one."""
    addresses = target.facts.addresses if target.facts is not None else {}
    return target.spec.migration_address or addresses.get(Plane.MIGRATION) or addresses.get(Plane.CONTROL, "")


def rescue_order(
    state: State, migration: MigrationRecord, vm: VmRecord, source: NodeRecord, target: NodeRecord
) -> RescueVm:
    """Return the order to a target that moves a VM off a node whose agent is gone."""
    drive = drive_of(state, vm)
    to = target.facts
    return RescueVm(
        migration=migration.name,
        run=vm.run,
        source=source.name,
        source_epoch=migration.source_epoch,
        source_uri=source.facts.peer_uri if source.facts is not None else "",
        source_host_uuid=source.host_uuid,
        peer_uri=to.peer_uri if to is not None else "",
        migration_address=migration_address_of(target),
        bandwidth_bytes_per_s=drive.bandwidth_bytes_per_s,
        downtime_ms_max=drive.downtime_ms_max,
        timeout_s=drive.timeout_s,
        auto_converge=drive.auto_converge,
        parallel_connections=drive.parallel_connections,
    )


def moves_at_once(state: State) -> int:
    """Return how many migrations leave a node at once, as the limits allow."""
    return max(1, min(state.config.migration.outbound_per_node_max, state.config.migration.cluster_max))


def move_eta_s(state: State, vm: VmRecord, source: str) -> float | None:
    """Return how long a move of this VM off that node takes, in seconds; None where nothing is known of the link.

    Its memory over what gets through, with as many at once as the limits allow. What it writes meanwhile is not in it.
    """
    rate = rate_known(state, vm, (source,), at_once=moves_at_once(state))
    return vm.memory_bytes / rate if rate else None


def rate_known(state: State, vm: VmRecord, ends: tuple[str, ...], *, at_once: int, device: int = 0) -> int:
    """Return how many bytes per second of a move get through, 0 where nothing is known.

    The least of what its migrations may take, what each end's link gives to so many at once, and what went through
    last from its source, the first of the ends. device: what the source's network device takes by its own word.
    """
    links = [parse_bytes(state.nodes[name].spec.migration_bandwidth or 0) for name in ends if name in state.nodes]
    seen = [m.far.rate_bytes_per_s for m in state.migrations.values() if m.source == ends[0] and m.far is not None]
    rates = [drive_of(state, vm).bandwidth_bytes_per_s, seen[-1] if seen else 0]
    rates += [link // at_once for link in (*links, device)]
    return min((rate for rate in rates if rate > 0), default=0)
