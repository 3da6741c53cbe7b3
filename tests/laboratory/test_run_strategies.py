"""The table of run strategies with real guests: each way a run can end and each order, under each strategy.

The same table without a hypervisor, with every cell, is tests/unit/api/test_run_strategies.py. Judged by the guests'
own boots and the process table; virtward's word is only compared with them.
"""

from __future__ import annotations

import re
from functools import partial

import pytest

from cli.client import Refused
from lab.manifest import GuestKind
from lab.scene import Scene
from tests.laboratory.scenes import SceneMaker

pytestmark = [pytest.mark.laboratory, pytest.mark.slow, pytest.mark.timeout(300)]

RUNNING = ("Always", "RerunOnFailure", "Manual", "Once")
"""The strategies under which a VM can have a run; Halted has none."""
ENDS = {"poweroff": "Succeeded", "destroy": "Succeeded", "kill": "Failed", "panic": "Failed"}
"""What happens to a guest, and how its run has ended by that."""
AGAIN = {
    "Succeeded": {"Always"},
    "Failed": {"Always", "RerunOnFailure"},
}
"""Under which strategies a run that ended so is followed by another."""
TICK_MS = 500  # sixteen emulated guests share the machine


def lower(strategy: str) -> str:
    """A VM's name for a strategy: always, rerun-on-failure …."""
    return re.sub("(?<=.)([A-Z])", r"-\1", strategy).lower()


def applied(fleet: Scene, name: str, strategy: str, host: str) -> None:
    """Apply a tiny guest under a strategy; where that does not run it by itself, by order."""
    manifest = fleet.laboratory.vm(name, GuestKind.TINY, host=host, tick_ms=TICK_MS)
    fleet.apply_text(manifest.replace("runStrategy: Always", f"runStrategy: {strategy}"))
    if strategy == "Manual":
        fleet.verb("vms", name, "start")


def ended(fleet: Scene, name: str, how: str) -> None:
    """End a guest's run in one of the ways."""
    if how == "kill":
        fleet.send(f"qemu:{name}", "KILL")
    elif how == "destroy":
        fleet.laboratory.virsh(fleet.where()[name], "destroy", name)
    else:
        fleet.laboratory.order_guest(name, how)


def runs_again(fleet: Scene, name: str) -> bool:
    """Whether a guest has booted once more, counts, and virtward says so."""
    return fleet.starts(name) == 2 and fleet.counts(name) and fleet.phase(name) == "Running"


def is_down(fleet: Scene, name: str, phase: str) -> bool:
    """Whether no QEMU of it runs, it has booted once only, and virtward gives the reason."""
    return name not in fleet.where() and fleet.starts(name) == 1 and fleet.phase(name) == phase


def refused(fleet: Scene, name: str, verb: str) -> None:
    """An order that the table answers with 409."""
    with pytest.raises(Refused) as error:
        fleet.verb("vms", name, verb)
    assert error.value.code == 409, (name, verb, str(error.value))


def strategy_of(fleet: Scene, name: str) -> str:
    return fleet.field("vms", name, "spec.runStrategy")


def all_of(fleet: Scene, expected: dict[str, str]) -> bool:
    """Whether each VM is as expected: "again", or the phase in which it stays down."""
    return all(runs_again(fleet, n) if how == "again" else is_down(fleet, n, how) for n, how in expected.items())


def test_every_end_of_a_run_under_every_strategy(scene: SceneMaker) -> None:
    """Power-off, virsh destroy, kill -9 of QEMU and guest panic: started again exactly where the table says so."""
    cells = {f"{lower(strategy)}-{how}": (strategy, how) for strategy in RUNNING for how in ENDS}
    fleet = scene(*cells, hosts=2)
    for number, (name, (strategy, _how)) in enumerate(cells.items()):
        applied(fleet, name, strategy, f"h{number % 2 + 1}")
    fleet.wait(fleet.all_count_once, "all sixteen guests to count")
    for name, (_strategy, how) in cells.items():
        ended(fleet, name, how)
    expected = {name: "again" if strategy in AGAIN[ENDS[how]] else ENDS[how] for name, (strategy, how) in cells.items()}
    assert list(expected.values()).count("again") == 6
    fleet.wait(partial(all_of, fleet, expected), f"each guest to be as the table says: {expected}")
    assert fleet.faults() == []


def test_every_order_under_every_strategy(scene: SceneMaker) -> None:
    """start, stop and restart, with the refusals, and what stop and start make of the strategy."""
    names = {lower(strategy): strategy for strategy in (*RUNNING, "Halted")}
    fleet = scene(*names, hosts=2)
    for name, strategy in names.items():
        applied(fleet, name, strategy, "h1")
    began = [name for name in names if name != "halted"]
    fleet.wait(lambda: all(fleet.counts(name) for name in began), "the four that run to count")
    for name in began:
        refused(fleet, name, "start")
    refused(fleet, "halted", "stop")
    refused(fleet, "halted", "restart")
    refused(fleet, "once", "restart")
    restarted = ("always", "rerun-on-failure", "manual")
    for name in restarted:
        fleet.verb("vms", name, "restart")
    fleet.wait(lambda: all(runs_again(fleet, name) for name in restarted), "the three to have been restarted")
    assert fleet.starts("once") == 1
    for name in began:
        fleet.verb("vms", name, "stop")
    fleet.wait(lambda: all(fleet.phase(name) == "Stopped" for name in began), "the four to be stopped")
    assert fleet.laboratory.sample().vms == {}
    becomes = {"always": "Halted", "rerun-on-failure": "RerunOnFailure", "manual": "Manual", "once": "Halted"}
    assert {name: strategy_of(fleet, name) for name in began} == becomes
    for name in began:
        refused(fleet, name, "stop")
    for name in ("rerun-on-failure", "manual", "halted", "always"):  # always was made Halted by its stop
        fleet.verb("vms", name, "start")
    started = {"rerun-on-failure": 3, "manual": 3, "halted": 1, "always": 3}
    fleet.wait(lambda: all(fleet.counts(name) for name in started), "the four that were started to count")
    assert {name: fleet.starts(name) for name in started} == started
    assert (strategy_of(fleet, "halted"), strategy_of(fleet, "always")) == ("Always", "Always")
    assert fleet.faults() == []


def test_a_host_that_loses_its_power_under_every_strategy(scene: SceneMaker) -> None:
    """The loss of the node is a failed run: two come back elsewhere, two stay down and say Failed."""
    names = {lower(strategy): strategy for strategy in RUNNING}
    fleet = scene(*names)
    for name, strategy in names.items():
        applied(fleet, name, strategy, "h1")
    fleet.wait(fleet.all_count_once, "the four to count")
    assert set(fleet.where().values()) == {"h1"}
    fleet.laboratory.power("h1", "off")
    expected = {"always": "again", "rerun-on-failure": "again", "manual": "Failed", "once": "Failed"}
    fleet.wait(partial(all_of, fleet, expected), "two to run elsewhere and two to stay down")
    fleet.laboratory.power("h1", "on")
    fleet.wait(lambda: fleet.node_state("h1") == "Up", "h1 to be Up again")
    assert all_of(fleet, expected)
    assert fleet.faults() == []
