"""What a host finds of a copy that would come to it."""

from __future__ import annotations

import pytest
from msgspec import structs

from agent.move_findings import (
    available_memory,
    memory_finding,
    offer_findings,
    port_range,
    ports_finding,
    storage_finding,
)
from fleet.model import Disk, HostOffers, Needs

OFFERS = HostOffers(
    arch="x86_64",
    domain_types=("kvm", "qemu"),
    machines=("pc", "pc-i440fx-7.2"),
    cpu_features=("sse2", "avx"),
    interfaces=("br0", "br1"),
    networks=("default",),
)
NEEDS = Needs(
    domain_type="kvm",
    arch="x86_64",
    machine="pc-i440fx-7.2",
    guest_cpu=("sse2",),
    interfaces=("br0",),
    networks=("default",),
)
SOCKETS = """\
  sl  local_address rem_address   st tx_queue
   0: 0100007F:C000 00000000:0000 0A 00000000
   1: 0100007F:C001 0200007F:1234 01 00000000
   2: 0100007F:C002 0200007F:1234 06 00000000
   3: 0100007F:20E6 00000000:0000 0A 00000000
"""


def test_a_host_that_has_everything_says_so() -> None:
    found = list(offer_findings(NEEDS, OFFERS))
    assert [(finding.check, finding.ok) for finding in found] == [
        ("MachineType", True),
        ("CPU", True),
        ("Network", True),
    ]


@pytest.mark.parametrize(
    ("needs", "check", "words"),
    [
        (structs.replace(NEEDS, machine="pc-i440fx-9.0"), "MachineType", "pc-i440fx-9.0"),
        (structs.replace(NEEDS, guest_cpu=("sse2", "amx")), "CPU", "lacks: amx"),
        (structs.replace(NEEDS, guest_cpu=tuple(f"f{n}" for n in range(9))), "CPU", "f4 and 4 more"),
        (structs.replace(NEEDS, interfaces=("br7",)), "Network", "not here: br7"),
        (structs.replace(NEEDS, networks=("dmz",)), "Network", "not here: dmz"),
    ],
)
def test_what_is_missing_is_named(needs: Needs, check: str, words: str) -> None:
    (bad,) = [finding for finding in offer_findings(needs, OFFERS) if not finding.ok]
    assert bad.check == check
    assert words in bad.message


def test_a_cpu_is_not_judged_by_what_another_type_of_domain_is_given() -> None:
    emulated = structs.replace(NEEDS, domain_type="qemu", guest_cpu=("amx",))
    assert "CPU" not in {finding.check for finding in offer_findings(emulated, OFFERS)}


def test_nothing_is_said_of_what_a_host_does_not_tell() -> None:
    assert list(offer_findings(NEEDS, HostOffers())) == []


def test_a_path_that_leads_elsewhere_is_another_disk() -> None:
    there = (Disk("vda", "nfs://san/vol1/a", shared=True), Disk("sda", "file:n1:/iso", writable=False))
    same = (Disk("vda", "nfs://san/vol1/a", shared=True), Disk("sda", "file:n2:/iso", writable=False))
    assert storage_finding(there, same, ()).ok
    other = (Disk("vda", "nfs://san/vol2/a", shared=True),)
    assert "leads to nfs://san/vol2/a here" in storage_finding(there, other, ()).message
    assert storage_finding(there, same, ("sda",)).message == "disk sda is not here: file:n1:/iso"


def test_ports_in_use_are_counted_but_not_those_that_only_wait() -> None:
    assert port_range("# migration_port_min = 1\nmigration_port_max = 49160\n") == (49152, 49160)
    found = ports_finding((49152, 49155), (SOCKETS, ""))
    assert (found.ok, found.message) == (True, "2 of 4 ports (49152-49155) are free")
    assert not ports_finding((49152, 49153), (SOCKETS, "")).ok


def test_memory_is_what_the_kernel_says_is_available() -> None:
    assert available_memory("MemTotal: 9 kB\nMemAvailable:    2048 kB\n") == 2048 * 1024
    assert available_memory("") is None
    assert not memory_finding(1 << 30, 1 << 29).ok
    assert memory_finding(1 << 29, 1 << 29).ok
