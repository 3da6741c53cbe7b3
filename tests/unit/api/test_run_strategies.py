"""The table of run strategies, each row and column, through the API and the core: what is started, and the 409s.

A run that ended well is not started again but by Always; one that failed is, but by Manual and Once. That a node's
loss and an eviction count as they should is in tests/unit/core; real guests go through it in the laboratory.
"""

from __future__ import annotations

import pytest

from aggregator.core.events import RunOutcome
from fleet.model import EndReason
from tests.unit.api.conftest import Api
from tests.unit.api.manifests import a_vm
from tests.unit.api.world import World

VM = "/api/v1/vms/web-1"
LONG_S = 60  # longer than any back-off of a first restart


async def order(api: Api, verb: str) -> int:
    return (await api("POST", f"{VM}:{verb}")).status


async def applied(api: Api, world: World, strategy: str, seconds: float = LONG_S) -> None:
    await api("PUT", VM, a_vm(strategy=strategy))
    world.run(seconds)


async def running(api: Api, world: World, strategy: str) -> None:
    """Apply a VM and let it run, by name where its strategy does not."""
    await applied(api, world, strategy, 2)
    if strategy == "Manual":
        assert await order(api, "start") == 200
        world.run(2)
    assert runs(world) == (1, True)


async def ended(api: Api, world: World, strategy: str, end: EndReason, seconds: float = LONG_S) -> None:
    await running(api, world, strategy)
    world.core.ends("web-1", end)
    world.run(seconds)


def runs(world: World) -> tuple[int, bool]:
    """Return how many runs there were, and whether there is one."""
    record = world.state.vms["web-1"]
    return record.run, record.run_open


def strategy_of(world: World) -> str:
    return str(world.state.vms["web-1"].spec.run_strategy)


@pytest.mark.parametrize(
    ("strategy", "begun"), [("Always", 1), ("RerunOnFailure", 1), ("Manual", 0), ("Halted", 0), ("Once", 1)]
)
class TestAppearing:
    async def test_object_created(self, api: Api, world: World, strategy: str, begun: int) -> None:
        await applied(api, world, strategy)
        assert runs(world) == (begun, bool(begun))

    async def test_switched_to_this_one_before_any_run(self, api: Api, world: World, strategy: str, begun: int) -> None:
        await applied(api, world, "Manual" if strategy == "Halted" else "Halted", 5)
        await applied(api, world, strategy)
        assert runs(world) == (begun, bool(begun))


@pytest.mark.parametrize(
    ("before", "strategy", "in_all"),
    [
        ("Once", "Always", 2),
        ("Once", "RerunOnFailure", 2),  # once under this strategy, whatever ran before
        ("Once", "Manual", 1),
        ("Once", "Halted", 1),
        ("RerunOnFailure", "Once", 1),  # it has run
    ],
)
async def test_switched_to_this_one_after_a_run(
    api: Api, world: World, before: str, strategy: str, in_all: int
) -> None:
    await ended(api, world, before, EndReason.POWEROFF, 5)
    assert runs(world) == (1, False)
    await applied(api, world, strategy)
    assert runs(world) == (in_all, in_all > 1)


async def test_a_run_that_was_started_by_a_switch_to_rerun_on_failure_is_the_only_one(api: Api, world: World) -> None:
    await ended(api, world, "Once", EndReason.POWEROFF, 5)
    await applied(api, world, "RerunOnFailure", 5)
    world.core.ends("web-1", EndReason.POWEROFF)
    world.run(LONG_S)
    assert runs(world) == (2, False)


@pytest.mark.parametrize("end", [EndReason.POWEROFF, EndReason.DESTROYED])
@pytest.mark.parametrize(("strategy", "in_all"), [("Always", 2), ("RerunOnFailure", 1), ("Manual", 1), ("Once", 1)])
async def test_run_succeeded(api: Api, world: World, strategy: str, in_all: int, end: EndReason) -> None:
    await ended(api, world, strategy, end)
    assert runs(world) == (in_all, in_all > 1)


@pytest.mark.parametrize(("strategy", "in_all"), [("Always", 2), ("RerunOnFailure", 2), ("Manual", 1), ("Once", 1)])
async def test_run_failed(api: Api, world: World, strategy: str, in_all: int) -> None:
    await ended(api, world, strategy, EndReason.CRASHED)
    assert runs(world) == (in_all, in_all > 1)


@pytest.mark.parametrize("strategy", ["Always", "RerunOnFailure", "Manual", "Once"])
async def test_start_beside_a_run(api: Api, world: World, strategy: str) -> None:
    await running(api, world, strategy)
    assert await order(api, "start") == 409
    assert runs(world) == (1, True)


@pytest.mark.parametrize(
    ("strategy", "status", "in_all"), [("RerunOnFailure", 200, 2), ("Manual", 200, 2), ("Once", 409, 1)]
)
async def test_start_after_a_run(api: Api, world: World, strategy: str, status: int, in_all: int) -> None:
    await ended(api, world, strategy, EndReason.POWEROFF, 5)
    assert await order(api, "start") == status
    world.run(LONG_S)
    assert (runs(world), strategy_of(world)) == ((in_all, in_all > 1), strategy)


async def test_start_of_a_halted_one_makes_it_always(api: Api, world: World) -> None:
    await applied(api, world, "Halted", 2)
    assert await order(api, "start") == 200
    world.run(10)
    assert (runs(world), strategy_of(world)) == ((1, True), "Always")


@pytest.mark.parametrize(
    ("strategy", "becomes"),
    [("Always", "Halted"), ("RerunOnFailure", "RerunOnFailure"), ("Manual", "Manual"), ("Once", "Halted")],
)
async def test_stop(api: Api, world: World, strategy: str, becomes: str) -> None:
    await running(api, world, strategy)
    assert await order(api, "stop") == 200
    world.run(LONG_S)
    assert (runs(world), strategy_of(world)) == ((1, False), becomes)
    assert world.state.vms["web-1"].outcome is RunOutcome.STOPPED
    assert await order(api, "stop") == 409


async def test_stop_of_a_halted_one(api: Api, world: World) -> None:
    await applied(api, world, "Halted", 2)
    assert await order(api, "stop") == 409


@pytest.mark.parametrize("strategy", ["Always", "RerunOnFailure", "Manual"])
async def test_restart(api: Api, world: World, strategy: str) -> None:
    await running(api, world, strategy)
    assert await order(api, "restart") == 200
    world.run(LONG_S)
    assert (runs(world), strategy_of(world)) == ((2, True), strategy)


@pytest.mark.parametrize(("strategy", "kept"), [("Halted", (0, False)), ("Once", (1, True))])
async def test_restart_is_refused(api: Api, world: World, strategy: str, kept: tuple[int, bool]) -> None:
    await applied(api, world, strategy, 5)
    assert await order(api, "restart") == 409
    world.run(LONG_S)
    assert runs(world) == kept
