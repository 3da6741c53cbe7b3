"""A host that lacks what a VM's domain names takes it not, and explain says what is missing."""

from __future__ import annotations

from msgspec import structs

from aggregator.core.objects import VmSpec
from aggregator.core.seats import refusals, seat_table
from fleet.model import HostOffers, RunStrategy
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


def test_the_table_of_seats_is_shared_until_something_happens() -> None:
    fleet = Fleet()
    fleet.run(3)
    first = seat_table(fleet.state)
    assert seat_table(fleet.state) is first
    fleet.apply("web", VmSpec(run_strategy=RunStrategy.ALWAYS))
    fleet.run(3)
    assert seat_table(fleet.state) is not first
    assert seat_table(fleet.state).seats_of("web") == (fleet.vm("web").owner,)
