"""How evidence about a silent node is kept: what peers were asked and what came back.

Assigns to the state; called by fold only. What it means is judged in nodes.py, proofs.py and relays.py.
"""

from __future__ import annotations

from collections.abc import Callable

from aggregator.core import events as ev
from aggregator.core.events import Event
from aggregator.core.fold_nodes import number_of
from aggregator.core.fold_storage import take_answer
from aggregator.core.state import PeerHeard, State

SPEAKS_ONLY_OF_LIFE = ("ssh",)
"""Ports whose silence says nothing: a host may well have nobody there."""


def _probe_answered(state: State, event: ev.ProbeAnswered) -> None:
    if event.target in state.storage_losses:
        take_answer(state.storage_losses[event.target], event)
        return
    node = state.nodes.get(event.target)
    if node is None or node.suspicion is None:
        return
    suspicion = node.suspicion
    node.fact = state.position
    planes: dict[str, list[bool]] = {}
    asked: dict[str, float] = {}
    for result in event.results:
        asked_at = event.at - result.asked_ago_s
        if asked_at < suspicion.since or asked_at < node.last_sign:
            continue
        if result.port in SPEAKS_ONLY_OF_LIFE and not result.answered:
            continue
        planes.setdefault(result.plane, []).append(result.answered)
        asked[result.plane] = min(asked.get(result.plane, asked_at), asked_at)
        if result.answered:
            suspicion.answered[f"{result.plane}/{result.port}"] = asked_at
            suspicion.heard_by[event.prober] = asked_at
            if result.port == "agent":
                suspicion.agent_heard[event.prober] = PeerHeard(result.plane, asked_at)
    for plane, answers in planes.items():
        if any(answers):
            suspicion.silent.pop(plane, None)
        else:
            suspicion.silent[plane] = asked[plane]


def _evidence_sought(state: State, event: ev.EvidenceSought) -> None:
    suspicion = state.nodes[event.node].suspicion
    state.counters["probe"] = max(state.counters.get("probe", 0), number_of(event.probe_id))
    if suspicion is not None:
        suspicion.rounds += 1
        suspicion.asked_at = event.at


def _relay_sought(state: State, event: ev.RelaySought) -> None:
    suspicion = state.nodes[event.node].suspicion
    if suspicion is not None:
        suspicion.relay, suspicion.relay_asked_at = event.peer, event.at
        suspicion.relay_tries += 1


def _guest_pictured(state: State, event: ev.GuestPictured) -> None:
    incident = state.incidents.get(event.incident)
    if incident is not None and not event.lacking:
        incident.screenshot = True


HANDLERS: dict[type[Event], Callable[..., None]] = {
    ev.ProbeAnswered: _probe_answered,
    ev.EvidenceSought: _evidence_sought,
    ev.RelaySought: _relay_sought,
    ev.GuestPictured: _guest_pictured,
}
