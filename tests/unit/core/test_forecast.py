"""How a live migration would go, by what the guest writes and what the link takes."""

from __future__ import annotations

import pytest

from aggregator.core.forecast import HAND_OVER_MS, MIB, Forecast, forecast
from aggregator.core.migration_drive import Drive

GIB = 1024 * MIB


def told(
    memory: int, dirty: int | None, rate: int | None, *, auto_converge: bool = False, timeout_s: float = 600.0
) -> Forecast:
    """Return the forecast with a pause of 300 ms at most."""
    drive = Drive(0, 300, timeout_s, 150.0, auto_converge, 0)
    return forecast(memory, dirty, rate, drive)


def test_an_idle_guest_takes_its_memory_over_the_link_and_the_hand_over() -> None:
    found = told(GIB, 0, 100 * MIB)
    assert (found.verdict, found.seconds, found.downtime_ms) == ("Converges", 10.2, HAND_OVER_MS)
    assert found.words == "about 10 s, a pause of about 0.2 s: the guest writes 0.0 MiB/s, the link takes 100.0 MiB/s"


def test_a_guest_that_writes_takes_a_pass_for_what_it_wrote_in_the_one_before() -> None:
    found = told(GIB, 50 * MIB, 100 * MIB)  # 10.24 + 5.12 + 2.56 + … until what is left takes 0.3 s: 0.16 s
    assert (found.verdict, found.seconds, found.downtime_ms) == ("Converges", 20.3, 160 + HAND_OVER_MS)


@pytest.mark.parametrize("dirty", [100 * MIB, 101 * MIB, 300 * MIB])
def test_a_guest_that_writes_as_fast_as_the_link_needs_auto_converge(dirty: int) -> None:
    found = told(GIB, dirty, 100 * MIB)
    assert (found.verdict, found.seconds) == ("NeedsAutoConverge", None)
    assert "it does not converge without auto-converge, which would slow the guest by" in found.words
    allowed = told(GIB, dirty, 100 * MIB, auto_converge=True)
    assert allowed.verdict == "Converges"
    assert allowed.slowed_percent == found.slowed_percent > 0
    assert dirty * (1 - allowed.slowed_percent / 100) < 100 * MIB


def test_a_guest_whose_whole_memory_fits_into_the_pause_moves_whatever_it_writes() -> None:
    assert told(16 * MIB, 1000 * MIB, 100 * MIB).verdict == "Converges"


def test_a_guest_that_no_slowing_helps_will_not_move() -> None:
    found = told(GIB, 1000 * MIB, 5 * MIB, auto_converge=True)
    assert (found.verdict, found.seconds) == ("WillNotConverge", None)


def test_a_move_that_takes_longer_than_it_may_is_said_to_be_given_up() -> None:
    found = told(100 * GIB, 0, 100 * MIB, timeout_s=60.0)
    assert (found.verdict, found.seconds) == ("WillNotConverge", 1024.0)
    assert found.words.startswith("it is given up after 1 min (completionTimeoutPerGiB); it would take about")


def test_what_is_not_known_is_said() -> None:
    assert told(GIB, 0, None).words == "nothing is known of the link: set spec.migrationBandwidth"
    found = told(GIB, None, 100 * MIB)
    assert (found.verdict, found.seconds) == ("Unknown", 10.2)
    assert found.words == "at least 10 s: the link takes 100.0 MiB/s; what the guest writes was not measured"
