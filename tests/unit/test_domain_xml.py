"""Domain XML from people and from libvirt: what is read, what is refused, and what counts as a change."""

from __future__ import annotations

import pytest

from agent.places import Mount, mount_of, place_in, read_mounts
from fleet.domain_xml import XML_BYTES_MAX, DomainXmlError, Place, parse_domain
from fleet.model import Disk

UUID = "63625264-6470-54cf-8fdc-96cebe67af84"


def a_domain(inner: str = "", devices: str = "", memory: str = "<memory unit='MiB'>16</memory>") -> str:
    head = f"<domain type='kvm' id='4'><name>web-1</name><uuid>{UUID}</uuid>{memory}<vcpu>2</vcpu>"
    return f"{head}{inner}<devices>{devices}</devices></domain>"


def test_name_uuid_and_size_are_read() -> None:
    domain = parse_domain(a_domain())
    assert (domain.name, domain.uuid, domain.memory_bytes, domain.cpu_m) == ("web-1", UUID, 16 * 2**20, 2000)


@pytest.mark.parametrize(
    ("memory", "bytes_"),
    [
        ("<memory>1024</memory>", 2**20),
        ("<memory unit='GiB'>2</memory>", 2 * 2**30),
        ("<memory unit='MB'>1</memory>", 10**6),
        ("<memory unit='b'>4096</memory>", 4096),
    ],
)
def test_memory_is_read_in_libvirts_units(memory: str, bytes_: int) -> None:
    assert parse_domain(a_domain(memory=memory)).memory_bytes == bytes_


@pytest.mark.parametrize(
    ("source", "identity", "shared"),
    [
        ("type='network'><source protocol='nbd' name='web-1'><host name='10.0.0.9' port='10809'/></source>",
         "nbd://10.0.0.9:10809/web-1", True),
        ("type='network'><source protocol='nbd' name='web-1'><host name='10.0.0.9'/></source>",
         "nbd://10.0.0.9:10809/web-1", True),
        ("type='network'><source protocol='iscsi' name='iqn.2026:x/1'><host name='san' port='3260'/></source>",
         "iscsi://san:3260/iqn.2026:x/1", True),
        ("type='network'><source protocol='rbd' name='pool/web'><host name='b'/><host name='a'/></source>",
         "rbd://a,b/pool/web", True),
        ("type='network'><source protocol='nbd'><host transport='unix' socket='/run/s'/></source>",
         "nbd:unix:/run/s/", False),
        ("type='file'><source file='/srv/a.img'/>", "path:/srv/a.img", False),
        ("type='block'><source dev='/dev/vg/a'/>", "path:/dev/vg/a", False),
    ],
)  # fmt: skip
def test_a_disk_is_identified_by_what_it_is(source: str, identity: str, *, shared: bool) -> None:
    domain = parse_domain(a_domain(devices=f"<disk {source}<target dev='vda'/></disk>"))
    assert [(d.identity, d.shared, d.writable) for d in domain.disks] == [(identity, shared, True)]


def test_read_only_shareable_and_empty_drives_are_told_apart() -> None:
    devices = (
        "<disk type='file' device='cdrom'><target dev='sda'/></disk>"
        "<disk type='file'><source file='/a'/><target dev='vda'/><readonly/></disk>"
        "<disk type='file'><source file='/b'/><target dev='vdb'/><shareable/></disk>"
    )
    disks = parse_domain(a_domain(devices=devices)).disks
    assert [(d.target, d.writable, d.shareable) for d in disks] == [("vda", False, False), ("vdb", True, True)]


def test_a_path_is_resolved_by_the_node_that_has_it() -> None:
    devices = "<disk type='file'><source file='/srv/a.img'/><target dev='vda'/></disk>"
    domain = parse_domain(a_domain(devices=devices), lambda path: Place(f"nfs://server{path}", shared=True))
    assert domain.disks[0].identity == "nfs://server/srv/a.img"


@pytest.mark.parametrize(
    ("xml", "words"),
    [
        ("", "broken at line 1"),
        ("<domain>", "broken at line 1"),
        ("<network><name>x</name></network>", "a <network>, not a <domain>"),
        (a_domain().replace("<name>web-1</name>", ""), "domain/name"),
        (a_domain().replace("web-1", "a/b"), "domain/name"),
        (a_domain().replace(UUID, "not-a-uuid"), "domain/uuid"),
        (a_domain(memory=""), "domain/memory"),
        (a_domain(memory="<memory unit='ells'>3</memory>"), "'ells' is no unit"),
        (a_domain().replace("<vcpu>2", "<vcpu>two"), "domain/vcpu"),
        ("<!DOCTYPE x [<!ENTITY a 'b'>]>" + a_domain(), "document type"),
        ("<domain>" + "<a>" * 100 + "</a>" * 100 + "</domain>", "deeper than"),
        ("<domain>" + " " * XML_BYTES_MAX + "</domain>", "longer than"),
        (a_domain(devices="<disk type='file'><source file='a.img'/><target dev='vda'/></disk>"), "no absolute path"),
    ],
)
def test_bad_xml_is_one_sentence_with_the_place(xml: str, words: str) -> None:
    with pytest.raises(DomainXmlError) as caught:
        parse_domain(xml)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_hash_ignores_what_libvirt_rewrites() -> None:
    devices = "<controller type='pci'/><controller type='ide'/><disk type='file'><source file='/a'/></disk>"
    one = a_domain(devices=devices)
    other = one.replace(" id='4'", "").replace("<name>", "\n  <name>")
    other = other.replace(
        "<controller type='pci'/><controller type='ide'/>", "<controller type='ide'/><controller type='pci'/>"
    )
    other = other.replace("</devices>", "</devices><seclabel type='none'/>")
    assert parse_domain(one).hash == parse_domain(other).hash


@pytest.mark.parametrize("change", [("/a", "/overlay"), ("<vcpu>2", "<vcpu>3"), ("type='kvm'", "type='qemu'")])
def test_the_hash_sees_what_matters(change: tuple[str, str]) -> None:
    xml = a_domain(devices="<disk type='file'><source file='/a'/><target dev='vda'/></disk>")
    assert parse_domain(xml).hash != parse_domain(xml.replace(*change)).hash


def test_the_hash_sees_two_disks_changing_places() -> None:
    disks = [f"<disk type='file'><source file='/{name}'/></disk>" for name in "ab"]
    assert (
        parse_domain(a_domain(devices="".join(disks))).hash != parse_domain(a_domain(devices="".join(disks[::-1]))).hash
    )


MOUNTINFO = """\
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
35 22 0:40 / /srv rw - nfs4 server:/export rw,addr=10.0.0.9
36 22 0:41 /sub /mnt/with\\040space rw - nfs server2:/e rw
37 22 0:42 / /var/gfs rw - gfs2 /dev/mapper/shared rw
"""


@pytest.mark.parametrize(
    ("path", "identity", "shared"),
    [
        ("/srv/a.img", "nfs://server:/export/a.img", True),
        ("/srvx/a.img", "file:kvm2:/srvx/a.img", False),
        ("/mnt/with space/a.img", "nfs://server2:/e/sub/a.img", True),
        ("/var/gfs/a.img", "gfs2:/dev/mapper/shared/a.img", True),
        ("/var/a.img", "file:kvm2:/var/a.img", False),
    ],
)
def test_a_file_is_its_export_or_the_nodes_own(path: str, identity: str, *, shared: bool) -> None:
    place = place_in(path, mount_of(path, read_mounts(MOUNTINFO)), "kvm2")
    assert (place.identity, place.shared) == (identity, shared)


def test_without_mounts_a_file_is_the_nodes_own() -> None:
    assert place_in("/a", None, "kvm2") == Place("file:kvm2:/a", shared=False)
    assert mount_of("/a", [Mount("/srv", "/", "nfs4", "s:/e")]) is None


NVRAM = "/var/lib/libvirt/qemu/nvram/web-1_VARS.fd"


@pytest.mark.parametrize(
    ("system", "identity"),
    [
        ("<os><type>hvm</type></os>", None),
        ("<os firmware='bios'/>", None),
        ("<os><loader readonly='yes' type='rom'>/bios.bin</loader></os>", None),
        ("<os firmware='efi'><loader stateless='yes'/></os>", None),
        ("<os firmware='efi'/>", NVRAM),
        ("<os><loader readonly='yes' type='pflash'>/OVMF.fd</loader></os>", NVRAM),
        ("<os firmware='efi'><nvram template='/VARS.fd'/></os>", NVRAM),
        ("<os><nvram template='/VARS.fd'>/srv/a.fd</nvram></os>", "/srv/a.fd"),
        ("<os><nvram type='file'><source file='/nfs/a.fd'/></nvram></os>", "/nfs/a.fd"),
    ],
)
def test_the_nvram_is_where_libvirt_keeps_it(system: str, identity: str | None) -> None:
    nvram = parse_domain(a_domain().replace("<vcpu>", system + "<vcpu>"), lambda path: Place(path, shared=False)).nvram
    assert (nvram.identity if nvram else None) == identity


def test_an_nvram_of_the_network_is_shared_as_a_disk_is() -> None:
    source = "<source protocol='nbd' name='a-vars'><host name='10.0.0.9'/></source>"
    system = f"<os><nvram type='network'>{source}</nvram></os>"
    nvram = parse_domain(a_domain().replace("<vcpu>", system + "<vcpu>")).nvram
    assert nvram == Disk("nvram", "nbd://10.0.0.9:10809/a-vars", shared=True)
