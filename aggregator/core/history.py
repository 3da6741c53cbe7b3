"""The one stream of what happened: lines for events, explain, logs and stories, and incidents.

Pure rendering of facts and transitions into HistoryLines; fold appends them. An incident takes
every line about its node and its VMs while it is open.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import structs

from aggregator.core import events as ev
from aggregator.core.events import Event, Transition
from aggregator.core.evidence_words import end_words, observer_of, power_words, probe_words
from aggregator.core.moments import rfc3339
from aggregator.core.state import (
    HISTORY_MAX,
    INCIDENT_STEPS_MAX,
    HistoryLine,
    IncidentRecord,
    IncidentStep,
    State,
)

OBSERVATIONS_KEPT = 50  # of a full incident's first lines; after them what was seen goes before what was decided
_SILENT_KINDS = (
    ev.ArrivalChecked,
    ev.TurnJudged,
    ev.BeatHeard,
    ev.MigrationProgressed,
    ev.VmsReported,
    ev.EvidenceSought,
    ev.StorageAsked,
    ev.ReferenceAsked,
    ev.ReferenceAnswered,
    ev.ProbeAnswered,
    ev.FenceAnswered,
)


def kind_of(event: Event) -> str:
    """Return the name a line of this event carries: NodeLost for a step to Lost, else its type."""
    if isinstance(event, ev.NodeStateChanged):
        return f"Node{event.state}"
    return type(event).__name__


def detail_of(event: Event) -> str:
    """Return what a person wants to know of an event beyond its kind and reason."""
    render = _DETAILS.get(type(event))
    words = render(event) if render else ""
    who = getattr(event, "who", "")
    return f"{words} by {who}".strip() if who else words


def _opened(event: ev.SessionOpened) -> str:
    words = f"session {event.session.number} of boot {event.session.boot_id[:8]}"
    words += f", through {event.via}" if event.via else ""
    if (claimed := event.disbelieved) is not None:
        words += (
            f"; it says that it obeyed term {claimed.term} up to {claimed.position}, which no aggregator of this fleet "
            f"has told and is not believed: revoke it if it lies, or let it join anew: virtward node token {event.node}"
        )
    return words


def _order(event: ev.OrderIssued) -> str:
    return f"{type(event.order.body).__name__} {event.order.order_id} at epoch {event.order.epoch}"


def _reported(event: ev.OrderReported) -> str:
    words = f"{event.order_id} {event.outcome.lower()}"
    return f"{words}: {event.message or event.code}" if event.message or event.code else words


def _scope(event: ev.Disarmed | ev.Armed | ev.DisarmEnded) -> str:
    """Return whom a disarming is about where the line does not name it."""
    return "" if event.node or event.vm else f"all with {event.selector}" if event.selector else "the fleet"


_DETAILS: dict[type[Event], Callable[..., str]] = {
    ev.OrderIssued: _order,
    ev.OrderReported: _reported,
    ev.OrderClosed: lambda e: f"{e.order_id} {e.outcome}",
    ev.OrderDropped: lambda e: f"{e.order_id}: {e.why}",
    ev.StartDecided: lambda e: f"run {e.run} at epoch {e.epoch}",
    ev.BindingFreed: lambda e: f"proof {e.proof}" + (f", {e.end}" if e.end else ""),
    ev.RunRestarted: lambda e: f"run {e.run}",
    ev.RunEnded: lambda e: f"run {e.run} {e.outcome}",
    ev.NodeFlapping: lambda e: "tainted virtward/degraded" if e.flaps else "virtward/degraded is lifted",
    ev.VmHeld: lambda e: f"not started before {rfc3339(e.until)}",
    ev.Disarmed: lambda e: (f"{_scope(e)} " + (f"until {rfc3339(e.until)}" if e.until else "with no end")).strip(),
    ev.Armed: _scope,
    ev.DisarmEnded: _scope,
    ev.StopDecided: lambda e: e.outcome,
    ev.VmPhaseChanged: lambda e: e.phase,
    ev.PlacementRefused: lambda e: "; ".join(
        f"{node}: {', '.join(rules)}" for node, rules in sorted(e.rejected.items())
    ),
    ev.EvidenceSought: lambda e: f"{e.prober} is asked to probe it",
    ev.RelaySought: lambda e: f"{e.peer} is asked to carry its frames",
    ev.NodeProven: lambda e: f"proof {e.proof}: {e.detail}",
    ev.FenceAsked: lambda e: (
        f"{e.question} asked of rung {e.rung + 1}" + (f" device {e.device + 1}" if e.device else "") + f" ({e.purpose})"
    ),
    ev.FenceAnswered: power_words,
    ev.FenceFailed: lambda e: e.detail,
    ev.InvariantBroken: lambda e: f"{e.invariant}: {e.text}",
    ev.BrakeChanged: lambda e: ("closed: " if e.closed else "open: ") + ", ".join(e.nodes),
    ev.IncidentNoted: lambda e: e.text,
    ev.IncidentOpened: lambda e: e.title,
    ev.MigrationPolicyApplied: lambda e: f"policy {e.policy}",
    ev.MigrationPolicyDeleted: lambda e: f"policy {e.policy}",
    ev.MigrationQueued: lambda e: f"{e.migration} from {e.source}",
    ev.MigrationChanged: lambda e: f"{e.migration} {e.phase}" + (f" to {e.target}" if e.target else ""),
    ev.DrainPaused: lambda e: "paused" if e.paused else "resumed",
    ev.VmEvictionChanged: lambda e: "over" if e.over else "it has to leave" if not e.blocked else "it cannot leave",
    ev.DrainChanged: lambda e: (
        e.state + ("; blocked: " + "; ".join(f"{v}: {w}" for v, w in e.blocked.items()) if e.blocked else "")
    ),
    ev.HostStopBegan: lambda e: f"within {e.within_s:g} s",
    ev.SessionOpened: _opened,
    ev.SessionEnded: lambda e: e.how + (" by its own end" if e.by_it else ""),
    ev.IdentityRefused: lambda e: f"a hello of machine-id {e.machine_id}",
    ev.VmCommanded: lambda e: str(e.verb),
    ev.ProbeAnswered: probe_words,
    ev.GuestPictured: lambda e: e.lacking or f"what its screen showed: virtward screenshot --incident {e.incident}",
    ev.OwnerChanged: lambda e: f"epoch {e.epoch}",
    ev.StorageOutageChanged: lambda e: e.storage,
    ev.StorageLost: lambda e: ", ".join(e.storages),
    ev.SecondRunSeen: lambda e: ", ".join(e.nodes),
    ev.SelfDoubted: lambda e: f"{e.kind} {e.detail}".strip(),
}


def is_quiet(event: Event) -> bool:
    """Return whether an event is too common to be a line of history."""
    return isinstance(event, _SILENT_KINDS) or (
        isinstance(event, ev.FenceAsked) and event.purpose in {"readiness", "evidence"}
    )


def record(state: State, event: Event, subject: tuple[str, str]) -> None:
    """Append the event's line to history and to the open incidents it belongs to.

    Must be called after the event was folded: a line about a state speaks of the new state.
    subject: (node, vm) it speaks of.
    """
    node, vm = subject
    line = HistoryLine(
        position=state.position,
        at=event.at,
        kind=kind_of(event),
        reason=event.reason if isinstance(event, Transition) else "",
        cause=event.cause if isinstance(event, Transition) else 0,
        node=node,
        vm=vm,
        detail=detail_of(event),
    )
    if not is_quiet(event):
        state.history.append(line)
        if len(state.history) > HISTORY_MAX + HISTORY_MAX // 10:
            del state.history[: len(state.history) - HISTORY_MAX]
    if not isinstance(event, ev.VmsReported | ev.BeatHeard | ev.MigrationProgressed):
        _note_in_incidents(state, line, event)
    if isinstance(event, ev.IncidentOpened) and event.node in state.nodes:
        words = f"{event.node}: {end_words(state.nodes[event.node])}"
        state.incidents[event.incident].steps.append(IncidentStep(event.at, "ConnectionSeen", words))


def subject_of(state: State, event: Event) -> tuple[str, str]:
    """Return (node, vm) an event speaks of; empty where there is none."""
    node = getattr(event, "node", "") or getattr(event, "target", "")
    vm = getattr(event, "vm", "")
    name = getattr(event, "name", "")
    if name and isinstance(event, _ABOUT_VMS):
        vm = name
    elif name and isinstance(event, _ABOUT_NODES):
        node = name
    if isinstance(event, ev.OrderReported):
        vm = state.names.get(event.uuid, "")
    elif not isinstance(vm, str):
        vm = ""
    return node, vm


_ABOUT_VMS = (ev.VmApplied, ev.VmDeleteRequested, ev.VmCommanded, ev.VmGoneConfirmed)
_ABOUT_NODES = (
    ev.NodeApplied,
    ev.NodeApproved,
    ev.NodeTokenIssued,
    ev.JoinTokenIssued,
    ev.NodeJoined,
    ev.HypervisorCertified,
    ev.NodeRevoked,
    ev.NodeDeleted,
    ev.OffConfirmed,
    ev.FenceRequested,
    ev.NodeForgiven,
)


def _note_in_incidents(state: State, line: HistoryLine, event: Event) -> None:
    named = getattr(event, "incident", "")
    words = "; ".join(part for part in (line.detail, line.reason) if part)
    about = line.vm or line.node
    step = IncidentStep(line.at, line.kind, f"{about}: {words}" if about else words, observer_of(event))
    for incident in state.incidents.values():
        if named:
            concerns = incident.name == named
        elif incident.closed:
            concerns = False
        else:
            same_node = bool(line.node) and line.node == incident.node
            concerns = same_node or (bool(line.vm) and (line.vm == incident.vm or line.vm in incident.vms))
        if concerns and not _is_mere_question(event):
            _append(incident, step, repeats=is_quiet(event))


def _is_mere_question(event: Event) -> bool:
    return isinstance(event, ev.EvidenceSought) or (isinstance(event, ev.FenceAsked) and is_quiet(event))


def _append(incident: IncidentRecord, step: IncidentStep, *, repeats: bool) -> None:
    """Add a step. repeats: one that says what its observer said last is counted there instead."""
    steps = incident.steps
    if repeats:
        index = next((i for i in reversed(range(len(steps))) if _same_source(steps[i], step)), None)
        if index is not None and steps[index].detail == step.detail:
            steps[index] = structs.replace(steps[index], times=steps[index].times + 1, last_at=step.at)
            return
    steps.append(step)
    if len(steps) > INCIDENT_STEPS_MAX:
        middle = INCIDENT_STEPS_MAX // 2
        del steps[next((i for i in range(OBSERVATIONS_KEPT, len(steps)) if steps[i].who), middle)]


def _same_source(one: IncidentStep, other: IncidentStep) -> bool:
    return (one.what, one.who) == (other.what, other.who)
