"""Names, addresses and paths of one laboratory. Pure arithmetic on strings.

Knows how everything is called, so that leftovers can be found by name alone.
Must not touch the system: no file is opened, no process looked at.
"""

from __future__ import annotations

import os
import re
import uuid
from enum import StrEnum
from pathlib import Path

from msgspec import Struct

from lab.errors import LaboratoryError

CACHE_DIR = Path(os.environ.get("VIRTWARD_CACHE_DIR", "/var/cache/virtward"))
CLAIMS_DIR = Path("/run/virtward-lab")  # which directory a laboratory's name belongs to; names are the machine's
NAME_CHARACTERS_MAX = 6  # the longest link, NAME-h99-ctlx, must fit the kernel's 15 characters
HOSTS_MAX = 99
API_PORT = 8420
AGENTS_PORT = 8421
PEER_PORT = 8422
LIBVIRT_PORT = 16514
NBD_PORT = 10809
STORAGE_ADDRESS = "10.77.3.250"
BMC_USER = "operator"
PRIVATE_DIR = "/run/virtward-lab"  # the same path on every host, another directory on each

_NAME = re.compile(r"[a-z][a-z0-9]{0,5}")
_VM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class Plane(StrEnum):
    """The four networks that fail independently of each other."""

    CONTROL = "control"
    MIGRATION = "migration"
    STORAGE = "storage"
    BMC = "bmc"

    @property
    def short(self) -> str:
        """Three letters for link names, which the kernel keeps short."""
        return {"control": "ctl", "migration": "mig", "storage": "sto", "bmc": "bmc"}[self.value]

    @property
    def subnet(self) -> str:
        """The first three bytes of the plane's addresses; the mask is /24."""
        return f"10.77.{list(Plane).index(self) + 1}"


HOST_PLANES = (Plane.CONTROL, Plane.MIGRATION, Plane.STORAGE)


class Link(Struct, frozen=True):
    """One cable from a member to the switch of a plane."""

    member: str
    plane: Plane
    namespace: str
    near: str  # the name of the member's end
    far: str  # the name of the switch's end
    address: str

    @property
    def hardware_address(self) -> str:
        """The member keeps its MAC over power cycles, as real machines do: its peers' neighbour tables stay right."""
        return "02:56:" + ":".join(f"{int(byte):02x}" for byte in self.address.split("."))


def base_dir() -> Path:
    """Where laboratories keep their state: $VIRTWARD_LAB_DIR, or the default."""
    return Path(os.environ.get("VIRTWARD_LAB_DIR", "/var/lib/virtward-lab"))


def check_vm_name(name: str) -> str:
    """Return the name, or raise LaboratoryError: it goes into paths and XML."""
    if not _VM_NAME.fullmatch(name):
        text = f"VM name {name!r} must be 1 to 63 letters, digits, dots, dashes or underscores"
        raise LaboratoryError(text)
    return name


def host_index(host: str) -> int:
    """Return 1 for h1, 2 for h2, …; raises LaboratoryError for anything else."""
    if not re.fullmatch(r"h[1-9][0-9]?", host):
        raise LaboratoryError(f"{host!r} is no host: hosts are called h1, h2, …")
    return int(host[1:])


class Layout:
    """All names and places of the laboratory called `name`."""

    def __init__(self, name: str, base: Path | None = None) -> None:
        if not _NAME.fullmatch(name):
            text = (
                f"laboratory name {name!r} must be 1 to {NAME_CHARACTERS_MAX} letters (a-z) and digits, a letter first"
            )
            raise LaboratoryError(text)
        self.name = name
        self.base = base or base_dir()
        self.dir = self.base / name
        self.run_dir = self.dir / "run"
        self.disks_dir = self.dir / "disks"
        self.logs_dir = self.dir / "logs"
        self.guests_dir = self.dir / "guests"
        self.claim = CLAIMS_DIR / name

    @property
    def mark(self) -> str:
        """The environment entry by which every process of this laboratory is found again."""
        return f"VIRTWARD_LAB_MARK={self.dir}"

    @property
    def switch(self) -> str:
        """The namespace that holds the bridge of every plane."""
        return f"{self.name}-net"

    @property
    def storage_namespace(self) -> str:
        """Where the storage daemon lives."""
        return f"{self.name}-sto"

    def bridge(self, plane: Plane) -> str:
        """Name of the plane's bridge in the switch namespace."""
        return f"{self.name}-{plane.short}"

    def namespace(self, member: str, plane: Plane = Plane.CONTROL) -> str:
        """The namespace in which the member's end of that plane's link lies (a host's BMC has its own)."""
        is_bmc = plane is Plane.BMC and member.startswith("h")
        return f"{self.name}-{member}-bmc" if is_bmc else f"{self.name}-{member}"

    def owns_namespace(self, namespace: str) -> bool:
        """Say whether a namespace of that name was made by this laboratory."""
        return re.fullmatch(rf"{self.name}-(net|sto|a[0-9]+|h[0-9]+(-bmc)?)", namespace) is not None

    def address(self, member: str, plane: Plane | str) -> str:
        """Address of h1, h2, … or a1, … on a plane."""
        offset = 10 if member.startswith("h") else 200
        return f"{Plane(plane).subnet}.{offset + int(member[1:])}"

    def link(self, member: str, plane: Plane) -> Link:
        """The cable of a host, its BMC or an aggregator on a plane."""
        near = f"{self.name}-{member}-{plane.short}"
        return Link(member, plane, self.namespace(member, plane), near, near + "x", self.address(member, plane))

    def storage_link(self) -> Link:
        """The cable of the storage daemon."""
        near = f"{self.name}-sto-{Plane.STORAGE.short}"
        return Link("storage", Plane.STORAGE, self.storage_namespace, near, near + "x", STORAGE_ADDRESS)

    def host_dir(self, host: str) -> Path:
        """Everything that a host would have on its own disk, and its switches."""
        return self.dir / "hosts" / host

    def host_private(self, host: str) -> Path:
        """What the host itself sees as PRIVATE_DIR: serial logs and monitor sockets."""
        return self.host_dir(host) / "private"

    def libvirt_socket(self, host: str) -> Path:
        """The host's libvirtd socket as this shell reaches it."""
        return self.host_dir(host) / "libvirt-run" / "libvirt-sock"

    def bmc_dir(self, host: str) -> Path:
        """Configuration and switches of the host's BMC."""
        return self.dir / "bmcs" / host

    def aggregator_dir(self, name: str) -> Path:
        """Configuration, state and token of an aggregator."""
        return self.dir / "aggregators" / name

    def stable_uuid(self, what: str, secret: str) -> str:
        """A uuid that stays the same for `what` in this laboratory (`secret`: the laboratory's own id)."""
        return str(uuid.uuid5(uuid.UUID(secret), what))
