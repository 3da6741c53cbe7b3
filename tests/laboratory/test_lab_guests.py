"""The tiny guest and its witnesses: it counts, it notices another writer, and the ground truth sees what is."""

from __future__ import annotations

import pytest

from lab.laboratory import Laboratory
from lab.truth import Cpus, twice
from tests.laboratory.lab_steps import counts_on, define, peer_uri, said, start, wait_for


def test_a_guest_counts_on_through_a_live_migration(laboratory: Laboratory) -> None:
    """Every count appears once and in order, on one host and then on the other, and no sample shows two running."""
    start(laboratory, "h1", "mover")
    migrate = [
        "migrate",
        "--live",
        "--p2p",
        "--tls",
        "--persistent",
        "--undefinesource",
        "mover",
        peer_uri(laboratory, "h2"),
    ]
    laboratory.virsh("h1", *migrate)
    counts_on(laboratory, "mover")
    ticks = [line for line in laboratory.guest_log("mover") if line.tick is not None]
    numbers = [line.tick for line in ticks]
    assert numbers == list(range(1, len(numbers) + 1))
    assert [line.host for line in ticks] == sorted(line.host for line in ticks)
    assert {line.host for line in ticks} == {"h1", "h2"}
    sample = laboratory.sample()
    assert [(each.host, each.cpus) for each in sample.vms["mover"]] == [("h2", Cpus.RUNNING)]
    assert twice(sample) == []


def test_a_paused_arrival_is_not_running(laboratory: Laboratory) -> None:
    """A target that waits for its resume is told apart from one that runs."""
    start(laboratory, "h1", "waiter")
    migrate = ["migrate", "--live", "--p2p", "--tls", "--persistent", "--undefinesource", "--suspend", "waiter"]
    laboratory.virsh("h1", *migrate, peer_uri(laboratory, "h3"))
    assert [(each.host, each.cpus) for each in laboratory.sample().vms["waiter"]] == [("h3", Cpus.PAUSED)]
    laboratory.virsh("h3", "resume", "waiter")
    counts_on(laboratory, "waiter")
    assert laboratory.sample().vms["waiter"][0].cpus is Cpus.RUNNING


def test_a_second_writer_is_noticed_by_the_guest_and_by_the_ground_truth(laboratory: Laboratory) -> None:
    """The alarm that every other test relies on does ring."""
    start(laboratory, "h1", "double")
    define(laboratory, "h2", "double")
    assert laboratory.splits() == []
    laboratory.virsh("h2", "start", "double")
    wait_for(laboratory.splits, "a guest that says split")
    assert "double" in twice(laboratory.sample())
    wait_for(laboratory.twice_seen, "the observer's own note")
    laboratory.virsh("h2", "destroy", "double")
    assert twice(laboratory.sample()) == []
    (laboratory.guest_log_path("double")).unlink()


def test_counting_goes_on_from_the_disk(laboratory: Laboratory) -> None:
    """A guest killed on one host and started on another says where it begins, and it is where it ended."""
    start(laboratory, "h1", "heir")
    laboratory.virsh("h1", "destroy", "heir")
    last = said(laboratory, "heir", "tick")[-1].tick
    start(laboratory, "h2", "heir")
    boots = said(laboratory, "heir", "boot from")
    assert [line.host for line in boots] == ["h1", "h2"]
    begun = int(boots[-1].text.split()[-1])
    assert last is not None
    assert begun - last in (0, 1), "the count on the disk may be one ahead of the last that was said"


@pytest.mark.parametrize(
    ("deed", "state"),
    [("poweroff", "shut off (shutdown)"), ("crash", "shut off (crashed)"), ("panic", "shut off (crashed)")],
)
def test_a_guest_ends_by_itself(laboratory: Laboratory, deed: str, state: str) -> None:
    """Power-off is told apart from a crash and a panic by libvirt's own word."""
    start(laboratory, "h3", f"ends-{deed}")
    laboratory.order_guest(f"ends-{deed}", deed)
    wait_for(lambda: f"ends-{deed}" not in laboratory.sample().vms, f"the end of the QEMU after {deed}")
    wait_for(lambda: laboratory.virsh("h3", "domstate", "--reason", f"ends-{deed}").strip() == state, state)


def test_a_guest_reboots_in_the_same_qemu_and_hangs_without_a_word(laboratory: Laboratory) -> None:
    """A reboot is a new boot line and the same process; a hang is a running QEMU that counts no more."""
    start(laboratory, "h3", "restless")
    before = laboratory.sample().vms["restless"][0].pid
    laboratory.order_guest("restless", "reboot")
    wait_for(lambda: len(said(laboratory, "restless", "boot from")) == 2, "a second boot")
    counts_on(laboratory, "restless")
    assert laboratory.sample().vms["restless"][0].pid == before
    laboratory.order_guest("restless", "hang")
    with pytest.raises(AssertionError, match="another tick"):
        _must_tick_within(laboratory, "restless", 1.0)
    assert laboratory.sample().vms["restless"][0].cpus is Cpus.RUNNING


def _must_tick_within(laboratory: Laboratory, name: str, limit_s: float) -> None:
    """Ticks already under way may still come: the last one counts from here."""
    counted = len(laboratory.guest_log(name)) + 1
    wait_for(lambda: len(laboratory.guest_log(name)) > counted, f"another tick of {name}", limit_s)


def test_the_power_button_is_obeyed(laboratory: Laboratory) -> None:
    """An ACPI shutdown from libvirt ends the guest cleanly, and it says so."""
    start(laboratory, "h3", "polite")
    laboratory.virsh("h3", "shutdown", "polite")
    wait_for(lambda: said(laboratory, "polite", "power-button"), "power-button")
    wait_for(lambda: laboratory.virsh("h3", "domstate", "polite").strip() == "shut off", "the end of the guest")


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_linux_guest_counts_answers_its_agent_and_panics(laboratory: Laboratory) -> None:
    """The realistic guest does what tiny does, and what tiny cannot: talk to libvirt through its agent."""
    xml = laboratory.dir / "tux.xml"
    xml.write_text(laboratory.domain_xml("tux", "linux"), encoding="ascii")
    laboratory.virsh("h1", "define", str(xml))
    laboratory.virsh("h1", "start", "tux")
    wait_for(lambda: said(laboratory, "tux", "tick"), "the first tick of linux", 90.0)
    assert "return" in laboratory.virsh("h1", "qemu-agent-command", "tux", '{"execute": "guest-ping"}')
    migrate = [
        "migrate",
        "--live",
        "--p2p",
        "--tls",
        "--persistent",
        "--undefinesource",
        "tux",
        peer_uri(laboratory, "h2"),
    ]
    laboratory.virsh("h1", *migrate)
    counts_on(laboratory, "tux")
    numbers = [line.tick for line in said(laboratory, "tux", "tick")]
    assert numbers == list(range(1, len(numbers) + 1))
    laboratory.order_guest("tux", "panic")
    wait_for(lambda: laboratory.virsh("h2", "domstate", "--reason", "tux").strip() == "shut off (crashed)", "a panic")
