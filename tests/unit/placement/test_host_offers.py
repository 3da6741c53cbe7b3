"""What a host has, as libvirt tells it, against what a domain needs, as its XML says it."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from agent.offers import ITEMS_MAX, bounded, host_devices, read_capabilities, read_domain_capabilities
from aggregator.placement.place import build_table, judge, place_batch, reasons
from aggregator.placement.types import ScoreSettings
from fleet.domain_xml import parse_domain
from fleet.model import HostOffers, Needs
from tests.unit.placement.builders import a_node, a_vm

MIB = 2**20

CAPABILITIES = """<capabilities><host><uuid>u</uuid><cpu><arch>x86_64</arch></cpu></host>
<guest><os_type>hvm</os_type><arch name='i686'><machine>isapc</machine><domain type='qemu'/></arch></guest>
<guest><os_type>hvm</os_type><arch name='x86_64'><emulator>/usr/bin/qemu-system-x86_64</emulator>
<machine maxCpus='255'>pc-i440fx-7.2</machine><machine canonical='pc-q35-7.2' maxCpus='288'>q35</machine>
<domain type='qemu'/><domain type='kvm'><machine>pc-q35-8.0</machine></domain></arch></guest></capabilities>"""
DOMAIN_CAPABILITIES = """<domainCapabilities><os><enum name='firmware'><value>efi</value></enum></os>
<cpu><mode name='host-model' supported='yes'><model>Haswell</model><feature policy='disable' name='vme'/></mode>
<mode name='custom'><model usable='yes'>Haswell</model><model usable='no'>EPYC</model></mode></cpu>
</domainCapabilities>"""
DOMAIN = """<domain type='kvm'><name>web</name><memory>1048576</memory>
<os firmware='efi'><type arch='x86_64' machine='pc-q35-9.0'>hvm</type></os>
<cpu mode='custom'><model fallback='forbid'>EPYC</model></cpu><devices>
<disk type='volume'><source pool='fast' volume='a'/><target dev='vda'/></disk>
<disk type='network'><source protocol='rbd' name='p/i'><host name='mon'/><auth username='u'>
<secret type='ceph' uuid='11111111-2222-3333-4444-555555555555'/></auth></source><target dev='vdb'/></disk>
<interface type='bridge'><source bridge='br7'/></interface>
<interface type='bridge'><source bridge='ovs'/><virtualport type='openvswitch'/></interface>
<interface type='network'><source network='blue'/></interface></devices></domain>"""


def test_capabilities_are_read_for_the_hosts_own_architecture() -> None:
    host, domains = (ET.fromstring(text) for text in (CAPABILITIES, DOMAIN_CAPABILITIES))  # noqa: S314 - our own text
    assert read_domain_capabilities(domains, read_capabilities(host)) == HostOffers(
        arch="x86_64",
        domain_types=("kvm", "qemu"),
        machines=("pc-i440fx-7.2", "pc-q35-7.2", "pc-q35-8.0", "q35"),
        firmwares=("bios", "efi"),
        cpu_models=("Haswell",),
    )


def test_a_list_that_is_too_long_is_unknown_rather_than_cut_off() -> None:
    assert bounded(map(str, range(ITEMS_MAX + 1))) is None
    assert host_devices(["vnet3", "br0", "eth0", "tap9"]) == ("br0", "eth0")


def test_the_needs_of_a_domain() -> None:
    assert parse_domain(DOMAIN).needs == Needs(
        domain_type="kvm",
        arch="x86_64",
        machine="pc-q35-9.0",
        firmware="efi",
        cpu_model="EPYC",
        interfaces=("br7",),
        networks=("blue",),
        pools=("fast",),
        secrets=("11111111-2222-3333-4444-555555555555",),
    )


OFFERS = HostOffers(
    arch="x86_64",
    domain_types=("kvm", "qemu"),
    machines=("q35",),
    firmwares=("bios",),
    cpu_models=("Haswell",),
    interfaces=("br0",),
    networks=(),
    pools=(),
    secrets=(),
    mounts=(),
    cpu_features=("aes", "avx"),
    huge_pages=((2048, 3), (1048576, 1)),
    devices=("pci 0000:06:00.0 8086:1572", "usb 046d:c31c"),
)


@pytest.mark.parametrize(
    ("needs", "rule", "words"),
    [
        (Needs(interfaces=("br7",)), "NetworkReachable", "it has no bridge br7"),
        (Needs(networks=("blue",)), "NetworkReachable", "libvirt there has no active network blue"),
        (Needs(pools=("fast",)), "StorageReachable", "libvirt there has no active storage pool fast"),
        (Needs(secrets=("u-1",)), "StorageReachable", "libvirt there has no secret u-1"),
        (Needs(mounts=("nfs://f:/vms",)), "StorageReachable", "it has not mounted nfs://f:/vms"),
        (Needs(machine="pc-q35-9.0"), "MachineType", "its QEMU does not know the machine type pc-q35-9.0"),
        (Needs(domain_type="xen"), "HypervisorCapability", "it has no hypervisor of the type xen"),
        (Needs(firmware="efi"), "HypervisorCapability", "it has no firmware of the kind efi"),
        (Needs(domain_type="kvm", cpu_model="EPYC"), "CPUCompatible", "its processor cannot be a EPYC"),
        (
            Needs(domain_type="kvm", cpu_model="EPYC", guest_cpu=("aes", "avx512f", "sha-ni")),
            "CPUCompatible",
            "its processor lacks what the guest runs on: avx512f, sha-ni",
        ),
        (Needs(huge_bytes=8 * MIB), "HugePagesFit", "6Mi free in huge pages of 2Mi, 8Mi needed"),
        (
            Needs(huge_page_kib=1048576, huge_bytes=2048 * MIB),
            "HugePagesFit",
            "1Gi free in huge pages of 1Gi, 2Gi needed",
        ),
        (Needs(huge_page_kib=16, huge_bytes=MIB), "HugePagesFit", "0 free in huge pages of 16Ki, 1Mi needed"),
        (Needs(devices=("usb 1d6b:2",)), "HostDevices", "it has no usb 1d6b:2"),
        (Needs(devices=("pci 0000:06:00.0 8086:9999",)), "HostDevices", "it has no pci 0000:06:00.0 8086:9999"),
        (Needs(devices=("usb 046d:c31c", "usb 046d:c31c")), "HostDevices", "another VM has its usb 046d:c31c"),
    ],
)
def test_a_host_that_lacks_something_is_refused_by_rule_and_in_words(needs: Needs, rule: str, words: str) -> None:
    vm = a_vm(needs=needs)
    table = build_table([a_node("n1", offers=OFFERS), a_node("n2"), a_node("n3", offers=HostOffers(arch="x86_64"))])
    verdict = judge(vm, table, ScoreSettings())
    assert verdict.rejected == {"n1": (rule,)}
    assert verdict.feasible == ("n2", "n3")
    assert reasons(vm, table, "n1") == {rule: words}


def test_what_another_vm_holds_is_not_free_until_it_goes() -> None:
    node = a_node("n1", offers=OFFERS)
    holder = a_vm("holder", needs=Needs(huge_page_kib=2048, huge_bytes=4 * MIB, devices=("pci 0000:06:00.0",)))
    wants = a_vm("wants", needs=Needs(huge_bytes=4 * MIB, devices=("pci 0000:06:00.0 8086:1572",)))
    table = build_table([node], [(holder, "n1")])
    assert judge(wants, table, ScoreSettings()).rejected == {"n1": ("HostDevices", "HugePagesFit")}
    assert reasons(wants, table, "n1") == {
        "HostDevices": "another VM has its pci 0000:06:00.0 8086:1572",
        "HugePagesFit": "2Mi free in huge pages of 2Mi, 4Mi needed",
    }
    assert judge(holder, table, ScoreSettings()).feasible == ("n1",)
    table.unseat("holder", "n1")
    assert judge(wants, table, ScoreSettings()).feasible == ("n1",)


def test_a_batch_gives_each_device_away_once() -> None:
    table = build_table([a_node(name, offers=OFFERS) for name in ("n1", "n2")])
    vms = [a_vm(f"v{number}", needs=Needs(devices=("usb 046d:c31c",))) for number in range(3)]
    placed = [verdict.node for verdict in place_batch(vms, table, ScoreSettings())]
    assert placed == ["n1", "n2", None]
