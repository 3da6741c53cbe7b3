"""Whoever rests is looked at by nobody (rest.py): at every look of some stories, looking at all decides the same."""

from collections.abc import Callable

import pytest

from aggregator.core import events as ev
from aggregator.core import rest
from aggregator.core.decide import decide
from aggregator.core.draft import Decision
from aggregator.core.events import Event
from aggregator.core.journal_form import copy_state, encode_state
from aggregator.core.state import State
from simulator.swarm import run_seed

STORIES = ((1, 3, 6), (2, 3, 6), (3, 3, 6), (1, 5, 20), (2, 5, 20), (1, 9, 60))  # seed, nodes, VMs
Look = Callable[[State, float], Decision]


def look_at_all(state: State, now: float) -> Decision:
    """The reference: nobody rests, and nothing that was worked out before is believed."""
    kept = vars(state).pop("derived")
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rest, "is_node_at_rest", lambda _node: False)
            patch.setattr(rest, "is_vm_at_rest", lambda _state, _vm: False)
            return decide(state, now)
    finally:
        vars(state)["derived"] = kept


def comparing(differing: list[tuple[Decision, Decision]], rested: list[bool]) -> Look:
    """Return a decide that says where it and the reference differ, and whether anybody rested."""

    def compared(state: State, now: float) -> Decision:
        quick = decide(state, now)
        rested.append(len(state.derived.active_vms) + len(state.derived.active_nodes) == 0)
        thorough = look_at_all(state, now)
        same_look = quick.transitions or quick.look_again_at == thorough.look_again_at  # else it is asked again at once
        if (quick.transitions, quick.actions) != (thorough.transitions, thorough.actions) or not same_look:
            differing.append((quick, thorough))
        return quick

    return compared


@pytest.mark.parametrize(("seed", "nodes", "vms"), STORIES)
def test_looking_at_all_decides_the_same(seed: int, nodes: int, vms: int, monkeypatch: pytest.MonkeyPatch) -> None:
    differing: list[tuple[Decision, Decision]] = []
    rested: list[bool] = []
    monkeypatch.setattr("aggregator.core.settle.decide", comparing(differing, rested))
    run_seed(seed, nodes, vms)
    assert differing == []
    assert any(rested)


@pytest.mark.parametrize("kind", [ev.NodeStateChanged, ev.VmsReported])
def test_a_kind_of_event_that_is_forgotten_is_found(kind: type[Event], monkeypatch: pytest.MonkeyPatch) -> None:
    differing: list[tuple[Decision, Decision]] = []
    monkeypatch.setattr("aggregator.core.settle.decide", comparing(differing, []))
    monkeypatch.setattr(rest, "_CHANGES_NO_REST", rest._CHANGES_NO_REST | {kind})
    assert any(_differs(seed, differing) for seed in range(1, 10))


def _differs(seed: int, differing: list[tuple[Decision, Decision]]) -> bool:
    run_seed(seed, 3, 6)
    return bool(differing)


def test_what_is_derived_is_neither_written_down_nor_copied() -> None:
    state = State()
    before = encode_state(state)
    decide(state, 1.0)
    assert not state.derived.stale
    assert encode_state(state) == before
    assert copy_state(state).derived.stale
    assert state == copy_state(state)
