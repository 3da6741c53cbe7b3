"""What becomes of a run whose guest has failed, and how its agent comes to ask it."""

from __future__ import annotations

from msgspec import structs

from aggregator.core import events as ev
from aggregator.core.actions import SendOrder
from aggregator.core.events import RunOutcome, VmPhase, VmVerb
from aggregator.core.health import picture_fact
from aggregator.core.objects import Probe, VmSpec
from aggregator.core.state import VmRecord
from aggregator.core.views_vm import conditions_of
from fleet.guest_health import PAUSED_BY_WATCHDOG, GuestHealth, GuestProbe, GuestProbes, ProbeWay
from fleet.messages import DestroyVm, GuestPictured, SetProbes, StartVm
from fleet.model import QemuState, RunStrategy
from tests.unit.core.fleet import Fleet

PING = Probe(guest_agent_ping={}, initial_delay_seconds=60, timeout_seconds=2)
FAILED = GuestHealth(failed="no answer")


def bodies(fleet: Fleet, kind: type) -> list[object]:
    return [a.order.body for a in fleet.actions if isinstance(a, SendOrder) and isinstance(a.order.body, kind)]


def condition(fleet: Fleet, vm: VmRecord, kind: str) -> tuple[str, str, str]:
    (found,) = [each for each in conditions_of(fleet.state, vm) if each.type == kind]
    return found.status, found.reason, found.message


def site(*names: str, strategy: RunStrategy = RunStrategy.ALWAYS) -> Fleet:
    fleet = Fleet(1, {"unseenAtLeast": "5s"})
    for name in names:
        fleet.apply(name, VmSpec(run_strategy=strategy, liveness_probe=PING))
    fleet.run(3)
    return fleet


def test_a_run_is_begun_with_its_probes_and_a_change_acts_without_another_run() -> None:
    fleet = site("web")
    ping = GuestProbe(ProbeWay.PING, initial_delay_s=60.0, timeout_s=2.0)
    (begun,) = bodies(fleet, StartVm)
    assert isinstance(begun, StartVm)
    assert begun.probes == GuestProbes(liveness=ping)
    ready = Probe(http_get={"port": 8080, "path": "/healthz", "scheme": "HTTPS"}, period_seconds=5)
    fleet.apply("web", VmSpec(readiness_probe=ready))
    fleet.run(2)
    wanted = GuestProbe(ProbeWay.HTTP, port=8080, path="/healthz", scheme="https", period_s=5.0)
    assert bodies(fleet, SetProbes) == [SetProbes(1, GuestProbes(readiness=wanted))]
    assert fleet.vm("web").run == 1
    fleet.run(5)
    assert len(bodies(fleet, SetProbes)) == 1


def test_a_failed_liveness_probe_ends_the_run_as_failed_and_the_run_strategy_goes_on() -> None:
    fleet = site("web")
    fleet.says_of_guest("web", FAILED)
    assert bodies(fleet, DestroyVm) == [DestroyVm(run=1, picture=True)]
    fleet.run(3)
    ended = [e for e in fleet.happened if isinstance(e, ev.RunEnded)]
    assert [(e.outcome, e.reason) for e in ended] == [(RunOutcome.FAILED, "its guest has failed")]
    assert (fleet.vm("web").run, fleet.vm("web").phase) == (2, VmPhase.RUNNING)
    titles = [i.title for i in fleet.state.incidents.values()]
    assert titles == ["web's liveness probe failed: no answer"]
    assert not [i for i in fleet.state.incidents.values() if not i.closed]


def test_an_agent_of_the_previous_protocol_is_not_told_what_it_could_not_read() -> None:
    fleet = site("web")
    fleet.node("n1").protocol = 1
    fleet.apply("web", VmSpec())
    fleet.run(5)
    assert bodies(fleet, SetProbes) == []


def test_under_manual_it_stays_down_and_says_that_it_failed() -> None:
    fleet = site()
    fleet.apply("web", VmSpec(run_strategy=RunStrategy.MANUAL, liveness_probe=PING))
    fleet.settle(ev.VmCommanded(at=fleet.now, name="web", verb=ev.VmVerb.START))
    fleet.run(2)
    fleet.says_of_guest("web", FAILED)
    fleet.run(5)
    assert (fleet.vm("web").phase, fleet.vm("web").run_open) == (VmPhase.FAILED, False)


def test_failures_count_in_the_budget_of_restarts() -> None:
    fleet = site("web")
    for _ in range(fleet.state.config.restart.budget + 1):
        fleet.says_of_guest("web", FAILED)
        fleet.run(3)
    assert fleet.vm("web").phase is VmPhase.CRASH_LOOP_BACK_OFF


def test_a_disarmed_fleet_ends_nobody_and_says_why() -> None:
    fleet = site("web")
    fleet.settle(ev.Disarmed(at=fleet.now, node="", vm="web", selector="", until=0.0, who="me"))
    fleet.says_of_guest("web", FAILED)
    fleet.run(5)
    assert fleet.vm("web").run == 1
    status, reason, message = condition(fleet, fleet.vm("web"), "Ready")
    assert (status, reason) == ("False", "LivenessProbeFailed")
    assert "left running" in message
    fleet.settle(ev.Armed(at=fleet.now, node="", vm="web", selector="", who="me"))
    fleet.run(3)
    assert fleet.vm("web").run == 2


def test_guests_that_fail_together_are_left_alone_until_fewer_do() -> None:
    """It is rather their node, or the network to them; a restart would mend nothing and cost everything."""
    fleet = site("a", "b", "c", "d")
    for name in ("a", "b", "c"):
        fleet.says_of_guest(name, FAILED)  # not at one moment
        fleet.run(1)
    fleet.run(10)
    assert bodies(fleet, DestroyVm) == []
    assert "3 of 4 guests of n1 fail at once" in condition(fleet, fleet.vm("a"), "Ready")[2]
    for name in ("b", "c"):
        fleet.says_of_guest(name, GuestHealth())
    fleet.run(8)
    assert (fleet.vm("a").run, fleet.vm("b").run, fleet.vm("d").run) == (2, 1, 1)


def test_conditions_follow_what_the_agent_found() -> None:
    fleet = site("web")
    vm = fleet.vm("web")
    assert condition(fleet, vm, "AgentConnected")[:2] == ("False", "NoChannel")
    fleet.says_of_guest("web", GuestHealth(agent="Connected"))
    assert condition(fleet, vm, "AgentConnected")[:2] == ("True", "Connected")
    fleet.apply("web", VmSpec(readiness_probe=Probe(tcp_socket={"port": 443})))
    assert condition(fleet, vm, "Ready")[:2] == ("Unknown", "NotAsked")
    fleet.says_of_guest("web", GuestHealth(ready="False", why="10.0.0.9 port 443: Connection refused"))
    assert condition(fleet, vm, "Ready") == (
        "False",
        "ReadinessProbeFailed",
        "10.0.0.9 port 443: Connection refused",
    )
    fleet.says_of_guest("web", GuestHealth(ready="True"))
    assert condition(fleet, vm, "Ready")[0] == "True"


def test_the_end_of_a_hung_run_is_to_leave_a_picture_and_only_its_first_one_from_its_node_is_taken() -> None:
    fleet = site("web")
    fleet.deaf.add("n1")
    fleet.says_of_guest("web", FAILED)
    assert bodies(fleet, DestroyVm) == [DestroyVm(run=1, picture=True)]
    vm = fleet.vm("web")
    shown = GuestPictured(vm.uuid, 1, b"")

    def taken(node: str, told: GuestPictured, fault: str = "") -> ev.GuestPictured | None:
        return picture_fact(fleet.state, fleet.now, node, told, fault)

    assert taken("n2", shown) is None
    assert taken("n1", structs.replace(shown, run=2)) is None
    assert taken("n1", structs.replace(shown, uuid="unknown")) is None
    lacking = taken("n1", structs.replace(shown, message="it has no screen"), "no PNG")
    assert lacking is not None
    assert lacking.lacking == "it has no screen"
    fact = taken("n1", shown)
    assert fact is not None
    fleet.settle(fact)
    incident = fleet.state.incidents[fact.incident]
    assert incident.screenshot
    assert any("virtward screenshot --incident" in step.detail for step in incident.steps)
    assert taken("n1", shown) is None
    fleet.deaf.clear()
    fleet.connect("n1")
    fleet.run(3)
    assert fleet.vm("web").run == 2
    assert taken("n1", shown) is None  # the run is over


def test_a_stop_by_a_person_leaves_no_picture() -> None:
    fleet = site("web")
    fleet.settle(ev.VmCommanded(at=fleet.now, name="web", verb=VmVerb.STOP, force=True))
    assert bodies(fleet, DestroyVm) == [DestroyVm(run=1)]


def test_a_guest_that_its_watchdog_device_has_stopped_has_failed_without_a_probe() -> None:
    fleet = Fleet(1, {"unseenAtLeast": "5s"})
    fleet.apply("web", VmSpec(run_strategy=RunStrategy.RERUN_ON_FAILURE))
    fleet.run(3)
    fleet.deaf.add("n1")
    vm = fleet.vm("web")
    key = (vm.owner, vm.uuid)
    stopped = structs.replace(fleet.qemus[key], state=QemuState.PAUSED, reason="user")
    fleet.settle(fleet.reported(vm.owner, stopped))
    assert bodies(fleet, DestroyVm) == []  # a person's pause
    fleet.settle(fleet.reported(vm.owner, structs.replace(stopped, reason=PAUSED_BY_WATCHDOG)))
    assert bodies(fleet, DestroyVm) == [DestroyVm(run=1, picture=True)]
    assert fleet.state.incidents[vm.incident].title == "web's watchdog device has stopped it"
