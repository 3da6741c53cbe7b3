"""fold(state, event): the only thing that assigns to the state.

One function per kind of event, in a table. Folding is deterministic and total: the same events
in the same order give the same state, in production, in replay and in the simulator. What the
events mean for nodes, VMs and moves is in fold_nodes, fold_vms and fold_moves.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import structs

from aggregator.core import events as ev
from aggregator.core import (
    fold_arming,
    fold_evidence,
    fold_fencing,
    fold_moves,
    fold_nodes,
    fold_rebuild,
    fold_storage,
    fold_store,
    fold_vms,
    fold_wishes,
    history,
    rest,
)
from aggregator.core.breach import ABOUT_INVARIANT
from aggregator.core.events import Event, NodeState
from aggregator.core.identity import ABOUT_IDENTITY
from aggregator.core.policy import decode_config
from aggregator.core.reconcile import ABOUT_STORE
from aggregator.core.state import (
    INCIDENTS_MAX,
    TENURES_PAST_MAX,
    IncidentRecord,
    PastTenure,
    State,
    Suspicion,
)

VOLATILE_KINDS = (ev.BeatHeard, ev.MigrationProgressed)
_UNSEEN_AFTER_START = (NodeState.UP, NodeState.SUSPECT, NodeState.AGENT_LOST)
_GIVEN_UP = (NodeState.LOST, NodeState.FENCING, NodeState.FENCED)


def fold(state: State, event: Event) -> None:
    """Change the state as the event says; TypeError for a kind nobody folds."""
    handler = _HANDLERS.get(type(event))
    if handler is None:
        raise TypeError(f"nothing folds a {type(event).__name__}")
    volatile = isinstance(event, VOLATILE_KINDS)
    if not volatile:
        state.position += 1
    state.now = max(state.now, event.at)
    handler(state, event)
    if not volatile:
        subject = history.subject_of(state, event)
        rest.note(state, event, subject)
        history.record(state, event, subject)


def _aggregator_started(state: State, event: ev.AggregatorStarted) -> None:
    state.tenures[state.leader.instance] = PastTenure(state.leader.term, state.position - 1)
    for instance in list(state.tenures)[:-TENURES_PAST_MAX]:
        del state.tenures[instance]
    state.leader = event.leader
    fold_store.take_mark(state, event)
    state.secret = event.secret or state.secret
    state.own_machine_id = event.machine_id
    state.reference_asked_at = state.reference_heard_at = 0.0
    state.started_at = event.at
    state.doubted_at = 0.0
    _do_not_count(state, event.away_s)
    for node in state.nodes.values():
        node.connected = False
        node.complete = False
        node.seen = False
        node.suspicion = None
        if any(question.question == "on" for question in node.questions.values()):
            node.power_on_asked_at = 0.0  # whether that order was ever given is unknown; on does nothing to what is on
        node.questions.clear()
        node.storage_lost = dict.fromkeys(node.storage_lost, event.at)  # the time without it counts anew, too
        node.off_confirmed_at = 0.0  # what it proved is journalled; beats that spoke against it are not
        if node.state in _GIVEN_UP:
            node.suspicion = Suspicion(since=event.at)  # it stays so, and its evidence is gathered anew
        if node.state in _UNSEEN_AFTER_START:
            fold_nodes.enter(node, NodeState.UNSEEN, event.at, "the aggregator started")


def _do_not_count(state: State, away_s: float) -> None:
    """Let nothing become older for the brake while nobody led: a clock that was set forward would open it (S6, S9)."""
    state.off_orders = [at + away_s for at in state.off_orders]
    for node in state.nodes.values():
        node.silent_at += away_s if node.silent_at else 0.0
        node.convicted_at += away_s if node.convicted_at else 0.0
        node.first_off_at += away_s if node.first_off_at else 0.0


def _self_doubted(state: State, event: ev.SelfDoubted) -> None:
    state.doubted_at = event.at
    state.doubt = f"{event.kind} {event.detail}".strip()


def _reference_asked(state: State, event: ev.ReferenceAsked) -> None:
    state.reference_asked_at = event.at


def _reference_answered(state: State, event: ev.ReferenceAnswered) -> None:
    state.reference_trouble = event.detail
    if event.answered:
        state.reference_heard_at = max(state.reference_heard_at, event.asked_at)


def _config_changed(state: State, event: ev.ConfigChanged) -> None:
    state.config = decode_config(event.config)


def _brake_changed(state: State, event: ev.BrakeChanged) -> None:
    state.brake_closed = event.closed


def _incident_opened(state: State, event: ev.IncidentOpened) -> None:
    state.counters["inc"] = max(state.counters.get("inc", 0), _number(event.incident))
    incident = IncidentRecord(event.incident, event.title, event.at, event.node, event.vm)
    state.incidents[event.incident] = incident
    if event.node in state.nodes:
        node = state.nodes[event.node]
        node.incident = event.incident
        incident.vms = [
            vm.name for vm in state.vms.values() if any(binding.node == event.node for binding in vm.bindings)
        ]
    elif event.about.startswith(fold_storage.ABOUT):
        fold_storage.begin(state, event)
    elif event.about.startswith(ABOUT_IDENTITY):
        _about_impostor(state, event.about.removeprefix(ABOUT_IDENTITY), event.incident)
    elif event.about == ABOUT_STORE:
        state.store_incident = event.incident
    elif event.about == ABOUT_INVARIANT:
        state.breach_incident = event.incident
    elif event.vm in state.vms:
        state.vms[event.vm].incident = event.incident
    elif not event.vm:
        state.brake_incident = event.incident
    for name in [n for n, i in state.incidents.items() if i.closed][:-INCIDENTS_MAX]:
        del state.incidents[name]


def _about_impostor(state: State, name: str, incident: str) -> None:
    node = state.nodes.get(name)
    if node is not None and node.impostor is not None:
        node.impostor = structs.replace(node.impostor, incident=incident)


def _incident_noted(state: State, event: ev.IncidentNoted) -> None:
    incident = state.incidents.get(event.incident)
    if incident is not None:
        incident.way_out = event.way_out or incident.way_out
        incident.stuck = event.text


def _incident_closed(state: State, event: ev.IncidentClosed) -> None:
    incident = state.incidents.get(event.incident)
    if incident is None:
        return
    incident.closed = event.at
    incident.way_out = ""
    node = state.nodes.get(incident.node)
    if node is not None and node.incident == event.incident:
        node.incident = ""
    vm = state.vms.get(incident.vm)
    if vm is not None and vm.incident == event.incident:
        vm.incident = ""
    if state.brake_incident == event.incident:
        state.brake_incident = ""
    if state.store_incident == event.incident:
        state.store_incident = ""
    if state.breach_incident == event.incident:
        state.breach, state.breach_incident = "", ""
    fold_storage.end(state, event.incident)
    for other in state.nodes.values():
        if other.impostor is not None and other.impostor.incident == event.incident:
            other.impostor = None


def _invariant_broken(state: State, event: ev.InvariantBroken) -> None:
    state.breach = f"{event.invariant}: {event.text}"
    state.breaches += 1


def _reconcile_ended(state: State, _event: ev.ReconcileEnded) -> None:
    fold_store.catch_up(state)


def _number(identifier: str) -> int:
    return int(identifier.rsplit("-", 1)[1])


_HANDLERS: dict[type[Event], Callable[..., None]] = {
    ev.AggregatorStarted: _aggregator_started,
    ev.SelfDoubted: _self_doubted,
    ev.ReferenceAsked: _reference_asked,
    ev.ReferenceAnswered: _reference_answered,
    ev.ConfigChanged: _config_changed,
    ev.BrakeChanged: _brake_changed,
    ev.InvariantBroken: _invariant_broken,
    ev.ReconcileEnded: _reconcile_ended,
    ev.IncidentOpened: _incident_opened,
    ev.IncidentNoted: _incident_noted,
    ev.IncidentClosed: _incident_closed,
    **fold_arming.HANDLERS,
    **fold_nodes.HANDLERS,
    **fold_evidence.HANDLERS,
    **fold_fencing.HANDLERS,
    **fold_rebuild.HANDLERS,
    **fold_storage.HANDLERS,
    **fold_vms.HANDLERS,
    **fold_wishes.HANDLERS,
    **fold_moves.HANDLERS,
}
