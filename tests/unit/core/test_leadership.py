"""Who may lead, and until when its holder may act: two who count honestly never overlap."""

from __future__ import annotations

import pytest

from aggregator.core.leadership import Candidacy, Tenure

LEASE_S = 6.0


def test_the_holder_counts_from_before_the_renewal_that_was_answered() -> None:
    tenure = Tenure(LEASE_S, sent_s=100.0)
    assert tenure.is_fresh(105.9)
    assert not tenure.is_fresh(106.0)
    tenure.renewed(102.0)
    tenure.renewed(101.0)  # an answer that came late lengthens nothing
    assert tenure.is_fresh(107.9)
    assert not tenure.is_fresh(108.0)


def test_a_lease_that_is_seen_to_end_may_be_taken_a_moment_later() -> None:
    candidacy = Candidacy(LEASE_S)
    for second in range(20):
        candidacy.seen(float(second), 5, held=True)
    assert not candidacy.may_take(19.0)
    candidacy.seen(20.0, 6, held=False)
    assert not candidacy.may_take(20.1)
    assert candidacy.may_take(20.2)
    candidacy.seen(20.3, 7, held=True)  # another was faster
    assert not candidacy.may_take(30.0)


@pytest.mark.parametrize("held", [True, False])
def test_a_store_that_says_nothing_about_the_past_is_waited_at_for_a_whole_lease(held: bool) -> None:  # noqa: FBT001
    """Seen for the first time, or back at an earlier revision: somebody may still believe in its lease."""
    candidacy = Candidacy(LEASE_S)
    candidacy.seen(0.0, 9, held=held)
    candidacy.seen(1.0, 10, held=False)
    assert not candidacy.may_take(6.1)
    assert candidacy.may_take(6.2)
    candidacy.seen(7.0, 4, held=False)
    assert not candidacy.may_take(13.0)
    assert candidacy.may_take(13.2)
