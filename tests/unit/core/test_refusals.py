"""A host that lacks what a VM's domain names takes it not, and explain says what is missing."""

from __future__ import annotations

from msgspec import structs

from aggregator.core.objects import VmSpec
from aggregator.core.seats import migration_targets, place_vms, refusals
from aggregator.core.views_vm import unprotected
from fleet.model import Definition, HostOffers, Needs, RunStrategy
from tests.unit.core.fleet import Fleet

DOMAIN = """<domain type='qemu'><name>web</name><memory>1048576</memory><os><type arch='x86_64'>hvm</type></os>
<devices><interface type='bridge'><source bridge='br7'/></interface></devices></domain>"""


def offering(fleet: Fleet, name: str, *interfaces: str) -> None:
    node = fleet.state.nodes[name]
    assert node.facts is not None
    node.facts = structs.replace(node.facts, offers=HostOffers(arch="x86_64", interfaces=interfaces))


def test_an_absent_bridge_is_named_and_a_node_that_has_it_takes_the_vm() -> None:
    fleet = Fleet()
    for name in fleet.state.nodes:
        offering(fleet, name, "br0")
    fleet.apply("web", VmSpec(run_strategy=RunStrategy.ALWAYS, domain_xml=DOMAIN))
    fleet.run(3)
    web = fleet.vm("web")
    assert web.rejected == dict.fromkeys(fleet.state.nodes, ("NetworkReachable",))
    assert {*refusals(fleet.state, web).values()} == {"NetworkReachable (it has no bridge br7)"}
    offering(fleet, "n2", "br0", "br7")
    fleet.run(30)
    assert fleet.vm("web").owner == "n2"


def test_a_vm_with_a_device_is_pinned_until_another_node_has_the_same_one() -> None:
    fleet = Fleet()
    fleet.apply("web", VmSpec(run_strategy=RunStrategy.ALWAYS, domain_xml=DOMAIN))
    fleet.run(3)
    web = fleet.vm("web")
    device = "pci 0000:06:12.5 8086:1572"
    xml = DOMAIN.replace("<devices>", "<devices><hostdev mode='subsystem' type='pci'/>")
    web.definition = Definition("u", "web", xml, "h", needs=Needs(devices=(device,)))
    assert unprotected(fleet.state, web) == (
        "HostDevice",
        f"it is pinned to its node by {device}, which no other node has",
    )
    for name, node in fleet.state.nodes.items():
        assert node.facts is not None
        node.facts = structs.replace(node.facts, offers=HostOffers(devices=(device,) if name != "n1" else ()))
    assert unprotected(fleet.state, web)[0] != "HostDevice"


def test_a_running_guest_moves_only_where_the_processor_has_what_it_runs_on() -> None:
    fleet = Fleet()
    fleet.apply("web", VmSpec(run_strategy=RunStrategy.ALWAYS, domain_xml=DOMAIN))
    fleet.run(3)
    web = fleet.vm("web")
    web.definition = Definition("u", "web", DOMAIN, "h", needs=Needs(domain_type="kvm", guest_cpu=("aes", "avx512f")))
    features = {"n1": ("aes",), "n2": ("aes", "avx512f"), "n3": ("avx512f",)}
    for name, node in fleet.state.nodes.items():
        assert node.facts is not None
        offers = HostOffers(arch="x86_64", domain_types=("kvm",), cpu_features=features[name])
        node.facts = structs.replace(node.facts, offers=offers)
    web.owner = "n1"
    fleet.state.derived.note_all()  # what was written by hand
    assert migration_targets(fleet.state, web, "n1").rejected == {
        "n1": ("CPUCompatible", "MigrationSource"),
        "n3": ("CPUCompatible",),
    }
    assert [v.rejected for _, v in place_vms(fleet.state, [web])] == [{}]  # a new run may have another CPU
