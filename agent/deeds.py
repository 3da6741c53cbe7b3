"""What the agent sees of a VM, and what it asks of the hypervisor.

Knows the shapes; the Protocol and its errors are in agent.hypervisor.
"""

from __future__ import annotations

from msgspec import Struct

from fleet.model import Blocker, EndReason, QemuState


class VmObservation(Struct, frozen=True):
    """One VM as libvirt and /proc show it, nothing of the ledger in it.

    qemu: an opaque name of the QEMU *process* (pid and start time); empty when there is none or
    it cannot be told. Two processes never share one.
    state: RUNNING, PAUSED, INCOMING, FINISHED, GONE or UNKNOWN. A driver that cannot tell an
    arrived copy from one that a person paused says PAUSED: the keeper knows its permits.
    end: for GONE, why the last QEMU ended, where libvirt still says so.
    defined: a persistent definition lies on the node.
    """

    uuid: str
    name: str
    state: QemuState
    qemu: str = ""
    reason: str = ""
    end: EndReason = EndReason.NOT_ENDED
    defined: bool = False
    paused_on_io_error: bool = False
    definition_hash: str = ""
    cpu_m: int = 0
    memory_bytes: int = 0
    busy: str = ""
    blockers: tuple[Blocker, ...] = ()
    guest_agent: str = ""  # Connected | Disconnected, where libvirt says so


class Deed(Struct, frozen=True, tag_field="d", tag=str.lower):
    """Base of what a `Call` does to the VM `Call.uuid`."""


class Define(Deed, frozen=True):
    """Define the XML, autostart off. Returns the completed definition."""

    xml: str


class Create(Deed, frozen=True):
    """Start the defined VM."""

    force_boot: bool = True


class AskShutdown(Deed, frozen=True):
    """Ask the guest to power off; returns when it was asked, not when it is off."""


class Destroy(Deed, frozen=True):
    """End the QEMU at once."""


class DestroyIncoming(Deed, frozen=True):
    """End the QEMU only if, looked at right before, its CPUs do not run."""


class Suspend(Deed, frozen=True):
    """Stop the CPUs."""


class Resume(Deed, frozen=True):
    """Let the CPUs run; define the VM if its arrival was cut off before it was."""


class Migrate(Deed, frozen=True):
    """Peer-to-peer, live, PAUSED at the target, PERSIST_DEST, UNDEFINE_SOURCE.

    tls: over TLS or not at all. tls_name: what the target's certificate must bear; empty: its address.
    """

    peer_uri: str
    migration_address: str
    bandwidth_bytes_per_s: int = 0
    downtime_ms: int = 300  # to begin with
    auto_converge: bool = False
    parallel_connections: int = 0
    tls: bool = False
    tls_name: str = ""
    keep_definition: bool = False


class SetDowntime(Deed, frozen=True):
    """Let the migration under way pause the guest for so long at its end."""

    downtime_ms: int


class AbortJob(Deed, frozen=True):
    """Abort the migration job of a VM that is the source of one."""


class Undefine(Deed, frozen=True):
    """Remove the definition (keeping disks, NVRAM, TPM state).

    Also the barrier after a `Create` whose end is unknown: once it has returned, no create that
    was still on its way can succeed.
    """


class AskState(Deed, frozen=True):
    """What the VM is there: ok, and one of the codes AWAY_… below."""


PICTURE_S_MAX = 5.0  # a guest that hangs shows its screen at once; a QEMU that is frozen, never


class Screenshot(Deed, frozen=True):
    """Return what the guest's screen shows. A QEMU that is frozen lets it wait until it is ended."""


class Elsewhere(Deed, frozen=True):
    """Do the deed through the libvirtd of another host, whose agent is gone, if it says that it is of host_uuid."""

    uri: str
    host_uuid: str
    deed: Migrate | AbortJob | AskState | Undefine


AnyDeed = (
    Define
    | Create
    | AskShutdown
    | Destroy
    | DestroyIncoming
    | Suspend
    | Resume
    | Migrate
    | SetDowntime
    | AbortJob
    | Undefine
    | AskState
    | Screenshot
    | Elsewhere
)

# Codes of a failed call that the keeper treats specially; all others are the driver's own words.
CODE_NOT_FOUND = "NOT_FOUND"  # the hypervisor knows no such VM
CODE_NOT_RUNNING = "NOT_RUNNING"  # there is no QEMU to do it to
CODE_UNKNOWN = "RESULT_UNKNOWN"  # time-out or connection lost: it may yet happen
CODE_STARTER_DEAD = "STARTER_DEAD"  # Undefine: not removed, but whoever was starting the VM is dead
CODE_NOT_PAUSED = "NOT_PAUSED"  # DestroyIncoming found running CPUs
AWAY_MIGRATED = "MIGRATED"  # shut off, because its migration is complete
AWAY_MOVING = "MOVING"  # a migration job is under way, or libvirt has not decided its end yet
AWAY_ALIVE = "ALIVE"  # its QEMU is there and no job is
AWAY_GONE = "GONE"  # no QEMU of it is there, and not because it was migrated
