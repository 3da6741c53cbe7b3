"""What an order asks of an agent (`Order.body`); fleet.messages is the one name for it.

docs/PROTOCOL.md is generated from these types, so each docstring is written for its reader.
"""

from __future__ import annotations

from msgspec import Struct

from fleet.guest_health import GuestProbes
from fleet.model import EndReason, Isolation


class StartVm(Struct, frozen=True, tag_field="k", tag="start"):
    """Define (XML as given; empty: as it is here) and create; autostart stays off. Report the completed definition.

    kept: what the aggregator wants back should it lose its store: the VM as people wrote it, for nobody else to read.
    The ledger keeps it with the promise.
    """

    xml: str
    run: int
    force_boot: bool = True
    isolation: Isolation = Isolation()
    kept: bytes = b""
    probes: GuestProbes = GuestProbes()


class ShutdownVm(Struct, frozen=True, tag_field="k", tag="shutdown"):
    """Ask the guest to power off, destroy it when grace_s is over; then Released with that end."""

    run: int
    grace_s: float
    end: EndReason = EndReason.ORDERED


class DestroyVm(Struct, frozen=True, tag_field="k", tag="destroy"):
    """End the QEMU at once; then Released with that end. picture: tell first what its screen shows (GuestPictured)."""

    run: int
    end: EndReason = EndReason.ORDERED
    picture: bool = False


class SetIsolation(Struct, frozen=True, tag_field="k", tag="isolation"):
    """From now on do this with the run when the node has lost its lease; the ledger keeps it. kept: as in StartVm."""

    run: int
    isolation: Isolation
    kept: bytes = b""


class SetProbes(Struct, frozen=True, tag_field="k", tag="probes"):
    """From now on ask the run's guest this; the ledger keeps it."""

    run: int
    probes: GuestProbes


class PauseVm(Struct, frozen=True, tag_field="k", tag="pause"):
    """Stop the guest's CPUs."""

    run: int


class UnpauseVm(Struct, frozen=True, tag_field="k", tag="unpause"):
    """Let the guest's CPUs run again (never a copy that waits for its hand-over)."""

    run: int


class ReceiveVm(Struct, frozen=True, tag_field="k", tag="receive"):
    """Target's part of a migration, ordered before the source's: accept the incoming half.

    The order's epoch is the *new* epoch. The target resumes its paused copy when it has the
    source's Released for source_epoch, from the source's agent (proved by handover_secret) or
    by an order ResumeVm; never on libvirt's word.
    """

    migration: str
    run: int
    source: str
    source_epoch: int
    handover_secret: str
    isolation: Isolation = Isolation()
    kept: bytes = b""
    probes: GuestProbes = GuestProbes()


class MigrateVm(Struct, frozen=True, tag_field="k", tag="migrate"):
    """Source's part: peer-to-peer, VIR_MIGRATE_PAUSED, PERSIST_DEST and UNDEFINE_SOURCE.

    When its QEMU's pidfd is readable it persists Released, then tells the target's agent
    (peer_agent, with handover_secret) and the aggregator. It aborts what is not complete after
    timeout_s, or has made no progress for progress_timeout_s; downtime_ms_max is reached in steps.
    """

    migration: str
    run: int
    target: str
    target_epoch: int
    peer_uri: str
    migration_address: str
    peer_agent: tuple[str, ...]  # host:port, one per plane, tried in order
    handover_secret: str
    bandwidth_bytes_per_s: int = 0
    downtime_ms_max: int = 300
    timeout_s: float = 600.0
    progress_timeout_s: float = 150.0
    auto_converge: bool = False
    parallel_connections: int = 0


class RescueVm(Struct, frozen=True, tag_field="k", tag="rescue"):
    """Target of a rescue: the agent on `source` is gone, its host is not. Move the VM here through its libvirtd.

    After ReceiveVm of the same migration, at the same (new) epoch. source_uri: that libvirtd, which must say that
    it is of source_host_uuid. The call is MigrateVm's, but leaves the definition at the source: "shut off
    (migrated)", read there by this agent, is the source's Released. Then the copy here is resumed, the order is
    Done, and the definition there removed. Any other end is a failure, and the VM is where it was.
    """

    migration: str
    run: int
    source: str
    source_epoch: int
    source_uri: str
    source_host_uuid: str
    peer_uri: str
    migration_address: str
    bandwidth_bytes_per_s: int = 0
    downtime_ms_max: int = 300
    timeout_s: float = 600.0
    auto_converge: bool = False
    parallel_connections: int = 0


class ResumeVm(Struct, frozen=True, tag_field="k", tag="resume"):
    """Target: the source is Released, run your arrived copy. The order's epoch is the new one."""

    migration: str
    run: int


class CancelMigration(Struct, frozen=True, tag_field="k", tag="cancel"):
    """Source: abort the migration job; the guest goes on here. To the target of a rescue: abort it at the source."""

    migration: str


CODE_HAS_RUN = "HAS_RUN"  # why an agent refuses DiscardIncoming: the CPUs of the copy may have run


class DiscardIncoming(Struct, frozen=True, tag_field="k", tag="discard"):
    """Target: remove the incoming or arrived copy, only if it has never run; then Released."""

    migration: str


class UndefineVm(Struct, frozen=True, tag_field="k", tag="undefine"):
    """Remove the definition of a VM that has no QEMU here. Disks, NVRAM and TPM state stay."""

    reason: str


OrderBody = (
    StartVm
    | ShutdownVm
    | DestroyVm
    | PauseVm
    | UnpauseVm
    | ReceiveVm
    | MigrateVm
    | RescueVm
    | ResumeVm
    | CancelMigration
    | DiscardIncoming
    | UndefineVm
    | SetIsolation
    | SetProbes
)
