"""The nouns both daemons use when they talk about nodes, VMs and runs.

Knows the words and nothing else: no clock, no I/O, no decisions. The objects people
write (VirtualMachine, Node, …) live in aggregator.core.objects; these here travel on
the wire and lie in ledger and journal.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from fleet.guest_health import GuestHealth


class RunStrategy(StrEnum):
    """What happens when a run ends (product.md, run strategies)."""

    ALWAYS = "Always"
    RERUN_ON_FAILURE = "RerunOnFailure"
    MANUAL = "Manual"
    HALTED = "Halted"
    ONCE = "Once"


class EvictionStrategy(StrEnum):
    """How a VM leaves a node that is drained."""

    LIVE_MIGRATE = "LiveMigrate"
    LIVE_MIGRATE_IF_POSSIBLE = "LiveMigrateIfPossible"
    NONE = "None"
    EXTERNAL = "External"


class IsolationPolicy(StrEnum):
    """What the agent does with a VM when the node has lost its lease."""

    KEEP = "Keep"
    SHUTDOWN = "Shutdown"
    DESTROY = "Destroy"


class Isolation(Struct, frozen=True):
    """When the node's beats are not answered for so long (the lease), and what its agent then does with a VM.

    grace_s: how long a guest may take to power off before it is destroyed. restart: until the lease is over the
    agent may begin a run that failed again by itself, where no aggregator answers.
    """

    policy: IsolationPolicy = IsolationPolicy.KEEP
    after_s: float = 6.0
    grace_s: float = 180.0
    restart: bool = False


class QemuState(StrEnum):
    """What an agent sees of a VM on its own node.

    RUNNING and PAUSED: a QEMU whose CPUs run, or are stopped but may be resumed.
    INCOMING: the target half of a migration that is not complete.
    ARRIVED: a complete target copy that has never run; it waits for its resume order.
    FINISHED: the source half after its last pass; its CPUs must not run again.
    GONE: no QEMU of this VM on the node (pidfd or /proc read, not only libvirt's word).
    UNKNOWN: the agent cannot tell (libvirtd is silent, /proc and libvirt disagree).
    """

    RUNNING = "Running"
    PAUSED = "Paused"
    INCOMING = "Incoming"
    ARRIVED = "Arrived"
    FINISHED = "Finished"
    GONE = "Gone"
    UNKNOWN = "Unknown"


class EndReason(StrEnum):
    """Why a run ended, as far as the node can tell."""

    NOT_ENDED = ""
    POWEROFF = "PowerOff"  # the guest shut itself down
    CRASHED = "Crashed"  # QEMU died or was killed, panic, failed to start
    DESTROYED = "Destroyed"  # a person's virsh destroy or shutdown
    ORDERED = "Ordered"  # ended by an order of virtward
    MIGRATED = "Migrated"  # handed over to another node
    ISOLATED = "Isolated"  # ended by its agent: the node had lost its lease (isolationPolicy)


class Plane(StrEnum):
    """The networks of a fleet; two of them silent is stronger evidence than one."""

    CONTROL = "control"
    MIGRATION = "migration"
    STORAGE = "storage"
    BMC = "bmc"


class SessionKey(Struct, frozen=True, order=True, array_like=True):
    """Names one session of one agent: nothing ordered under another one may begin.

    number rises within the ledger's life, across agent starts and boots.
    """

    boot_id: str
    agent_start: str
    number: int


class Leadership(Struct, frozen=True, array_like=True):
    """Who gives orders: the term of an aggregator, its instance and its journal position.

    Compared by (term, position); instance tells two processes of one term apart. proof: by which an aggregator of
    the fleet knows again, in an agent's hello, what it has told; nobody else can read it, or make one.
    """

    term: int
    instance: str
    position: int
    proof: str = ""


class Disk(Struct, frozen=True):
    """One disk of a VM by what it is, not by where it is mounted (safety.md, S15 and S16).

    identity: e.g. "nbd://10.1.3.9:10809/web-1", "file:kvm2:/srv/a.img" (local: the node is in it).
    """

    target: str
    identity: str
    writable: bool = True
    shareable: bool = False
    shared: bool = False  # the same identity may be reached from other nodes

    @property
    def is_backing(self) -> bool:
        """Whether it lies under another one, which is an overlay: called vda[1], vda[2], … as libvirt does."""
        return self.target.endswith("]")


class Blocker(Struct, frozen=True):
    """One thing that forbids a VM's live migration. reason: a word, KubeVirt's where it has one; message: a clause."""

    reason: str
    message: str


class Finding(Struct, frozen=True):
    """What one check of a move says. check: its name; message: why not, or what was found."""

    check: str
    ok: bool
    message: str = ""


class VmReport(Struct, frozen=True):
    """What one agent says about one VM on its node.

    epoch and run are the ledger's: the highest epoch this node accepted for the VM (0: none).
    released: QEMU is gone *and* the ledger holds, synced, that this node will not start the VM
    again without a new order; it speaks of that epoch.
    not_migratable: blockers in one line, for those who know no more.
    """

    uuid: str
    name: str
    state: QemuState
    reason: str = ""
    end: EndReason = EndReason.NOT_ENDED
    epoch: int = 0
    run: int = 0
    released: bool = False
    managed: bool = False
    paused_on_io_error: bool = False
    definition_hash: str = ""
    cpu_m: int = 0  # millicores the domain was given
    memory_bytes: int = 0
    busy: str = ""  # libvirt job or order in progress, for people
    not_migratable: str = ""  # why it cannot be live-migrated; empty: nothing known against it
    guest: GuestHealth = GuestHealth()
    blockers: tuple[Blocker, ...] = ()


class Needs(Struct, frozen=True):
    """What a domain needs of the host it starts on, as far as its XML says so for certain. Empty is nothing.

    mounts: shared storages that its disks lie on, mounted. guest_cpu: every feature of the processor that the guest
    runs on now; where it is to be moved to must have them. huge_page_kib: the size of the pages that hold huge_bytes
    of its memory, 0 for the host's default. devices: of the host, as `pci ADDRESS [VENDOR:PRODUCT]`,
    `usb VENDOR:PRODUCT` or `mdev UUID`.
    """

    domain_type: str = ""
    arch: str = ""
    machine: str = ""
    firmware: str = ""
    cpu_model: str = ""
    interfaces: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    pools: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    guest_cpu: tuple[str, ...] = ()
    huge_page_kib: int = 0
    huge_bytes: int = 0
    devices: tuple[str, ...] = ()


class Definition(Struct, frozen=True):
    """A VM's XML as libvirt completed it on the node that owns it, and the disks in it.

    disks: also what lies under overlays (Disk.is_backing), and the NVRAM where others reach it too.
    nvram: its identity where only this node reaches it, else empty. snapshots, checkpoints: how many libvirt knows of.
    """

    uuid: str
    name: str
    xml: str
    hash: str
    disks: tuple[Disk, ...] = ()
    chain_changing: bool = False  # a block job or snapshot is altering the disk chain
    needs: Needs = Needs()
    nvram: str = ""
    snapshots: int = 0
    checkpoints: int = 0


class Condition(Struct, frozen=True):
    """One condition of a node as its agent sees it."""

    type: str
    status: str  # True | False | Unknown
    reason: str = ""
    message: str = ""


class BmcIdentity(Struct, frozen=True):
    """The node's own management controller, read in-band on the node."""

    address: str = ""
    guid: str = ""


class StorageReach(Struct, frozen=True):
    """Whether a node reaches one shared storage (fleet.storage). stuck: what was sent to it gets no answer."""

    storage: str
    reached: bool
    stuck: bool = False


class HostOffers(Struct, frozen=True):
    """What a host has for domains, so that placement can tell where one would start; None: nobody could tell.

    domain_types: kvm, qemu. machines: machine types, aliases too. firmwares: bios, efi. cpu_models: of `custom` CPUs,
    those that this host can give a guest of the first of its domain types. interfaces: bridges and other devices of the
    host, without those of guests. networks, pools: active ones of libvirt. secrets: uuids of libvirt's secrets.
    mounts: shared storages that are mounted (fleet.storage). cpu_features: all that a guest of the first domain type
    can be given. huge_pages: (KiB of a page, how many), the default size first. devices: as Needs names them, with the
    node's name behind those whose content is theirs alone, one for each that is there.
    """

    arch: str = ""
    domain_types: tuple[str, ...] | None = None
    machines: tuple[str, ...] | None = None
    firmwares: tuple[str, ...] | None = None
    cpu_models: tuple[str, ...] | None = None
    interfaces: tuple[str, ...] | None = None
    networks: tuple[str, ...] | None = None
    pools: tuple[str, ...] | None = None
    secrets: tuple[str, ...] | None = None
    mounts: tuple[str, ...] | None = None
    cpu_features: tuple[str, ...] | None = None
    huge_pages: tuple[tuple[int, int], ...] | None = None
    devices: tuple[str, ...] | None = None


def is_device(needed: str, offered: str) -> bool:
    """Return whether a device of a host is the one that is needed; a PCI address alone means whatever is there."""
    return offered == needed or offered.startswith(needed + " ")


def has_devices(needed: tuple[str, ...], offered: tuple[str, ...] | None) -> bool:
    """Return whether a host is known to have all of these, given away or not."""
    return offered is not None and all(
        sum(is_device(each, other) for other in offered) >= needed.count(each) for each in needed
    )


WAITED_FOR = ("cpu", "memory", "io")


class NodeLoad(Struct, frozen=True, array_like=True):
    """How loaded a node is, told with its beats and never journalled.

    cpu_percent: of all processors, since the last beat. waits_percent: by WAITED_FOR, of the last ten seconds,
    in which some process waited for it (PSI); zeros where the kernel does not tell.
    """

    cpu_percent: int = 0
    memory_available_bytes: int = 0
    waits_percent: tuple[int, ...] = ()


class CheckVerdict(Struct, frozen=True):
    """A check that is not fine, of the node's owner or the agent's own.

    level: Degraded | Failing; effect: of the taint it sets.
    """

    name: str
    level: str
    effect: str = ""
    message: str = ""


class NodeFacts(Struct, frozen=True):
    """What a node is and can do, as its own agent reports it."""

    machine_id: str
    host_uuid: str
    hostname: str = ""
    arch: str = ""
    cpu_m: int = 0  # millicores in all
    memory_bytes: int = 0
    addresses: dict[str, str] = {}  # plane -> address
    agent_port: int = 8422
    libvirt_port: int = 16514
    ssh_port: int = 22  # 0: nobody is asked there
    peer_uri: str = ""  # how another node's libvirt reaches this one's
    labels: dict[str, str] = {}
    versions: dict[str, str] = {}  # agent, libvirt, qemu
    conditions: tuple[Condition, ...] = ()
    bmc: BmcIdentity | None = None
    storages: tuple[StorageReach, ...] = ()
    offers: HostOffers | None = None
    trust: str = ""  # what its agent holds of it, certificates renewed accordingly (fleet.trust)
    checks: tuple[CheckVerdict, ...] = ()  # of the owner's check programs, those that are not fine
    stopping_s: float = 0.0  # its host is being shut down, and waits so long for its guests to leave


class OrderOutcome(StrEnum):
    """What became of an order, as its executor tells it.

    REFUSED: nothing was begun (old epoch, other session, …). FAILED: begun and did not succeed;
    what is true now is in the VM's report, not here.
    """

    ACCEPTED = "Accepted"
    REFUSED = "Refused"
    DONE = "Done"
    FAILED = "Failed"


class LedgerState(StrEnum):
    """Whether the agent remembers what it promised."""

    SOUND = "Sound"
    NEW = "New"  # first start on this machine's boot, nothing promised before
    LOST = "Lost"  # it was there on this boot and is gone: report only, until re-seeded
