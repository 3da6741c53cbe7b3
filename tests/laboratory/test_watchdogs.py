"""Guests with a watchdog device that they leave without a sign: what each action of it comes to."""

from __future__ import annotations

import pytest

from cli.document import documents, number, text
from lab.manifest import GuestKind
from lab.scene import Scene
from tests.laboratory.scenes import SceneMaker

pytestmark = [pytest.mark.laboratory, pytest.mark.slow, pytest.mark.timeout(200)]

ACTIONS = {"off": "poweroff", "stopped": "pause", "reset": "reset", "own": "poweroff"}


def guarded(fleet: Scene, name: str, action: str) -> None:
    """Apply a VM that is started again only when it fails."""
    device = f"<watchdog model='ib700' action='{action}'/>"
    manifest = fleet.laboratory.vm(name, GuestKind.TINY).replace("<memballoon", f"{device}\n        <memballoon")
    assert device in manifest
    fleet.apply_text(manifest.replace("runStrategy: Always", "runStrategy: RerunOnFailure"))


def run_of(fleet: Scene, name: str) -> float:
    return number(fleet.get("vms", name), "status.run")


def test_a_guest_that_gives_its_watchdog_no_sign_has_failed(scene: SceneMaker) -> None:
    """Powered off or stopped by it: another run; reset by it: the same run; a power-off of its own: none."""
    fleet = scene(*ACTIONS, hosts=1)
    for name, action in ACTIONS.items():
        guarded(fleet, name, action)
    fleet.wait(lambda: all(fleet.counts(name) for name in ACTIONS), "all to count")
    for name in ("off", "stopped", "reset"):
        fleet.laboratory.order_guest(name, "watchdog")
    fleet.laboratory.order_guest("own", "poweroff")
    fleet.wait(lambda: fleet.phase("own") == "Succeeded", "the guest that powered off to have succeeded")
    for name in ("off", "stopped"):
        fleet.wait(lambda name=name: run_of(fleet, name) == 2 and fleet.counts(name), f"{name} to run again")  # type: ignore[misc]
    fleet.wait(lambda: fleet.starts("reset") == 2 and fleet.counts("reset"), "reset to begin anew")
    assert (run_of(fleet, "reset"), run_of(fleet, "own")) == (1, 1)
    titles = [text(each, "status.title") for each in documents(fleet.client.get("/api/v1/incidents"), "items")]
    assert titles == ["stopped's watchdog device has stopped it"]
    assert fleet.faults() == []
