"""How events show that this store is older than what was done in its name, and what is skipped then.

Two things tell: an agent that has obeyed more than the journal holds, and the store itself, by a mark that no
backup brings along (store/protocol.py). Assigns to the state; called by fold only.
"""

from __future__ import annotations

from aggregator.core import events as ev
from aggregator.core.reconcile import is_behind
from aggregator.core.state import PastTenure, State
from fleet.model import Leadership

UNTOLD_EVENTS = 1000  # lost ones that nobody was told of before the store went back
NUMBERED = ("ord", "mig", "q", "inc", "probe")


def take_mark(state: State, event: ev.AggregatorStarted) -> None:
    """Fall behind if the journal was written in another copy of the store than the one it is read from."""
    if event.lost_events or (state.store_mark and state.store_mark != event.store_mark):
        lost = f"at least {event.lost_events} events" if event.lost_events else "an unknown number of events"
        fall_behind(state, event.lost_events, f"the store was restored from a backup, {lost} after it were lost")
    state.store_mark = event.store_mark


def take_highest(state: State, node: str, highest: Leadership | None) -> None:
    """Fall behind if a node obeyed what this store does not hold: go on in a term above, none heeds a lower one."""
    if highest is None or not is_behind(state, highest):
        return
    leader, past = state.leader, state.tenures.get(highest.instance)
    held = past.ended if past is not None else leader.position
    why = (
        state.behind
        if state.rebuilding
        else f"{node} has obeyed term {highest.term} up to {highest.position}, this store knows it up to {held}"
    )
    fall_behind(state, max(0, highest.position - held), why)
    state.tenures[highest.instance] = PastTenure(highest.term, highest.position)
    state.leader = Leadership(max(leader.term, highest.term + 1), leader.instance, leader.position)


def catch_up(state: State) -> None:
    """Lead again, well above the epochs that were told: who is proven inert has not said which ones it obeyed."""
    state.behind = ""
    told = [seen.report.epoch for vm in state.vms.values() for seen in vm.reports.values()]
    least = max(_never_given(state), max(told, default=0) + UNTOLD_EVENTS)
    for vm in state.vms.values():
        vm.epoch_top = max(vm.epoch_top + UNTOLD_EVENTS, least)


def _never_given(state: State) -> int:
    """Return a number that no life before this one can have reached: milliseconds since 1970.

    A store may go back twice, the second time to before the first: what was skipped then is forgotten, too, and only
    what rises by itself is above it. Nobody gives out a thousand numbers of a kind in a second.
    """
    return int(state.now * 1000)


def fall_behind(state: State, lost_events: int, why: str) -> None:
    """Only reconcile from now on; skip the numbers that were given out and lost: no more than events."""
    skipped = lost_events if state.behind else lost_events + UNTOLD_EVENTS
    state.behind = why
    least = _never_given(state)
    state.counters = {kind: max(state.counters.get(kind, 0) + skipped, least) for kind in NUMBERED}
    for vm in state.vms.values():
        vm.epoch_top += lost_events
