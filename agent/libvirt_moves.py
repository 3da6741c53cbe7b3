"""libvirt's side of a live migration: the call, what is changed while it runs, and how far it is. Blocking."""

from __future__ import annotations

from typing import Any

import libvirt
from msgspec import Struct

from agent.deeds import AWAY_ALIVE, AWAY_GONE, AWAY_MIGRATED, AWAY_MOVING, AbortJob, Migrate, SetDowntime

MIB = 1024 * 1024
MIGRATE_FLAGS = (
    libvirt.VIR_MIGRATE_LIVE
    | libvirt.VIR_MIGRATE_PEER2PEER
    | libvirt.VIR_MIGRATE_PAUSED  # the target runs by order only: libvirt's own hand-over can run a VM twice
    | libvirt.VIR_MIGRATE_PERSIST_DEST
    | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
)


class Job(Struct, frozen=True):
    """How far a migration is; the fields as in agent.keeper_types.MigrationMoved."""

    percent: float
    remaining_bytes: int
    rate_bytes_per_s: int
    total_bytes: int
    dirty_bytes_per_s: int
    iteration: int
    throttle_percent: int


def state_word(domain: Any) -> str:  # noqa: ANN401
    """Return how a VM that is moved away stands at its source, as AWAY_…; never asks QEMU. libvirtError."""
    state, reason = domain.state()
    if state == libvirt.VIR_DOMAIN_SHUTOFF:
        return AWAY_MIGRATED if reason == libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED else AWAY_GONE
    finished = (libvirt.VIR_DOMAIN_PAUSED_MIGRATION, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY)
    if state == libvirt.VIR_DOMAIN_PAUSED and reason in finished:
        return AWAY_MOVING
    return AWAY_MOVING if domain.jobInfo()[0] != libvirt.VIR_DOMAIN_JOB_NONE else AWAY_ALIVE


def job_of(domain: Any) -> Job | None:  # noqa: ANN401
    """Return how far the domain's migration is, None without one. Asks QEMU: may block; libvirtError."""
    stats = domain.jobStats()
    if stats.get("type", 0) not in (libvirt.VIR_DOMAIN_JOB_BOUNDED, libvirt.VIR_DOMAIN_JOB_UNBOUNDED):
        return None
    total, left = stats.get("data_total", 0), stats.get("data_remaining", 0)
    return Job(
        percent=100.0 * (total - left) / total if total else 0.0,
        remaining_bytes=left,
        rate_bytes_per_s=stats.get("memory_bps", 0),
        total_bytes=total,
        dirty_bytes_per_s=stats.get("memory_dirty_rate", 0) * stats.get("memory_page_size", 0),
        iteration=stats.get("memory_iteration", 0),
        throttle_percent=stats.get("auto_converge_throttle", 0),
    )


def move(domain: Any, deed: Migrate | SetDowntime | AbortJob) -> None:  # noqa: ANN401
    """Do a deed of a migration; libvirtError where libvirt refuses or it fails."""
    match deed:
        case Migrate():
            _migrate(domain, deed)
        case SetDowntime(downtime_ms=downtime_ms):
            domain.migrateSetMaxDowntime(downtime_ms)
        case AbortJob():
            domain.abortJob()


def _migrate(domain: Any, deed: Migrate) -> None:  # noqa: ANN401
    flags = MIGRATE_FLAGS & ~libvirt.VIR_MIGRATE_UNDEFINE_SOURCE if deed.keep_definition else MIGRATE_FLAGS
    if deed.downtime_ms > 0:
        domain.migrateSetMaxDowntime(deed.downtime_ms)
    parameters: dict[str, object] = {libvirt.VIR_MIGRATE_PARAM_URI: f"tcp://{_bracketed(deed.migration_address)}"}
    if deed.bandwidth_bytes_per_s > 0:
        parameters[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = max(1, deed.bandwidth_bytes_per_s // MIB)
    if deed.auto_converge:
        flags |= libvirt.VIR_MIGRATE_AUTO_CONVERGE
    if deed.parallel_connections > 0:
        flags |= libvirt.VIR_MIGRATE_PARALLEL
        parameters[libvirt.VIR_MIGRATE_PARAM_PARALLEL_CONNECTIONS] = deed.parallel_connections
    if deed.tls:
        flags |= libvirt.VIR_MIGRATE_TLS
        if deed.tls_name:
            parameters[libvirt.VIR_MIGRATE_PARAM_TLS_DESTINATION] = deed.tls_name
    domain.migrateToURI3(deed.peer_uri, parameters, flags)


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
