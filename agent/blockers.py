"""What forbids a VM's live migration, read from the XML of what runs: what libvirt 9 and QEMU 7.2 refuse, or
would do at the price of data. Pure; knows nothing of targets.

Reasons are KubeVirt's words for its condition LiveMigratable where it has one. Not blockers: `cache=` other than
`unsafe`, since QEMU flushes and drops its caches at a hand-over; an emulated TPM, whose state travels along.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from xml.etree.ElementTree import Element

from fleet.model import Blocker, Disk

BLOCKERS_MAX = 16
NAME_CHARACTERS_MAX = 64
SHARED_MEMORY_MOVES = "master"
HOST_TPMS = ("passthrough", "external")


def blockers_of(root: Element, disks: Iterable[Disk], *, snapshots: bool) -> tuple[Blocker, ...]:
    """Return what forbids the domain's live migration, each once, BLOCKERS_MAX at most.

    root: of what runs, else of what is stored; disks: the same ones, identified. snapshots: libvirt keeps some of it.
    """
    found = dict.fromkeys(_all(root, disks, snapshots=snapshots))
    return tuple(found)[:BLOCKERS_MAX]


def blocker_words(blockers: Iterable[Blocker]) -> str:
    """Return blockers in one line, empty where there are none."""
    return "; ".join(blocker.message for blocker in blockers)


def _all(root: Element, disks: Iterable[Disk], *, snapshots: bool) -> Iterator[Blocker]:
    yield from _devices(root)
    for disk in disks:
        if not disk.shared and (disk.writable or disk.is_backing):
            yield Blocker("DisksNotLiveMigratable", f"disk {_short(disk.target)} is local to this node")
    for element in root.iterfind("devices/disk"):
        yield from _disk(element)
    for element in root.iterfind("devices/interface"):
        yield from _interface(element)
    yield from _memory_and_tpm(root)
    yield from _processor(root)
    if snapshots:
        yield Blocker("SnapshotsNotLiveMigratable", "libvirt keeps snapshots of it, which do not move")


def _devices(root: Element) -> Iterator[Blocker]:
    for element in root.iterfind("devices/hostdev"):
        if not _is_unplugged(element):
            yield Blocker(
                "HostDeviceNotLiveMigratable", f"a {_kind(element, 'host')} device of the host is handed to it"
            )
    for _ in root.iterfind("devices/input[@type='passthrough']"):
        yield Blocker("HostDeviceNotLiveMigratable", "an input device of the host is handed to it")
    for element in root.iterfind("devices/filesystem"):
        target = element.find("target")
        name = target.get("dir", "") if target is not None else ""
        yield Blocker("VirtIOFSNotLiveMigratable", f"a file system of the host is mounted in it ({_short(name)})")
    if root.find("devices/video/model[@type='virtio']/acceleration[@accel3d='yes']") is not None:
        yield Blocker("HostDeviceNotLiveMigratable", "its graphics are drawn by the host's GPU (accel3d)")


def _is_unplugged(element: Element) -> bool:
    """Return whether QEMU takes the device out by itself while the guest moves: the transient half of a team."""
    return element.find("teaming[@type='transient']") is not None


def _disk(element: Element) -> Iterator[Blocker]:
    target, driver = element.find("target"), element.find("driver")
    name = f"disk {_short(target.get('dev', '') if target is not None else '')}"
    if element.find("transient") is not None:
        yield Blocker("DisksNotLiveMigratable", f"{name} is transient: what is written to it stays here")
    if element.find("mirror") is not None:
        yield Blocker("BlockJobNotLiveMigratable", f"a block job copies {name}")
    if element.find("source/reservations") is not None:
        yield Blocker("PersistentReservationNotLiveMigratable", f"{name} holds SCSI reservations of this host")
    cache = driver.get("cache", "") if driver is not None else ""
    is_written = element.find("readonly") is None and element.get("device", "disk") in ("disk", "lun")
    if cache == "unsafe" and is_written and element.get("type") != "network":
        yield Blocker(
            "DisksNotLiveMigratable", f"{name} has cache='unsafe': what this host holds of it is never flushed"
        )


def _interface(element: Element) -> Iterator[Blocker]:
    kind = element.get("type", "")
    if kind in ("hostdev", "vdpa") and not _is_unplugged(element):
        yield Blocker("InterfaceNotLiveMigratable", f"a network interface of it is a device of the host ({kind})")


def _memory_and_tpm(root: Element) -> Iterator[Blocker]:
    for element in root.iterfind("devices/shmem"):
        if element.get("role") != SHARED_MEMORY_MOVES:
            name = _short(element.get("name", ""))
            yield Blocker("SharedMemoryNotLiveMigratable", f"it shares memory {name} with others on its host")
    for element in root.iterfind("devices/tpm/backend"):
        if element.get("type") in HOST_TPMS:
            yield Blocker("TPMNotLiveMigratable", f"the state of its TPM is only on its host ({element.get('type')})")
    for element in root.iterfind("launchSecurity"):
        kind = _kind(element, "unknown")
        reason = "SecureExecutionNotLiveMigratable" if kind == "s390-pv" else "SEVNotLiveMigratable"
        yield Blocker(reason, f"its memory is encrypted for its host ({kind})")


def _processor(root: Element) -> Iterator[Blocker]:
    if root.find("cpu[@migratable='off']") is not None:
        yield Blocker("CPUModeLiveMigratable", "its CPU is given features that cannot move (migratable='off')")
    timed = root.find("cpu/feature[@name='invtsc'][@policy='require']") is not None
    if timed and not any(e.get("frequency") for e in root.iterfind("clock/timer[@name='tsc']")):
        yield Blocker("CPUModeLiveMigratable", "its CPU has invtsc, and its clock names no frequency of the tsc timer")
    if root.find("features/hyperv[@mode='passthrough']") is not None:
        text = "it has all of Hyper-V that its host can do (mode='passthrough')"
        yield Blocker("HypervPassthroughNotLiveMigratable", text)


def _kind(element: Element, otherwise: str) -> str:
    return _short(element.get("type", "")) or otherwise


def _short(name: str) -> str:
    """Return a name from the XML as it can be shown."""
    return "".join(sign if sign.isprintable() else " " for sign in name[:NAME_CHARACTERS_MAX])
