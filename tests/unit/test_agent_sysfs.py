"""What the kernel has for guests, read from a directory in the shape of /sys."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.offers import ITEMS_MAX
from agent.sysfs import identified, read_devices, read_huge_pages
from fleet.domain_xml import parse_domain

HOSTDEVS = """<domain type='kvm'><name>a</name><memory unit='MiB'>64</memory><memoryBacking><hugepages>{page}
</hugepages></memoryBacking><devices>
<hostdev mode='subsystem' type='pci'><source>
<address domain='0x0000' bus='0x06' slot='0x12' function='0x5'/></source></hostdev>
<hostdev mode='subsystem' type='usb'><source><vendor id='0x046d'/><product id='0xc31c'/></source></hostdev>
<hostdev mode='subsystem' type='mdev' model='vfio-pci'><source>
<address uuid='C2177883-F1BB-47F0-914D-32A22E3A8804'/></source></hostdev>
<hostdev mode='subsystem' type='scsi'><source><adapter name='scsi_host0'/>
<address bus='0' target='0' unit='0'/></source></hostdev>
<interface type='hostdev'><source><address type='pci' domain='0' bus='0x07' slot='0x00' function='0x1'/></source>
</interface></devices></domain>"""


def put(root: Path, path: str, **files: str) -> None:
    (root / path).mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / path / name).write_text(text + "\n")


def test_devices_by_what_they_are(tmp_path: Path) -> None:
    put(tmp_path, "bus/pci/devices/0000:06:12.5", vendor="0x8086", device="0x1572", **{"class": "0x020000"})
    put(tmp_path, "bus/pci/devices/0000:08:00.0", vendor="0x144d", device="0xa808", **{"class": "0x010802"})
    put(tmp_path, "bus/pci/devices/0000:00:1c.0", vendor="0x8086", device="0x9d10", **{"class": "0x060400"})
    for port in ("1-1", "1-2"):
        put(tmp_path, f"bus/usb/devices/{port}", idVendor="046d", idProduct="c31c")
    put(tmp_path, "bus/usb/devices/1-1:1.0", bInterfaceClass="03")
    put(tmp_path, "bus/mdev/devices/c2177883-f1bb-47f0-914d-32a22e3a8804")
    found = read_devices("kvm1", tmp_path)
    assert found == (
        "mdev c2177883-f1bb-47f0-914d-32a22e3a8804",
        "pci 0000:06:12.5 8086:1572",
        "pci 0000:08:00.0 144d:a808 at kvm1",  # a drive: what is on it is on it alone
        "usb 046d:c31c",
        "usb 046d:c31c",
    )
    needed = parse_domain(HOSTDEVS.format(page="")).needs.devices
    assert needed == (
        "mdev c2177883-f1bb-47f0-914d-32a22e3a8804",
        "pci 0000:06:12.5",
        "pci 0000:07:00.1",
        "usb 046d:c31c",
    )
    assert identified(needed, found)[1:3] == ("pci 0000:06:12.5 8086:1572", "pci 0000:07:00.1")
    assert identified(needed, None) == needed


def test_a_host_without_such_directories_has_none_and_one_with_too_many_does_not_tell(tmp_path: Path) -> None:
    assert read_devices("kvm1", tmp_path) == ()
    for number in range(ITEMS_MAX + 1):
        put(tmp_path, f"bus/mdev/devices/{number:08d}")
    assert read_devices("kvm1", tmp_path) is None


def test_huge_pages_with_the_default_size_first(tmp_path: Path) -> None:
    put(tmp_path, "kernel/mm/hugepages/hugepages-1048576kB", nr_hugepages="4")
    put(tmp_path, "kernel/mm/hugepages/hugepages-2048kB", nr_hugepages="100")
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 1 kB\nHugepagesize:    1048576 kB\n")
    assert read_huge_pages(tmp_path, meminfo) == ((1048576, 4), (2048, 100))
    assert read_huge_pages(tmp_path / "nothing", meminfo) is None


@pytest.mark.parametrize(
    ("page", "kib", "size"),
    [
        ("", 0, 64 << 20),
        ("<page size='1' unit='G'/>", 1048576, 64 << 20),
        ("<page size='2048'/>", 2048, 64 << 20),
        ("<page size='2' unit='M' nodeset='0'/>", 0, 0),  # by guest NUMA node: libvirt says whether it fits
        ("<page size='2' unit='parsec'/>", 0, 0),
    ],
)
def test_the_huge_pages_a_domain_asks_for(page: str, kib: int, size: int) -> None:
    needs = parse_domain(HOSTDEVS.format(page=page)).needs
    assert (needs.huge_page_kib, needs.huge_bytes) == (kib, size)
