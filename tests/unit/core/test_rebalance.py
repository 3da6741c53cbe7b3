"""Moves for balance: they come to an end, break no rule, and wait while anything is wrong."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from msgspec import structs

from aggregator.core import events as ev
from aggregator.core.calm import why_not_calm
from aggregator.core.objects import (
    Affinity,
    LabelSelector,
    TopologySpreadConstraint,
    VmAffinity,
    VmAffinityTerm,
    VmSpec,
)
from aggregator.core.rebalance import PRIORITY_REBALANCE, next_move
from aggregator.core.seating import node_seat, seat_table, vm_seat
from aggregator.core.views_balance import rebalance_view
from aggregator.placement.balance import load_of
from fleet.model import EvictionStrategy, OrderOutcome
from tests.unit.core.fleet import GIB, LABORATORY, Fleet
from tests.unit.placement.oracle import rejecting

QUICK = {"mode": "Auto", "hold": "0s", "margin": "5%", "cooldown": "1s", "movesPerHourMax": 1000}
MOVES_MAX = 60
HOSTNAME = "virtward/hostname"


def _crowded(names: list[str], seed: int, **config: object) -> Fleet:
    """Return a fleet that was filled while most of its nodes were cordoned."""
    random = Random(f"{seed} crowd")
    fleet = Fleet(0, {**LABORATORY, "rebalance": {"mode": "Off"}})
    for name in names:
        fleet.join(name, labels={HOSTNAME: name, "rack": random.choice(["r1", "r2"])})
    fleet.run(30, step=1)
    for name in names[1:]:
        if random.random() < 0.7:
            fleet.cordon(name)
    for number in range(random.randint(4, 14)):
        app = random.choice(["a", "b", "c"])
        fleet.settle(
            ev.VmApplied(
                at=fleet.now,
                name=f"v{number}",
                uuid=f"uuid-v{number}",
                spec=_drawn_spec(random),
                labels={"app": app},
                cpu_m=random.choice([0, 250, 1000]),
                memory_bytes=random.randint(0, 3) * GIB,
            )
        )
        fleet.run(1, step=1)
    for name in names[1:]:
        fleet.cordon(name, on=False)
    fleet.run(5, step=1)
    _set(fleet, **config)
    return fleet


def _set(fleet: Fleet, **config: object) -> None:
    fleet.settle(ev.ConfigChanged(at=fleet.now, config={**LABORATORY, **config}))


def _drawn_spec(random: Random) -> VmSpec:
    selector = LabelSelector(match_labels={"app": random.choice(["a", "b", "c"])})
    term = VmAffinityTerm(topology_key=random.choice([HOSTNAME, "rack"]), label_selector=selector)
    kind = random.choice(["free", "free", "free", "free", "apart", "together", "spread"])
    strategy = random.choice([None, None, None, EvictionStrategy.EXTERNAL, EvictionStrategy.NONE])
    spec = VmSpec(eviction_strategy=strategy)
    if kind == "apart":
        return structs.replace(spec, affinity=Affinity(vm_anti_affinity=VmAffinity(required=(term,))))
    if kind == "together":
        return structs.replace(spec, affinity=Affinity(vm_affinity=VmAffinity(required=(term,))))
    if kind == "spread":
        spread = TopologySpreadConstraint(max_skew=2, topology_key="rack", label_selector=selector)
        return structs.replace(spec, topology_spread_constraints=(spread,))
    return spec


def _broken(fleet: Fleet) -> set[tuple[str, str]]:
    """Return which hard rules do not hold where VMs sit, by the slow second implementation."""
    state = fleet.state
    nodes = {name: node_seat(state, node) for name, node in state.nodes.items()}
    seats = [(vm_seat(vm), nodes[vm.owner]) for vm in state.vms.values() if vm.owner]
    return {
        (seat.name, rule)
        for seat, node in seats
        for rule in rejecting(seat, node, list(nodes.values()), [(s, n) for s, n in seats if s.name != seat.name])
    }


def _order(fleet: Fleet, profile: str) -> list[tuple[float, int, str]]:
    """Return the order of the fleet's loads that every move has to make fall, or rise."""
    table = seat_table(fleet.state)
    loads = [load_of(table, name) for name in fleet.state.nodes]
    if profile == "HighNodeUtilization":
        return sorted(((*load.both, name) for load, name in zip(loads, fleet.state.nodes, strict=True)), reverse=True)
    return sorted(((load.fullest, 0, "") for load in loads), reverse=True)


@pytest.mark.parametrize("profile", ["LowNodeUtilization", "HighNodeUtilization"])
@pytest.mark.parametrize("seed", range(12))
def test_moves_end_and_break_no_rule(seed: int, profile: str) -> None:
    fleet = _crowded(["n1", "n2", "n3", "n4"], seed)
    if why := why_not_calm(fleet.state, fleet.now):  # a VM that no node takes: then nothing may be moved
        _set(fleet, profile=profile, rebalance=QUICK)
        fleet.run(20, step=1)
        assert not fleet.state.migrations, why
        return
    before, order, done = _broken(fleet), _order(fleet, profile), 0
    _set(fleet, profile=profile, rebalance=QUICK)
    for _ in range(MOVES_MAX):
        fleet.run(4, step=1)
        made = [m for m in fleet.state.migrations.values() if m.phase == "Succeeded"]
        if len(made) == done:
            break
        assert all(m.priority == PRIORITY_REBALANCE for m in made)
        now = _order(fleet, profile)
        assert now > order if profile == "HighNodeUtilization" else now < order
        assert _broken(fleet) <= before
        order, done = now, len(made)
    assert next_move(fleet.state, fleet.now) is None, f"{done} moves and no end"


def test_the_seeds_do_move_something() -> None:
    moves = 0
    for seed in range(12):
        fleet = _crowded(["n1", "n2", "n3", "n4"], seed)
        if not why_not_calm(fleet.state, fleet.now):
            moves += next_move(fleet.state, fleet.now) is not None
    assert moves >= 3


def _lopsided(**rebalance: object) -> Fleet:
    """Return two nodes, all VMs on the first."""
    fleet = Fleet(2, {**LABORATORY, "rebalance": {"mode": "Off"}})
    fleet.run(30, step=1)
    fleet.cordon("n2")
    for number in range(4):
        fleet.apply(f"v{number}")
    fleet.run(5, step=1)
    fleet.cordon("n2", on=False)
    fleet.run(5, step=1)
    _set(fleet, rebalance={**QUICK, **rebalance})
    return fleet


def test_suggest_moves_nothing_and_says_what_it_would() -> None:
    fleet = _lopsided(mode="Suggest")
    fleet.run(30, step=1)
    assert not fleet.state.migrations
    view = rebalance_view(fleet.state, fleet.now)
    assert isinstance(view["move"], dict)
    assert (view["move"]["source"], view["move"]["target"]) == ("n1", "n2")
    assert "virtward migrate v0 --to n2" in str(view["words"])


@pytest.mark.parametrize("limit", [0, 1])
def test_no_more_moves_an_hour_than_allowed(limit: int) -> None:
    fleet = _lopsided(movesPerHourMax=limit)
    fleet.run(60, step=1)
    assert len(fleet.state.migrations) == limit
    assert "rebalance.movesPerHourMax" in str(rebalance_view(fleet.state, fleet.now)["waits"])


def _disarm(fleet: Fleet) -> None:
    fleet.settle(ev.Disarmed(at=fleet.now, who="ann", node="n2"))


def _drain(fleet: Fleet) -> None:
    fleet.settle(ev.DrainRequested(at=fleet.now, node="n1", who="ann"))


def _fall_silent(fleet: Fleet) -> None:
    fleet.silent.add("n2")
    fleet.run(5)


@pytest.mark.parametrize(("what", "why"), [(_disarm, "disarmed"), (_drain, "drained"), (_fall_silent, "incident")])
def test_nothing_moves_while_something_is_wrong(what: Callable[[Fleet], None], why: str) -> None:
    fleet = _lopsided(mode="Suggest")
    assert next_move(fleet.state, fleet.now) is not None
    fleet.refuse_migrate = OrderOutcome.FAILED  # so that a drain goes on
    what(fleet)
    assert why in why_not_calm(fleet.state, fleet.now)
    _set(fleet, rebalance=QUICK)
    fleet.run(2, step=1)
    assert not [m for m in fleet.state.migrations.values() if m.priority == PRIORITY_REBALANCE]


def test_a_move_that_has_not_begun_is_called_off_when_something_goes_wrong() -> None:
    fleet = _lopsided(mode="Suggest")
    queued = ev.MigrationQueued(
        at=fleet.now, migration="mig-1", vm="v0", source="n1", target="n2", priority=PRIORITY_REBALANCE
    )
    _disarm(fleet)
    _set(fleet, rebalance=QUICK)
    fleet.settle(queued)
    assert fleet.state.migrations["mig-1"].phase == "Cancelled"
    assert "disarmed" in fleet.state.migrations["mig-1"].reason
    assert fleet.vm("v0").owner == "n1"


def test_the_profile_without_scores_never_moves() -> None:
    fleet = _lopsided()
    _set(fleet, profile="NoScoring", rebalance=QUICK)
    fleet.run(30, step=1)
    assert not [m for m in fleet.state.migrations.values() if m.created > fleet.now - 29]
