"""isolationPolicy as the aggregator sees it: who is told what, and what a run ended by its agent comes to."""

from __future__ import annotations

import pytest

from aggregator.core import events as ev
from aggregator.core.events import RunOutcome, VmVerb
from aggregator.core.objects import VmSpec
from fleet.messages import Order, SetIsolation, StartVm
from fleet.model import EndReason, Isolation, IsolationPolicy, RunStrategy
from tests.unit.core.fleet import Fleet


def orders(fleet: Fleet) -> list[Order]:
    return [event.order for event in fleet.happened if isinstance(event, ev.OrderIssued)]


def test_a_start_carries_the_policy_the_lease_and_the_grace() -> None:
    fleet = Fleet(config={"lease": "9s", "unseenAtLeast": "5s"})
    policy = IsolationPolicy.SHUTDOWN
    fleet.apply(
        "v", VmSpec(run_strategy=RunStrategy.ALWAYS, isolation_policy=policy, termination_grace_period_seconds=7)
    )
    fleet.run(2)
    (start,) = orders(fleet)
    assert isinstance(start.body, StartVm)
    assert start.body.isolation == Isolation(policy, 9.0, 7.0, restart=True)


def test_a_policy_that_is_changed_is_ordered_once_to_the_runs_owner() -> None:
    fleet = Fleet()
    fleet.apply("v")
    fleet.run(2)
    fleet.apply("v", VmSpec(run_strategy=RunStrategy.ALWAYS, isolation_policy=IsolationPolicy.DESTROY))
    fleet.run(20)
    told = [order for order in orders(fleet) if isinstance(order.body, SetIsolation)]
    assert [(order.body.run, order.body.isolation.policy) for order in told] == [(1, "Destroy")]  # type: ignore[union-attr]
    assert fleet.vm("v").isolation_told.policy is IsolationPolicy.DESTROY


@pytest.mark.parametrize(
    ("strategy", "again"),
    [(RunStrategy.ALWAYS, True), (RunStrategy.RERUN_ON_FAILURE, True), (RunStrategy.MANUAL, False)],
)
def test_a_run_that_its_agent_ended_was_evicted(strategy: RunStrategy, *, again: bool) -> None:
    fleet = Fleet()
    fleet.apply("v", VmSpec(run_strategy=strategy))
    if strategy is RunStrategy.MANUAL:
        fleet.settle(ev.VmCommanded(at=fleet.now, name="v", verb=VmVerb.START))
    fleet.run(2)
    fleet.ends("v", EndReason.ISOLATED)
    fleet.run(30)
    assert fleet.vm("v").outcome is RunOutcome.EVICTED
    assert fleet.vm("v").run == (2 if again else 1)
    assert fleet.vm("v").restarts == []  # it is not the guest's failure
