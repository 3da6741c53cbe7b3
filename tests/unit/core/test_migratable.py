"""The condition LiveMigratable and a drain's refusal are one answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec import structs

from aggregator.core import events as ev
from aggregator.core.events import VmVerb
from aggregator.core.eviction import eviction_method
from aggregator.core.explain import explain_vm
from aggregator.core.objects import ApiCondition
from aggregator.core.views_vm import conditions_of
from fleet.model import Blocker, QemuState, RunStrategy, VmReport
from tests.unit.core.fleet import Fleet
from tests.unit.core.test_storage_loss import fleet_on_storage, says


def reported(fleet: Fleet, **changes: object) -> None:
    """The owner's agent says this of a."""
    vm = fleet.vm("a")
    changed: VmReport = structs.replace(fleet.qemus[vm.owner, vm.uuid], **changes)
    fleet.settle(fleet.reported(vm.owner, changed))


def nothing(_fleet: Fleet) -> None:
    """All is well."""


def blocked(fleet: Fleet) -> None:
    reported(fleet, not_migratable="a device of the host is passed through")


def blocked_twice(fleet: Fleet) -> None:
    both = (Blocker("HostDeviceNotLiveMigratable", "a usb device"), Blocker("DisksNotLiveMigratable", "disk vda"))
    reported(fleet, not_migratable="a usb device; disk vda", blockers=both)


def paused(fleet: Fleet) -> None:
    reported(fleet, state=QemuState.PAUSED)


def unknown(fleet: Fleet) -> None:
    reported(fleet, state=QemuState.UNKNOWN)


def storage_lost(fleet: Fleet) -> None:
    says(fleet, "n1", reached=False)


def relayed(fleet: Fleet) -> None:
    fleet.cut_off("n1")
    fleet.run_until(lambda: bool(fleet.node("n1").via), 10)


def silent(fleet: Fleet) -> None:
    session = fleet.node("n1").session
    assert session is not None
    fleet.silent.add("n1")
    fleet.settle(ev.SessionEnded(at=fleet.now, node="n1", session=session, how="closed"))


def ended(fleet: Fleet) -> None:
    fleet.settle(ev.VmCommanded(at=fleet.now, name="a", verb=VmVerb.STOP, force=True))
    fleet.run(1)


def live_migratable(fleet: Fleet) -> ApiCondition:
    """Return the condition of a."""
    return next(c for c in conditions_of(fleet.state, fleet.vm("a")) if c.type == "LiveMigratable")


@pytest.mark.parametrize(
    ("happens", "status", "reason", "words"),
    [
        (nothing, "True", "NothingAgainstIt", ""),
        (blocked, "False", "Blocked", "a device of the host"),
        (blocked_twice, "False", "HostDeviceNotLiveMigratable", "a usb device; disk vda"),
        (paused, "False", "Paused", "its QEMU is paused"),
        (unknown, "False", "Unknown", "its QEMU is unknown"),
        (storage_lost, "False", "StorageLost", "n1 does not reach nbd://storage:10809"),
        (relayed, "False", "NodeRelayed", "is reached only through"),
        (silent, "Unknown", "NodeSilent", "n1 has not reported it in this session"),
        (ended, "False", "NotRunning", ""),
    ],
)
def test_the_condition_says_what_a_drain_goes_by(
    happens: Callable[[Fleet], None], status: str, reason: str, words: str
) -> None:
    fleet = fleet_on_storage(RunStrategy.MANUAL)
    happens(fleet)
    condition = live_migratable(fleet)
    assert (condition.status, condition.reason) == (status, reason)
    assert words in condition.message
    method, why = eviction_method(fleet.state, fleet.vm("a"))
    assert (method == "migrate") == (condition.status == "True")
    assert condition.message in why


def test_explain_names_each_blocker_with_its_reason() -> None:
    fleet = fleet_on_storage(RunStrategy.MANUAL)
    assert "cannot be live-migrated" not in explain_vm(fleet.state, fleet.vm("a"), ()).text
    blocked_twice(fleet)
    text = explain_vm(fleet.state, fleet.vm("a"), ()).text
    assert "  a usb device (HostDeviceNotLiveMigratable)" in text
    assert "  disk vda (DisksNotLiveMigratable)" in text
