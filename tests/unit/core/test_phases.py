"""What people see of a VM takes only the steps of its table."""

import pytest

from aggregator.core.phases import ANYTIME, STEPS, may_follow
from aggregator.core.words import VmPhase


def test_every_phase_has_a_row() -> None:
    assert sorted(STEPS) == sorted(VmPhase)


@pytest.mark.parametrize("phase", list(VmPhase))
def test_nobody_can_tell_and_a_person_ends_it_from_everywhere(phase: VmPhase) -> None:
    assert all(may_follow(phase, always) for always in ANYTIME)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (VmPhase.PENDING, VmPhase.MIGRATING),
        (VmPhase.RECOVERING, VmPhase.MIGRATING),
        (VmPhase.STOPPED, VmPhase.SUCCEEDED),
        (VmPhase.SUCCEEDED, VmPhase.FAILED),
        (VmPhase.STOPPING, VmPhase.RUNNING),
        (VmPhase.STOPPING, VmPhase.MIGRATING),
    ],
)
def test_what_cannot_be_is_no_step(before: VmPhase, after: VmPhase) -> None:
    assert not may_follow(before, after)
