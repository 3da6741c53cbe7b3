"""Profile and weights are settings of the running fleet: the next VM is placed by the new ones, no other moves."""

from __future__ import annotations

import msgspec

from aggregator.core import events as ev
from aggregator.core.objects import VmSpec
from tests.unit.core.fleet import LABORATORY, Fleet
from tests.unit.placement.builders import HOST


def configure(fleet: Fleet, **changed: object) -> None:
    fleet.settle(ev.ConfigChanged(at=fleet.now, config={**LABORATORY, **changed}))
    fleet.run(1)


def place(fleet: Fleet, name: str, **spec: object) -> str:
    """Apply a VM and return where it was started."""
    fleet.apply(name, msgspec.convert({"runStrategy": "Always", **spec}, VmSpec))
    fleet.run(3)
    return fleet.vm(name).owner


def test_the_profile_is_changed_at_run_time() -> None:
    fleet = Fleet()
    first = place(fleet, "first", nodeSelector={HOST: "n2"})
    assert first == "n2"
    assert place(fleet, "low") != "n2"
    low = fleet.vm("low").owner
    configure(fleet, profile="HighNodeUtilization")
    assert place(fleet, "big", nodeSelector={HOST: "n2"}) == "n2"
    assert place(fleet, "high") == "n2"
    configure(fleet, profile="NoScoring")
    assert {place(fleet, f"any-{number}") for number in range(3)} == {"n1", "n2", "n3"}
    configure(fleet, profile="LowNodeUtilization")
    assert place(fleet, "low-again") != "n2"
    assert (fleet.vm("first").owner, fleet.vm("low").owner) == ("n2", low)
    assert not fleet.state.migrations


def test_weights_are_changed_at_run_time() -> None:
    fleet = Fleet()
    wish = {"weight": 1, "preference": {"matchExpressions": [{"key": HOST, "operator": "In", "values": ["n2"]}]}}
    towards = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [wish]}}
    for number in range(4):
        place(fleet, f"first-{number}", nodeSelector={HOST: "n2"})
    configure(fleet, placement={"weights": {"NodeAffinity": 0}})
    assert place(fleet, "ignores-its-wish", affinity=towards) != "n2"
    configure(fleet, placement={"weights": {"NodeAffinity": 9}})
    assert place(fleet, "follows-its-wish", affinity=towards) == "n2"
    choice = fleet.vm("follows-its-wish").choice
    assert choice is not None
    assert choice.weights["NodeAffinity"] == 9
