"""How the agent drives a migration: longer pauses where passes stall, and when it gives up."""

from __future__ import annotations

import pytest
from msgspec import structs

from agent.course import Course
from agent.keeper_types import AbortJob, Migrate, MigrationMoved, OrderEnded, Persist, SetDowntime
from fleet.messages import MigrationProgress
from fleet.model import QemuState
from tests.unit.keeper_harness import UUID, a_vm, deeds, only_call, sent_of
from tests.unit.keeper_pair import MIGRATE, a_source

MIB = 1024 * 1024


def far(left_mib: int, iteration: int, dirty_mib: int = 0, rate_mib: int = 10) -> MigrationMoved:
    return MigrationMoved(UUID, 0.0, left_mib * MIB, rate_mib * MIB, 1024 * MIB, dirty_mib * MIB, iteration)


def test_a_stalled_pass_allows_a_longer_pause_up_to_the_limit_and_no_more() -> None:
    course = Course(0.0, 450)
    allowed = []
    for iteration in range(1, 12):
        course.moved(float(iteration), far(500, iteration))
        allowed.append(course.downtime_ms)
    assert allowed == [100, 150, 200, 300, 400, 450, 450, 450, 450, 450, 450]


def test_passes_that_leave_less_and_less_need_no_longer_pause() -> None:
    course = Course(0.0, 300)
    longer = [course.moved(float(i), far(1000 >> i, i)) for i in range(6)]
    assert not any(longer)


@pytest.mark.parametrize("offset", [0.0, 0.3, 0.7])
def test_looks_that_fall_anywhere_into_equal_passes_see_nothing_gained(offset: float) -> None:
    """Passes of 7.4 s over 43 MiB, looked at once a second: how much of one is gone by the first look is chance."""
    course, gained = Course(0.0, 300), []
    for second in range(1, 120):
        t = second + offset
        number, into = divmod(t, 7.4)
        course.moved(t, far(int(43 - into * 5.8), 1 + int(number), rate_mib=6))
        gained.append(course.stands_still_s(t))
    assert gained[-1] > 100.0


def test_passes_that_shrink_gain_wherever_the_looks_fall() -> None:
    course, t, size, number, begun = Course(0.0, 300), 0.0, 400.0, 1, 0.0
    while size > 60:
        t += 1.0
        if t - begun > size / 10:
            begun, size, number = t, size * 0.8, number + 1
        course.moved(t, far(int(size - (t - begun) * 10), number))
        assert course.stands_still_s(t) <= 1.0


def test_many_looks_within_one_pass_are_one_pass() -> None:
    course = Course(0.0, 300)
    for second in range(60):
        course.moved(float(second), far(500, 1))
    assert course.downtime_ms == 100


@pytest.mark.parametrize("limit", [1, 50, 100])
def test_the_first_pause_is_never_longer_than_the_limit(limit: int) -> None:
    assert Course(0.0, limit).downtime_ms == limit


def test_standing_still_counts_from_when_something_was_gained_last() -> None:
    course = Course(10.0, 300)
    assert course.stands_still_s(12.0) == 2.0
    course.moved(13.0, far(400, 1))
    course.moved(15.0, far(10, 1))
    course.moved(20.0, far(300, 2))  # less than the first pass began with
    assert course.stands_still_s(20.0) == 0.0
    course.moved(24.0, far(1, 2))
    course.moved(30.0, far(300, 3))  # no less
    course.moved(36.0, far(0, 3))  # what is left at the end of a pass says nothing
    assert course.stands_still_s(36.0) == 12.0
    course.moved(37.0, far(200, 4))
    assert course.stands_still_s(37.0) == 0.0


def test_one_long_pass_that_gains_is_never_standing_still() -> None:
    course = Course(0.0, 300)
    for second in range(1000):
        course.moved(float(second), far(5000 - second, 1))
        assert course.stands_still_s(float(second)) == 0.0


def test_a_migration_begins_with_a_short_pause_and_is_told_of_longer_ones() -> None:
    source = a_source()
    deed = only_call(source.order(structs.replace(MIGRATE, auto_converge=True, parallel_connections=2))).deed
    assert deed == Migrate(
        MIGRATE.peer_uri, MIGRATE.migration_address, 0, 100, auto_converge=True, parallel_connections=2
    )
    source.step(far(500, 1), 1.0)
    source.step(far(400, 2), 1.0)
    effects = source.step(far(500, 3), 1.0)
    assert SetDowntime(150) in deeds(effects)
    (told,) = sent_of(effects, MigrationProgress)
    assert (told.downtime_ms, told.iteration, told.remaining_bytes) == (150, 3, 500 * MIB)


def test_one_without_progress_is_aborted_and_says_why() -> None:
    source = a_source()
    call = only_call(source.order(structs.replace(MIGRATE, timeout_s=600.0, progress_timeout_s=20.0)))
    source.step(far(500, 1, dirty_mib=120), 1.0)
    assert AbortJob() not in deeds(source.step(far(500, 2, dirty_mib=120), 19.0))
    assert AbortJob() in deeds(source.step(far(500, 3, dirty_mib=120), 1.0))
    assert AbortJob() not in deeds(source.step(far(500, 4, dirty_mib=120), 1.0))  # once, until it had its time
    source.returned(call, "OPERATION_ABORTED", message="canceled by client")
    effects = source.listed(a_vm(QemuState.RUNNING))
    (ended,) = [e.record for e in effects if isinstance(e, Persist) and isinstance(e.record, OrderEnded)]
    assert (ended.outcome, ended.code) == ("Failed", "NO_PROGRESS")
    assert ended.message == (
        "no progress for 20 s: 500 MiB are left in pass 3, the guest writes 120.0 MiB/s and 10.0 MiB/s get through"
    )


def test_an_abort_that_does_nothing_is_made_anew_after_its_time() -> None:
    source = a_source()
    source.order(structs.replace(MIGRATE, timeout_s=600.0, progress_timeout_s=20.0))
    source.step(far(500, 1), 1.0)
    source.step(far(500, 2), 20.0)
    assert AbortJob() not in deeds(source.tick(29.0))
    assert AbortJob() in deeds(source.tick(1.1))


def test_progress_keeps_a_slow_migration_alive_until_its_whole_time_is_over() -> None:
    source = a_source()
    source.order(structs.replace(MIGRATE, timeout_s=60.0, progress_timeout_s=20.0))
    for second in range(59):
        assert AbortJob() not in deeds(source.step(far(900 - second, 1, dirty_mib=99), 1.0))
    assert AbortJob() in deeds(source.tick(1.5))
