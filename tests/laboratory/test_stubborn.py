"""A guest that writes its memory faster than the link takes it: said, given up or slowed down, as policy wants."""

from __future__ import annotations

import time

import pytest

from cli.document import Document, number, text
from lab.scene import Scene
from lab.witness import gap_between_s
from tests.laboratory.scenes import SceneMaker

LINK_MBIT = 50
MEMORY_MIB = 48
OUTRUNS, SLOWED_DOWN = 20, 9  # MiB/s that the guest writes; the link takes 6
GIVE_UP_S = 12
PER_GIB_S = 5000  # so that no migration here ends by its whole time


def stubborn(fleet: Scene, dirty_mib_per_s: int) -> None:
    """Let v1 run on h1 behind a slow link."""
    fleet.apply("v1", host="h1", memory_mib=MEMORY_MIB, dirty_mib_per_s=dirty_mib_per_s)
    fleet.laboratory.slow("h1", "migration", LINK_MBIT)


def migrate(fleet: Scene) -> str:
    """Order the move; return the migration's name."""
    return text(fleet.verb("vms", "v1", "migrate", {"to": "h2"}), "metadata.name")


def ended(fleet: Scene, migration: str) -> bool:
    return text(fleet.get("migrations", migration), "status.phase") in ("Succeeded", "Failed", "Cancelled")


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_guest_that_outruns_its_link_is_given_up_and_runs_on(scene: SceneMaker) -> None:
    """Progress says that it does not end; after progressTimeout it is aborted, with the figures; no beat is lost."""
    fleet = scene("v1")
    stubborn(fleet, OUTRUNS)
    fleet.client.patch(
        "/api/v1/config", {"migration": {"progressTimeout": GIVE_UP_S, "completionTimeoutPerGiB": PER_GIB_S}}
    )
    migration = migrate(fleet)
    seen: list[Document] = []

    def outruns() -> bool:
        seen.append(fleet.get("migrations", migration))
        return "does not end at this rate" in text(seen[-1], "status.progress")

    fleet.wait(outruns, "the progress to say that it does not end", 90)
    shown = seen[-1]
    assert number(shown, "status.dirtyBytesPerSecond") > 0.8 * number(shown, "status.bytesPerSecond") > 0
    assert text(shown, "status.etaSeconds") == ""
    fleet.wait(lambda: ended(fleet, migration), "the migration to be given up", 120)
    reason = text(fleet.get("migrations", migration), "status.reason")
    assert reason.startswith(f"no progress for {GIVE_UP_S} s: ")
    assert "the guest writes" in reason
    fleet.wait(lambda: fleet.phase("v1") == "Running" and fleet.all_count_once(), "the guest to run on")
    assert fleet.where() == {"v1": "h1"}
    assert fleet.unbroken("v1")
    fleet.wait(lambda: len(fleet.witness.sample.vms["v1"]) == 1, "the copy to be gone")
    assert fleet.faults() == []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_policy_lets_the_same_guest_be_slowed_down_until_it_arrives(scene: SceneMaker) -> None:
    """Auto-converge by a MigrationPolicy: it is throttled, arrives, and counts on."""
    fleet = scene("v1")
    stubborn(fleet, SLOWED_DOWN)
    manifest: Document = {
        "apiVersion": "virtward/v1",
        "kind": "MigrationPolicy",
        "metadata": {"name": "all"},
        "spec": {
            "progressTimeout": 200,
            "completionTimeoutPerGiB": PER_GIB_S,
            "maxDowntimeMs": 2000,
            "allowAutoConverge": True,
        },
    }
    fleet.client.post("/api/v1/apply", {"documents": [manifest]})
    begun_s = time.time()
    migration = migrate(fleet)
    throttled: list[float] = []

    def arrived() -> bool:
        now = fleet.get("migrations", migration)
        throttled.append(number(now, "status.throttlePercent"))
        return text(now, "status.phase") in ("Succeeded", "Failed")

    fleet.wait(arrived, "the guest to arrive", 240)
    assert text(fleet.get("migrations", migration), "status.phase") == "Succeeded"
    assert max(throttled) > 0
    fleet.wait(fleet.all_count_once, "it to count")
    assert fleet.where() == {"v1": "h2"}
    assert fleet.starts("v1") == 1
    assert gap_between_s(fleet.witness.guests["v1"].ticks, begun_s, time.time()) <= 6.0
    assert fleet.faults() == []
