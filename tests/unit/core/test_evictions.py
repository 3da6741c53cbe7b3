"""VMs that have to leave: NoExecute taints and for how long they are tolerated, pauses, turns, who goes before whom."""

from __future__ import annotations

import pytest
from msgspec import structs

from aggregator.core import events as ev
from aggregator.core.events import RunOutcome
from aggregator.core.labels import RACK
from aggregator.core.objects import Dependency, Taint, TaintEffect, Toleration, VmSpec
from aggregator.core.taint_eviction import leaves_at
from aggregator.core.views_drain import drain_plan, drain_view, plan_eta_s
from aggregator.core.views_vm import vm_view
from fleet.messages import MigrateVm
from fleet.model import EvictionStrategy, OrderOutcome, QemuState, RunStrategy
from tests.unit.core.fleet import Fleet
from tests.unit.core.test_moves import issued, running_on

TAINT = Taint(key="sick", value="yes", effect=TaintEffect.NO_EXECUTE)


def taint(fleet: Fleet, node: str, *taints: Taint) -> None:
    dated = tuple(structs.replace(each, time_added=f"{fleet.now:.3f}") for each in taints)
    spec = structs.replace(fleet.node(node).spec, taints=dated)
    fleet.settle(ev.NodeApplied(at=fleet.now, name=node, labels=fleet.node(node).labels, spec=spec))


def spec_of(fleet: Fleet, name: str, **changes: object) -> None:
    vm = fleet.vm(name)
    spec = structs.replace(vm.spec, **changes)
    fleet.settle(
        ev.VmApplied(
            at=fleet.now, name=name, uuid=vm.uuid, spec=spec, labels={}, cpu_m=vm.cpu_m, memory_bytes=vm.memory_bytes
        )
    )


def tolerating(seconds: int | None) -> tuple[Toleration, ...]:
    return (Toleration(key="sick", operator="Exists", effect="NoExecute", toleration_seconds=seconds),)


def test_a_no_execute_taint_moves_what_runs_there_live() -> None:
    fleet = Fleet()
    running_on(fleet, "v", "n1")
    taint(fleet, "n1", TAINT)
    fleet.run(5)
    vm = fleet.vm("v")
    assert (vm.owner != "n1", vm.run, vm.eviction) == (True, 1, None)
    assert issued(fleet, MigrateVm) == ["n1"]


def test_other_effects_move_nothing() -> None:
    fleet = Fleet()
    running_on(fleet, "v", "n1")
    taint(fleet, "n1", structs.replace(TAINT, effect=TaintEffect.NO_SCHEDULE))
    fleet.run(30)
    assert fleet.vm("v").owner == "n1"
    assert issued(fleet, MigrateVm) == []


@pytest.mark.parametrize(("seconds", "moved_after"), [(0, 1), (20, 20), (None, None)])
def test_a_toleration_keeps_it_for_its_seconds(seconds: int | None, moved_after: int | None) -> None:
    fleet = Fleet()
    running_on(fleet, "v", "n1")
    spec_of(fleet, "v", tolerations=tolerating(seconds))
    taint(fleet, "n1", TAINT)
    if seconds != 0:
        fleet.run((moved_after or 60) - 0.5)
        assert fleet.vm("v").owner == "n1"
    fleet.run(5)
    assert (fleet.vm("v").owner == "n1") is (moved_after is None)


def test_the_seconds_count_from_the_taint_across_a_restart_of_the_aggregator() -> None:
    fleet = Fleet()
    running_on(fleet, "v", "n1")
    spec_of(fleet, "v", tolerations=tolerating(30))
    taint(fleet, "n1", TAINT)
    fleet.run(20)
    fleet.restart()
    for name in ("n1", "n2", "n3"):
        fleet.connect(name)
    fleet.run_until(lambda: fleet.vm("v").owner != "n1", 30)
    since = float(fleet.node("n1").spec.taints[0].time_added or 0)
    assert 30.0 <= fleet.now - since <= 50.0


@pytest.mark.parametrize(
    ("tolerations", "taints", "expected"),
    [
        ((), (("a", 10.0),), 10.0),
        ((), (("a", 10.0), ("b", 5.0)), 5.0),
        ((("a", 7),), (("a", 10.0),), 17.0),
        ((("a", None),), (("a", 10.0),), float("inf")),
        ((("a", None),), (("a", 10.0), ("b", 5.0)), 5.0),
        ((("a", 7), ("a", 3)), (("a", 10.0),), 13.0),
        ((("a", 7), ("b", 1)), (("a", 10.0), ("b", 10.0)), 11.0),
        ((), (), float("inf")),
    ],
)
def test_the_first_taint_that_is_no_longer_tolerated_counts(
    tolerations: tuple[tuple[str, int | None], ...], taints: tuple[tuple[str, float], ...], expected: float
) -> None:
    fleet = Fleet()
    own = tuple(Toleration(key=k, operator="Exists", effect="NoExecute", toleration_seconds=s) for k, s in tolerations)
    fleet.apply("v", VmSpec(tolerations=own))
    there = [Taint(key=k, effect=TaintEffect.NO_EXECUTE, time_added=f"{at:.3f}") for k, at in taints]
    assert leaves_at(fleet.vm("v"), there)[0] == expected


def test_a_vm_that_cannot_move_keeps_running_and_says_why_and_which_node_it_has_to_leave() -> None:
    fleet = Fleet()
    running_on(fleet, "v", "n1")
    report = fleet.vm("v").reports["n1"].report
    fleet.settle(fleet.reported("n1", structs.replace(report, not_migratable="it has a host device")))
    taint(fleet, "n1", TAINT)
    fleet.run(10)
    status = vm_view(fleet.state, fleet.vm("v")).status
    assert status is not None
    assert (status.node, status.evacuation_node_name) == ("n1", "n1")
    assert "it has a host device" in status.evacuation_reason
    taint(fleet, "n1")
    fleet.run(1)
    status = vm_view(fleet.state, fleet.vm("v")).status
    assert status is not None
    assert (status.evacuation_node_name, status.evacuation_reason) == ("", "")


def test_a_failed_eviction_is_tried_again_later_and_later() -> None:
    fleet = Fleet()
    running_on(fleet, "v", "n1")
    fleet.refuse_migrate = OrderOutcome.FAILED
    taint(fleet, "n1", TAINT)
    fleet.run(130)
    tries = len(issued(fleet, MigrateVm))
    assert tries == 3  # 0, 20, 60 s after one another, and the next one after 140
    fleet.refuse_migrate = None
    fleet.run_until(lambda: fleet.vm("v").owner != "n1", 60)


@pytest.mark.parametrize(
    ("strategy", "run_strategy", "becomes"),
    [
        (EvictionStrategy.NONE, RunStrategy.ALWAYS, "started elsewhere"),
        (EvictionStrategy.NONE, RunStrategy.MANUAL, "down"),
        (EvictionStrategy.EXTERNAL, RunStrategy.ALWAYS, "left"),
    ],
)
def test_eviction_strategies_hold_for_taints_too(
    strategy: EvictionStrategy, run_strategy: RunStrategy, becomes: str
) -> None:
    fleet = Fleet()
    running_on(fleet, "v", "n1")
    spec_of(fleet, "v", eviction_strategy=strategy, run_strategy=run_strategy)
    taint(fleet, "n1", TAINT)
    fleet.run(10)
    vm = fleet.vm("v")
    if becomes == "left":
        assert (vm.owner, vm.run, vm.run_open) == ("n1", 1, True)
        assert vm.eviction is not None
        assert "External" in vm.eviction.blocked
    elif becomes == "down":
        assert (vm.run_open, vm.outcome) == (False, RunOutcome.EVICTED)
    else:
        assert (vm.run_open, vm.run, vm.owner != "n1") == (True, 2, True)


def test_what_depends_on_a_vm_is_shut_down_before_it() -> None:
    fleet = Fleet()
    for name in ("db", "web"):
        running_on(fleet, name, "n1")
        spec_of(fleet, name, eviction_strategy=EvictionStrategy.NONE)
    spec_of(fleet, "web", depends_on=(Dependency(vm="db"),))
    fleet.deaf.add("n1")  # the guests take their time
    fleet.settle(ev.DrainRequested(at=fleet.now, node="n1"))
    fleet.run(3)
    assert (fleet.vm("web").stopping, fleet.vm("db").stopping) == (RunOutcome.EVICTED, None)
    assert "after web" in fleet.state.drains["n1"].blocked["db"]


def test_two_that_depend_on_each_other_do_not_wait_for_ever() -> None:
    fleet = Fleet()
    for name, other in (("a", "b"), ("b", "a")):
        running_on(fleet, name, "n1")
        spec_of(fleet, name, eviction_strategy=EvictionStrategy.NONE, depends_on=(Dependency(vm=other),))
    fleet.settle(ev.DrainRequested(at=fleet.now, node="n1"))
    fleet.run_until(lambda: fleet.state.drains["n1"].state == "Done", 60)


def test_a_paused_drain_begins_nothing_more_and_goes_on_when_resumed() -> None:
    fleet = Fleet(config={"migration": {"outboundPerNodeMax": 1}})
    for name in ("a", "b", "c"):
        running_on(fleet, name, "n1")
    fleet.deaf.add("n1")
    fleet.settle(ev.DrainRequested(at=fleet.now, node="n1"))
    fleet.run(2)
    assert len(issued(fleet, MigrateVm)) == 1
    fleet.settle(ev.DrainPaused(at=fleet.now, node="n1", paused=True))
    fleet.deaf.clear()
    fleet.mend("n1")
    fleet.run(30)
    assert fleet.state.drains["n1"].state == "Paused"
    assert len(issued(fleet, MigrateVm)) == 1
    fleet.settle(ev.DrainPaused(at=fleet.now, node="n1", paused=False))
    fleet.run_until(lambda: fleet.state.drains["n1"].state == "Done", 60)


def test_a_deadline_ends_a_paused_drain_and_calls_off_what_was_queued() -> None:
    fleet = Fleet(config={"migration": {"outboundPerNodeMax": 1}})
    for name in ("a", "b"):
        running_on(fleet, name, "n1")
    fleet.deaf.add("n1")
    fleet.settle(ev.DrainRequested(at=fleet.now, node="n1", deadline_s=10))
    fleet.settle(ev.DrainPaused(at=fleet.now, node="n1", paused=True))
    fleet.run(12)
    assert fleet.state.drains["n1"].state == "Expired"
    assert fleet.node("n1").drain == "n1"  # in maintenance until uncordon
    assert [m.phase for m in fleet.state.migrations.values()] == ["Running", "Cancelled"]


def job(fleet: Fleet, *nodes: tuple[str, str]) -> None:
    for turn, (node, domain) in enumerate(nodes):
        fleet.settle(ev.DrainRequested(at=fleet.now, node=node, job="j", domain=domain, turn=turn))


def test_the_drains_of_a_job_go_one_failure_domain_after_another() -> None:
    fleet = Fleet(nodes=5)
    job(fleet, ("n1", "r1"), ("n2", "r1"), ("n3", "r2"))
    fleet.run(3)
    drains = fleet.state.drains
    assert [drains[n].state for n in ("n1", "n2", "n3")] == ["Done", "Done", "Waiting"]
    assert not fleet.node("n3").drain
    shown = drain_view(fleet.state, drains["n3"]).status
    assert shown.waits_for == "n1 is in maintenance; virtward uncordon n1 when it is done"
    fleet.settle(ev.DrainCancelled(at=fleet.now, node="n1"))
    fleet.run(3)
    assert drains["n3"].state == "Waiting"
    fleet.settle(ev.DrainCancelled(at=fleet.now, node="n2"))
    fleet.run(3)
    assert drains["n3"].state == "Done"


def test_no_turn_comes_while_another_node_is_not_up() -> None:
    fleet = Fleet(nodes=5)
    fleet.silent.add("n5")
    fleet.run(10)
    job(fleet, ("n1", "n1"))
    fleet.run(3)
    drain = fleet.state.drains["n1"]
    assert drain.state == "Waiting"
    assert drain_view(fleet.state, drain).status.waits_for == "n5 is not Up"
    fleet.settle(ev.DrainCancelled(at=fleet.now, node="n1"))
    assert fleet.state.drains["n1"].state == "Cancelled"


def test_a_plan_says_the_wave_and_the_time_where_the_link_is_known() -> None:
    fleet = Fleet(config={"migration": {"outboundPerNodeMax": 2}})
    for name in ("a", "b", "c"):
        running_on(fleet, name, "n1")
    plan = drain_plan(fleet.state, "n1", force=False)
    assert [(step.vm, step.wave, step.eta_seconds) for step in plan] == [("a", 1, None), ("b", 1, None), ("c", 2, None)]
    assert plan_eta_s(plan) is None
    spec = structs.replace(fleet.node("n1").spec, migration_bandwidth="100Mi")
    fleet.settle(ev.NodeApplied(at=fleet.now, name="n1", labels={RACK: "r"}, spec=spec))
    plan = drain_plan(fleet.state, "n1", force=False)
    one = fleet.vm("a").memory_bytes / (50 * 1024 * 1024)  # two at once share the link
    assert [step.eta_seconds for step in plan] == pytest.approx([one] * 3, abs=0.06)
    assert plan_eta_s(plan) == pytest.approx(2 * one, abs=0.2)


def test_a_guest_that_runs_is_seen_to_run_after_all_of_it() -> None:
    fleet = Fleet()
    running_on(fleet, "v", "n1")
    taint(fleet, "n1", TAINT)
    fleet.run(10)
    vm = fleet.vm("v")
    assert vm.reports[vm.owner].report.state is QemuState.RUNNING
