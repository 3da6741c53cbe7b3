"""The table of seats is kept by what events say has changed: at every look of some stories it is one made anew."""

from __future__ import annotations

import pytest

from aggregator.core import events as ev
from aggregator.core import rest, seating
from aggregator.core.decide import decide
from aggregator.core.draft import Decision
from aggregator.core.events import Event
from aggregator.core.state import State
from aggregator.placement.table import Table
from aggregator.placement.types import PlacementNode
from simulator.swarm import run_seed

STORIES = ((1, 3, 6), (2, 4, 9), (3, 3, 6), (4, 5, 20), (7, 3, 6), (8, 6, 24))  # seed, nodes, VMs
Picture = tuple[dict[str, PlacementNode], dict[str, tuple[str, ...]], dict[str, tuple[float, float, int]]]


def picture(table: Table, vms: list[str]) -> Picture:
    slots = table.columns.slot_of
    return (
        {name: table.columns.node(slot) for name, slot in slots.items()},
        {vm: tuple(sorted(table.seats_of(vm))) for vm in vms if table.seats_of(vm)},
        {name: (*table.requested[:, slot].tolist(), int(table.vms[slot])) for name, slot in slots.items()},
    )


def play(seed: int, nodes: int, vms: int, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Return at how many looks the kept table was asked, and at how many it differed."""
    asked, differing = 0, 0

    def compared(state: State, now: float) -> Decision:
        nonlocal asked, differing
        known = [*state.vms]
        kept = picture(seating.seat_table(state), known)
        fresh = picture(seating._make(state).table, known)
        asked += 1
        differing += kept != fresh
        return decide(state, now)

    monkeypatch.setattr("aggregator.core.settle.decide", compared)
    run_seed(seed, nodes, vms)
    return asked, differing


@pytest.mark.parametrize(("seed", "nodes", "vms"), STORIES)
def test_a_table_kept_by_events_is_one_made_anew(
    seed: int, nodes: int, vms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, differing = play(seed, nodes, vms, monkeypatch)
    assert asked > 50
    assert differing == 0


@pytest.mark.parametrize("kind", [ev.NodeStateChanged, ev.BindingFreed])
def test_a_kind_of_event_that_is_forgotten_is_found(kind: type[Event], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "_CHANGES_NO_REST", rest._CHANGES_NO_REST | {kind})
    assert any(play(seed, 3, 6, monkeypatch)[1] for seed in range(1, 6))
