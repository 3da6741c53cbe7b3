"""What forbids a live migration, as libvirt and QEMU have it, read from the XML of what runs."""

from __future__ import annotations

import pytest

from agent.blockers import BLOCKERS_MAX, blocker_words, blockers_of
from fleet.domain_xml import Place, disks_in, parse_tree
from fleet.model import Blocker

HOST_DEVICE = "HostDeviceNotLiveMigratable"
DISKS = "DisksNotLiveMigratable"
INTERFACE = "InterfaceNotLiveMigratable"


def found(devices: str = "", inner: str = "", *, snapshots: bool = False) -> tuple[Blocker, ...]:
    """Return the blockers of a domain whose disks below /nfs are shared."""
    xml = f"<domain type='kvm'><name>a</name>{inner}<devices>{devices}</devices></domain>"
    root = parse_tree(xml)
    disks = disks_in(root, lambda path: Place(path, shared=path.startswith("/nfs")))
    return blockers_of(root, disks, snapshots=snapshots)


def a_disk(inner: str = "", path: str = "/nfs/a", device: str = "disk") -> str:
    return f"<disk type='file' device='{device}'><source file='{path}'/><target dev='vda'/>{inner}</disk>"


def a_teamed(tag: str) -> str:
    source = "<source><address type='pci' domain='0' bus='1' slot='0' function='0'/></source>"
    return f"<{tag} type='hostdev' mode='subsystem'>{source}<teaming type='transient' persistent='ua-b'/></{tag}>"


@pytest.mark.parametrize(
    ("devices", "inner", "reason", "message"),
    [
        ("<hostdev mode='subsystem' type='pci'/>", "", HOST_DEVICE, "a pci device of the host"),
        ("<hostdev mode='subsystem' type='usb'/>", "", HOST_DEVICE, "a usb device of the host"),
        ("<hostdev mode='capabilities' type='misc'/>", "", HOST_DEVICE, "a misc device of the host"),
        ("<input type='passthrough' bus='virtio'/>", "", HOST_DEVICE, "an input device"),
        ("<video><model type='virtio'><acceleration accel3d='yes'/></model></video>", "", HOST_DEVICE, "GPU"),
        ("<filesystem type='mount'><driver type='virtiofs'/><target dir='share'/></filesystem>", "",
         "VirtIOFSNotLiveMigratable", "(share)"),
        (a_disk(path="/srv/a"), "", DISKS, "disk vda is local to this node"),
        (a_disk("<transient/>"), "", DISKS, "disk vda is transient"),
        (a_disk("<driver cache='unsafe'/>"), "", DISKS, "cache='unsafe'"),
        (a_disk("<mirror type='file' job='copy'/>"), "", "BlockJobNotLiveMigratable", "copies disk vda"),
        (("<disk type='block' device='lun'><source dev='/nfs/lun'><reservations managed='yes'/></source>"
         "<target dev='sda'/></disk>"), "", "PersistentReservationNotLiveMigratable", "disk sda"),
        ("<interface type='hostdev'/>", "", INTERFACE, "(hostdev)"),
        ("<interface type='vdpa'/>", "", INTERFACE, "(vdpa)"),
        ("<shmem name='ivshmem'><model type='ivshmem-plain'/></shmem>", "", "SharedMemoryNotLiveMigratable", "ivshmem"),
        ("<tpm><backend type='passthrough'/></tpm>", "", "TPMNotLiveMigratable", "(passthrough)"),
        ("<tpm><backend type='external'/></tpm>", "", "TPMNotLiveMigratable", "(external)"),
        ("", "<launchSecurity type='sev'/>", "SEVNotLiveMigratable", "(sev)"),
        ("", "<launchSecurity type='s390-pv'/>", "SecureExecutionNotLiveMigratable", "(s390-pv)"),
        ("", "<cpu mode='host-passthrough' migratable='off'/>", "CPUModeLiveMigratable", "migratable='off'"),
        ("", "<cpu mode='custom'><feature policy='require' name='invtsc'/></cpu>", "CPUModeLiveMigratable", "invtsc"),
        ("", "<features><hyperv mode='passthrough'/></features>", "HypervPassthroughNotLiveMigratable", "Hyper-V"),
    ],
)  # fmt: skip
def test_each_of_these_alone_forbids_it(devices: str, inner: str, reason: str, message: str) -> None:
    (blocker,) = found(devices, inner)
    assert blocker.reason == reason
    assert message in blocker.message


@pytest.mark.parametrize(
    ("devices", "inner"),
    [
        ("", ""),
        (a_disk(), ""),
        (a_disk("<driver cache='writeback'/>"), ""),
        (a_disk("<readonly/>", path="/srv/iso"), ""),
        (a_disk("<driver cache='unsafe'/>", path="/srv/iso", device="cdrom"), ""),
        (("<disk type='network'><source protocol='nbd' name='a'><host name='s'/></source><driver cache='unsafe'/>"
         "<target dev='vda'/></disk>"), ""),
        (a_teamed("hostdev"), ""),
        (a_teamed("interface"), ""),
        ("<shmem name='s' role='master'/>", ""),
        ("<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>", ""),
        ("<video><model type='virtio'/></video><input type='tablet' bus='usb'/>", ""),
        ("", "<cpu mode='host-passthrough' migratable='on'/>"),
        ("", ("<cpu mode='custom'><feature policy='require' name='invtsc'/></cpu>"
         "<clock><timer name='tsc' frequency='2000000000'/></clock>")),
        ("", "<features><hyperv mode='custom'/></features>"),
    ],
)  # fmt: skip
def test_none_of_these_forbids_it(devices: str, inner: str) -> None:
    assert found(devices, inner) == ()


def test_snapshots_that_libvirt_keeps_forbid_it() -> None:
    assert [blocker.reason for blocker in found(snapshots=True)] == ["SnapshotsNotLiveMigratable"]


def test_the_list_names_each_once_and_is_bounded() -> None:
    usb = "<hostdev mode='subsystem' type='usb'/>"
    both = found(usb * 3 + a_disk(path="/srv/a"))
    assert [blocker.reason for blocker in both] == [HOST_DEVICE, DISKS]
    assert blocker_words(both) == "a usb device of the host is handed to it; disk vda is local to this node"
    many = "".join(f"<filesystem><target dir='d{n}'/></filesystem>" for n in range(3 * BLOCKERS_MAX))
    assert len(found(many)) == BLOCKERS_MAX


def test_a_name_from_the_xml_is_shown_cut_and_printable() -> None:
    (blocker,) = found(f"<filesystem><target dir='a&#10;b{'x' * 5000}'/></filesystem>")
    assert "\n" not in blocker.message
    assert len(blocker.message) < 150
