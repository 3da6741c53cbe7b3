"""Whose settings drive a migration, what the links allow, and what people are told of its progress."""

from __future__ import annotations

import pytest
from msgspec import structs

from aggregator.core import events as ev
from aggregator.core.events import MigrationPhase
from aggregator.core.migration_drive import drive_of, migration_address_of
from aggregator.core.migration_words import eta_s, progress_words
from aggregator.core.objects import MigrationPolicySpec, MigrationSelectors, MigrationSettings, VmSpec
from fleet.messages import MigrateVm, MigrationProgress
from tests.unit.core.fleet import Fleet
from tests.unit.core.test_moves import running_on

MIB = 1024 * 1024


def policy(fleet: Fleet, name: str, labels: dict[str, str], **settings: object) -> None:
    spec = structs.replace(
        MigrationPolicySpec(selectors=MigrationSelectors(virtual_machine_instance_selector=labels)), **settings
    )
    fleet.settle(ev.MigrationPolicyApplied(at=fleet.now, policy=name, spec=spec))


def test_of_the_policies_that_match_the_one_with_most_labels_counts_field_by_field_after_the_vms_own() -> None:
    fleet = Fleet(config={"migration": {"maxDowntimeMs": 250, "bandwidthPerMigration": "10Mi"}})
    fleet.apply("v", VmSpec(migration=MigrationSettings(max_downtime_ms=77)), app="db", tier="gold")
    policy(fleet, "all", {}, allow_auto_converge=True, progress_timeout=11, parallel_connections=9)
    policy(fleet, "b-db", {"app": "db"}, progress_timeout=22)
    policy(fleet, "a-gold-db", {"app": "db", "tier": "gold"}, progress_timeout=33, max_downtime_ms=500)
    policy(fleet, "other", {"app": "web", "tier": "gold", "x": "y"}, progress_timeout=44)
    drive = drive_of(fleet.state, fleet.vm("v"))
    assert (drive.progress_timeout_s, drive.downtime_ms_max) == (33.0, 77)
    assert (drive.auto_converge, drive.parallel_connections) == (False, 0)  # one policy counts, not all that match
    assert drive.bandwidth_bytes_per_s == 10 * MIB
    fleet.settle(ev.MigrationPolicyDeleted(at=fleet.now, policy="a-gold-db"))
    assert drive_of(fleet.state, fleet.vm("v")).progress_timeout_s == 22.0


def test_of_equal_policies_the_first_by_name_counts() -> None:
    fleet = Fleet()
    fleet.apply("v", None, app="db", tier="gold")
    policy(fleet, "z", {"app": "db"}, progress_timeout=1)
    policy(fleet, "a", {"tier": "gold"}, progress_timeout=2)
    assert drive_of(fleet.state, fleet.vm("v")).progress_timeout_s == 2.0


def test_the_order_carries_what_counts_when_it_is_given() -> None:
    fleet = Fleet()
    running_on(fleet, "v", "n1")
    policy(fleet, "all", {}, allow_auto_converge=True, parallel_connections=4, completion_timeout_per_gib=600)
    fleet.settle(ev.MigrationRequested(at=fleet.now, vm="v", target="n2"))
    fleet.run(2)
    issued = [event.order.body for event in fleet.happened if isinstance(event, ev.OrderIssued)]
    (body,) = [body for body in issued if isinstance(body, MigrateVm)]
    assert (body.auto_converge, body.parallel_connections, body.progress_timeout_s) == (True, 4, 150.0)
    assert body.timeout_s >= 60.0


def test_policies_survive_a_restart_of_the_aggregator() -> None:
    fleet = Fleet()
    policy(fleet, "all", {"app": "db"}, progress_timeout=7)
    assert fleet.replayed().migration_policies == fleet.state.migration_policies
    assert fleet.state.migration_policies


@pytest.mark.parametrize(("link", "together"), [("100Mi", 2), ("60Mi", 1), ("10Mi", 1), (None, 2)])
def test_no_more_migrations_at_once_than_the_links_allow_but_always_one(link: str | None, together: int) -> None:
    fleet = Fleet(
        config={"migration": {"bandwidthPerMigration": "50Mi", "inboundPerNodeMax": 5, "outboundPerNodeMax": 5}}
    )
    for name in ("a", "b"):
        running_on(fleet, name, "n1")
    spec = structs.replace(fleet.node("n1").spec, migration_bandwidth=link)
    fleet.settle(ev.NodeApplied(at=fleet.now, name="n1", labels={}, spec=spec))
    fleet.deaf.add("n2")
    for name in ("a", "b"):
        fleet.settle(ev.MigrationRequested(at=fleet.now, vm=name, target="n2"))
    flying = [m for m in fleet.state.migrations.values() if m.phase is not MigrationPhase.QUEUED]
    assert len(flying) == together


@pytest.mark.parametrize(
    ("written", "addresses", "expected"),
    [
        ("10.8.0.2", {"migration": "10.7.0.2", "control": "10.6.0.2"}, "10.8.0.2"),
        ("", {"migration": "10.7.0.2", "control": "10.6.0.2"}, "10.7.0.2"),
        ("", {"control": "10.6.0.2"}, "10.6.0.2"),  # a host with one network has no other
    ],
)
def test_guests_come_by_the_migration_network_where_there_is_one(
    written: str, addresses: dict[str, str], expected: str
) -> None:
    fleet = Fleet()
    node = fleet.node("n2")
    assert node.facts is not None
    node.facts = structs.replace(node.facts, addresses=addresses)
    node.spec = structs.replace(node.spec, migration_address=written)
    assert migration_address_of(node) == expected


def progress(left: float, rate: float, dirty: float = 0.0, downtime_ms: int = 0) -> MigrationProgress:
    return MigrationProgress(
        "u", "o", 0.0, int(left * MIB), int(rate * MIB), 1024 * MIB, int(dirty * MIB), 3, 0, downtime_ms
    )


def passes_s(left: float, rate: float, dirty: float, downtime_s: float) -> float:
    """Copy pass after pass, as QEMU does."""
    total = 0.0
    while left / rate > downtime_s:
        total += left / rate
        left = dirty * left / rate
    return total + left / rate


@pytest.mark.parametrize("dirty", [1.0, 10.0, 50.0, 85.0])
@pytest.mark.parametrize("left", [50.0, 1000.0, 64000.0])
def test_the_eta_is_what_copying_pass_after_pass_takes(left: float, dirty: float) -> None:
    shown = eta_s(progress(left, 100.0, dirty, 300))
    assert shown is not None
    assert shown == pytest.approx(passes_s(left, 100.0, dirty, 0.3), abs=0.35 + left / 100.0 * 0.1)


def test_what_does_not_end_has_no_eta_and_says_so() -> None:
    assert eta_s(progress(500, 100, 100)) is None
    assert eta_s(progress(500, 100, 95)) is None
    assert eta_s(progress(500, 0)) is None
    assert progress_words(progress(500, 100, 120)).endswith("it does not end at this rate")
    assert progress_words(progress(500, 100, 10, 300)).startswith(
        "500 MiB left at 100.0 MiB/s, pass 3, the guest writes 10.0"
    )


def test_the_pause_at_the_end_counts_for_a_guest_that_writes_faster_than_the_link() -> None:
    assert eta_s(progress(20, 100, 200, 300)) == pytest.approx(0.2)
