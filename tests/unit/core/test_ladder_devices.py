"""Rungs with several devices, rungs that listen for a crash kernel, and what is never believed."""

from __future__ import annotations

import pytest
from msgspec import structs

from aggregator.core import events as ev
from aggregator.core.actions import AskFence
from aggregator.core.events import Event, NodeState, PowerAnswer, ProofKind
from aggregator.core.objects import FencingDevice, FencingRung
from aggregator.core.views_vm import fencing_problem, is_fenceable
from tests.unit.core.fleet import Fleet
from tests.unit.core.test_ladder import with_ladder
from tests.unit.core.test_node_failure import fleet_with_vms

FEEDS = tuple(
    FencingDevice(agent="fence_apc", params={"ip": f"10.9.1.{number}", "plug": "4"}, identity="Operator")
    for number in (1, 2)
)
TWO_SUPPLIES = FencingRung(devices=FEEDS)
LISTENER = FencingRung(
    agent="fence_kdump", params={"nodename": "10.1.0.1"}, proof="CrashKernel", timeout="20s", identity="InBand"
)


class Bench:
    """A fleet of three whose n1 has a ladder of its own; each device of it answers what the test wrote for it."""

    def __init__(self, *rungs: FencingRung) -> None:
        self.fleet = fleet_with_vms()
        self.says: dict[str, PowerAnswer] = {}  # ip -> answer to status
        self.off: dict[str, PowerAnswer] = {}  # ip -> answer to off
        self.hears: PowerAnswer = PowerAnswer.ERROR
        self._others = self.fleet._device
        self.fleet._device = self._device  # type: ignore[method-assign]
        with_ladder(self.fleet, "n1", rungs)
        self.fleet.run(15)

    def _device(self, action: AskFence) -> Event:
        ip = action.rung.params.get("ip", "")
        if action.question == "listen":
            return self._answer(action, self.hears)
        if not ip.startswith("10.9.1."):
            return self._others(action)
        if action.question != "off":
            return self._answer(action, self.says.get(ip, PowerAnswer.ON))
        answer = self.off.get(ip, PowerAnswer.DONE)
        if answer is PowerAnswer.DONE:
            self.says[ip] = PowerAnswer.OFF
        if all(self.says.get(f"10.9.1.{n}") is PowerAnswer.OFF for n in (1, 2)):
            self.fleet.silent.add("n1")
        return self._answer(action, answer)

    def _answer(self, action: AskFence, answer: PowerAnswer) -> Event:
        return ev.FenceAnswered(
            at=self.fleet.now,
            node=action.node,
            question_id=action.question_id,
            answer=answer,
            asked_at=self.fleet.now,
            line=f"says {answer}",
        )

    def offs(self) -> list[str]:
        """Return the addresses that were ordered off, in order."""
        asked = [a for a in self.fleet.actions if isinstance(a, AskFence) and a.question == "off"]
        return [action.rung.params["ip"] for action in asked]


def hang(fleet: Fleet) -> None:
    """n1 does nothing any more, and its devices say on."""
    fleet.silent.add("n1")


def test_two_power_supplies_are_ordered_off_together_and_prove_together() -> None:
    bench = Bench(TWO_SUPPLIES)
    assert is_fenceable(bench.fleet.node("n1"))
    hang(bench.fleet)
    bench.fleet.run_until(bench.fleet.is_in("n1", NodeState.FENCED), 30)
    assert bench.offs() == ["10.9.1.1", "10.9.1.2"]
    inert = bench.fleet.node("n1").inert
    assert inert is not None
    assert (inert.proof, inert.detail) == (
        ProofKind.POWER_OFF,
        "fence_apc and fence_apc said off twice after our off order",
    )
    assert len(bench.fleet.state.off_orders) == 1


def test_one_supply_that_stays_on_keeps_the_node_alive() -> None:
    """Half the power is all the power: no proof, whatever the other one says and however often."""
    bench = Bench(TWO_SUPPLIES)
    bench.off["10.9.1.2"] = PowerAnswer.ERROR
    hang(bench.fleet)
    bench.fleet.run_until(lambda: "FenceFailed n1" in bench.fleet.story(), 60)
    bench.fleet.run(60)
    assert bench.fleet.node("n1").state is NodeState.LOST
    assert bench.fleet.node("n1").inert is None
    assert bench.offs() == ["10.9.1.1", "10.9.1.2"] * 2


@pytest.mark.parametrize("dark", ["10.9.1.1", "10.9.1.2"])
def test_every_device_of_a_rung_has_to_be_ready(dark: str) -> None:
    bench = Bench()
    bench.says[dark] = PowerAnswer.ERROR
    with_ladder(bench.fleet, "n1", (TWO_SUPPLIES,))
    bench.fleet.run(15)
    assert not is_fenceable(bench.fleet.node("n1"))
    assert fencing_problem(bench.fleet.node("n1")) == "says Error"
    hang(bench.fleet)
    bench.fleet.run(60)
    assert bench.offs() == []


def test_a_supply_found_off_while_the_node_beats_is_another_machines() -> None:
    bench = Bench(TWO_SUPPLIES)
    bench.says["10.9.1.2"] = PowerAnswer.OFF
    bench.fleet.run(20)
    assert "DeviceDistrusted n1" in bench.fleet.story()
    assert not is_fenceable(bench.fleet.node("n1"))


def test_two_supplies_found_off_one_after_the_other_are_a_proof_from_when_both_are() -> None:
    bench = Bench(TWO_SUPPLIES)
    hang(bench.fleet)
    bench.fleet.run(3.5)
    bench.says["10.9.1.1"] = PowerAnswer.OFF
    bench.fleet.run(1.5)
    assert bench.fleet.node("n1").state is NodeState.SUSPECT
    bench.says["10.9.1.2"] = PowerAnswer.OFF
    bench.fleet.run_until(bench.fleet.is_in("n1", NodeState.FENCED), 4)
    assert bench.offs() == []


def test_a_dead_controller_is_passed_and_the_outlet_below_it_proves() -> None:
    controller = FencingRung(agent="fence_ipmilan", params={"ip": "10.9.0.2"})
    bench = Bench(structs.replace(controller, identity="Operator"), TWO_SUPPLIES)
    bench.fleet.power["n1"] = bench.fleet.off_answer["n1"] = PowerAnswer.TIMEOUT
    hang(bench.fleet)
    bench.fleet.run_until(bench.fleet.is_in("n1", NodeState.FENCED), 60)
    assert bench.offs() == ["10.9.0.2", "10.9.0.2", "10.9.1.1", "10.9.1.2"]


def test_a_crash_kernel_that_is_heard_proves_without_a_shot() -> None:
    bench = Bench(LISTENER, TWO_SUPPLIES)
    hang(bench.fleet)
    bench.fleet.run(5)
    bench.hears = PowerAnswer.CRASHED
    bench.fleet.run_until(bench.fleet.is_in("n1", NodeState.FENCED), 5)
    inert = bench.fleet.node("n1").inert
    assert inert is not None
    assert inert.proof is ProofKind.CRASH_KERNEL
    assert bench.offs() == []
    bench.fleet.run(120)
    assert "on" not in [a.question for a in bench.fleet.actions if isinstance(a, AskFence) and a.node == "n1"]


def test_a_listener_above_the_power_gets_its_time_and_no_more() -> None:
    """20 s in which a dump may be written, then the outlets."""
    bench = Bench(LISTENER, TWO_SUPPLIES)
    began = bench.fleet.now
    hang(bench.fleet)
    bench.fleet.run_until(lambda: bool(bench.offs()), 60)
    assert 20 <= bench.fleet.now - began <= 27
    bench.fleet.run_until(bench.fleet.is_in("n1", NodeState.FENCED), 10)


def test_a_listener_for_a_strange_address_hears_nothing_that_counts() -> None:
    strange = structs.replace(LISTENER, params={"nodename": "10.1.0.77"})
    bench = Bench(strange)
    bench.hears = PowerAnswer.CRASHED
    hang(bench.fleet)
    bench.fleet.run(60)
    assert bench.fleet.node("n1").inert is None
    assert not [a for a in bench.fleet.actions if isinstance(a, AskFence) and a.question == "listen"]


def test_a_listener_alone_makes_no_node_fenceable() -> None:
    bench = Bench(LISTENER)
    assert not is_fenceable(bench.fleet.node("n1"))


@pytest.mark.parametrize(
    ("agent", "params"),
    [
        ("fence_scsi", {"ip": "10.9.1.1"}),
        ("fence_ifmib", {"ip": "10.9.1.1"}),
        ("fence_dummy", {"ip": "10.9.1.1"}),
        ("fence_sbd", {"ip": "10.9.1.1"}),
        ("fence_ec2", {"ip": "10.9.1.1", "missing_as_off": "1"}),
        ("fence_ec2", {"ip": "10.9.1.1", "missing-as-off": "true"}),
    ],
)
def test_what_leaves_a_machine_running_never_proves_that_it_is_off(agent: str, params: dict[str, str]) -> None:
    """Even where a person vouches for it and it says on and off as if it were asked by the book."""
    rung = FencingRung(agent=agent, params=params, identity="Operator")
    for rungs in ((rung,), (structs.replace(TWO_SUPPLIES, devices=(*FEEDS, devices(rung))),)):
        bench = Bench(*rungs)
        bench.fleet.silent.add("n1")
        bench.says["10.9.1.1"] = bench.says["10.9.1.2"] = PowerAnswer.OFF
        bench.fleet.run(60)
        assert bench.fleet.node("n1").inert is None


def devices(rung: FencingRung) -> FencingDevice:
    """Return a rung's one device."""
    return FencingDevice(agent=rung.agent, params=rung.params, identity=rung.identity)
