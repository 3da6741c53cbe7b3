"""When an incident is opened, what a person can do about it, and when it is over. Pure.

Steps write themselves: fold adds every line about the node and its VMs (history.py).
"""

from __future__ import annotations

from aggregator.core.draft import Draft
from aggregator.core.events import IncidentClosed, IncidentNoted, IncidentOpened, NodeState
from aggregator.core.fencing import is_past_first_order, why_not_fenced, would_move
from aggregator.core.lookups import SILENT, wants_run
from aggregator.core.moments import span
from aggregator.core.nodes import brake_limit, may_convict, silence_s, silent_nodes, unseen_too_long
from aggregator.core.reference import reference_doubt, runs_here
from aggregator.core.state import IncidentRecord, Inert, NodeRecord, State

OUTAGE_WAY_OUT = (
    "mend what they have in common, such as a switch or a power feed; for each node that is off for certain run: "
    "virtward fence NODE --confirm-off"
)


def decide_incidents(draft: Draft) -> None:
    """Open, annotate and close incidents."""
    for node in draft.state.derived.active_nodes:
        incident = draft.state.incidents.get(node.incident)
        if incident is None:
            _open(draft, node)
        else:
            _say_way_out(draft, node, incident)
            _close(draft, node, incident)
    _mass_outage(draft)


def _open(draft: Draft, node: NodeRecord) -> None:
    unseen = unseen_too_long(draft, node)
    if node.state in SILENT or unseen:
        what = "has not spoken since the aggregator started" if unseen else "fell silent"
        if node.attempt is not None and node.attempt.living:
            what = "is fenced although it beats"
        draft.add(
            IncidentOpened(
                at=draft.now,
                incident=draft.new_id("inc"),
                node=node.name,
                title=f"{node.name} {what}",
                reason=node.state_reason,
                cause=node.fact,
            )
        )


def way_out(draft: Draft, node: NodeRecord) -> tuple[str, str]:
    """Return (what keeps the node's VMs down, what a person can do); empty if nothing does."""
    confirm = f"make sure {node.name} is off, then run: virtward fence {node.name} --confirm-off"
    if node.state is NodeState.AGENT_LOST and node.impostor is not None:
        where = f"peers hear another machine where {node.name} was, so nobody knows whether its VMs run"
        return where, f"see what {node.impostor.incident} says about that machine"
    if node.state is NodeState.AGENT_LOST:
        return (
            f"the agent on {node.name} is gone, its VMs run on{_rescue_words(draft, node)}",
            f"start virtward-agent on {node.name}",
        )
    if node.via and node.state is NodeState.UP:
        return (
            f"{node.name} speaks only through {node.via}: its VMs run on, it is given no new ones",
            f"mend the control network between {node.name} and the aggregator",
        )
    if node.state is NodeState.FENCED and node.connected and node.inert is not None:
        return _way_back(node, node.inert)
    moving = would_move(draft.state, node)
    if node.state is NodeState.FENCING and node.attempt is not None and is_past_first_order(node, node.attempt):
        where = f"rung {node.attempt.rung + 1} of {len(node.spec.fencing)}, try {node.attempt.tries}"
        return f"the first off order gave no proof; now {where}; the last rung is a person", confirm
    if node.state is NodeState.LOST and moving:
        why = why_not_fenced(draft, node)
        failed = [n for n in (node.attempt.notes if node.attempt else []) if n]
        detail = f" ({'; '.join(failed[-3:])})" if failed else ""
        if why:
            return f"{', '.join(moving)} stay down: {why}{detail}", confirm
    overdue = silence_s(draft, node) >= draft.state.config.lost_after
    if node.state not in {NodeState.SUSPECT, NodeState.UNSEEN}:
        return "", ""
    if overdue and runs_here(draft.state, node):
        return f"{node.name} is not convicted: this aggregator runs on it", confirm
    doubt = may_convict(draft) if draft.state.brake_closed else reference_doubt(draft) if overdue else ""
    return (f"nobody is convicted: {doubt}", confirm) if doubt else ("", "")


def _rescue_words(draft: Draft, node: NodeRecord) -> str:
    if node.rescue_since:
        return "; those that can are being moved off it, live"
    return f"; those that can are moved off it, live, once it has been gone for {draft.state.config.rescue_after:g} s"


def _way_back(node: NodeRecord, inert: Inert) -> tuple[str, str]:
    """A node that speaks in the boot that was proven inert was not inert: only another boot of it is believed."""
    if node.boot_id != inert.boot_id:
        return "", ""
    return (
        f"{node.name} speaks, although {inert.detail}: the proof was wrong, and it takes no VM before its next boot",
        f"look for VMs that still run on {node.name} (virsh list), end those that run elsewhere, then reboot it",
    )


def _say_way_out(draft: Draft, node: NodeRecord, incident: IncidentRecord) -> None:
    text, way = way_out(draft, node)
    if way and (incident.way_out, incident.stuck) != (way, text):
        draft.add(
            IncidentNoted(
                at=draft.now,
                incident=incident.name,
                text=text,
                way_out=way,
                reason="a person can help",
                cause=node.fact,
            )
        )


def _close(draft: Draft, node: NodeRecord, incident: IncidentRecord) -> None:
    if node.state is not NodeState.UP or node.via or still_down(draft.state, incident):
        return  # a fenced node's return belongs to the record too
    draft.add(
        IncidentClosed(
            at=draft.now,
            incident=incident.name,
            reason=f"{node.name} is {node.state} and every VM of it that should run does",
            cause=node.fact,
        )
    )


def still_down(state: State, incident: IncidentRecord) -> list[str]:
    """Return the incident's VMs that should run and do not."""
    down = []
    for name in incident.vms:
        vm = state.vms.get(name)
        if vm is None:
            continue
        starting = vm.run_open and not vm.run_reached_running
        if starting or (not vm.run_open and wants_run(vm)):
            down.append(name)
    return down


def _mass_outage(draft: Draft) -> None:
    state = draft.state
    if state.brake_closed and not state.brake_incident:
        nodes = ", ".join(silent_nodes(draft))
        draft.add(
            IncidentOpened(
                at=draft.now,
                incident=draft.new_id("inc"),
                title=f"mass outage: {nodes} fell silent",
                reason="more nodes than the brake lets through: nobody is fenced",
                cause=state.position,
            )
        )
    elif state.brake_closed:
        _say_outage(draft, state.incidents[state.brake_incident])
    elif state.brake_incident:
        draft.add(
            IncidentClosed(
                at=draft.now,
                incident=state.brake_incident,
                reason="the brake is open again",
                cause=state.position,
            )
        )


def _say_outage(draft: Draft, incident: IncidentRecord) -> None:
    """Say what keeps the brake closed: nodes that are out, or only that so many were within its window."""
    state = draft.state
    window = state.config.brake.window
    many = f"more than {brake_limit(state)} fell silent {f'within {span(window)}' if window else 'at once'}"
    text, way = f"nobody is convicted: {many}", OUTAGE_WAY_OUT
    if all(state.nodes[name].state is NodeState.UP for name in silent_nodes(draft)):
        text = f"all of them are heard again; the brake opens when it is no longer so that {many}"
        way = "nothing needs to be done; a host that fails before that is fenced with: virtward fence NODE"
    if (incident.stuck, incident.way_out) != (text, way):
        draft.add(
            IncidentNoted(
                at=draft.now,
                incident=incident.name,
                text=text,
                way_out=way,
                reason="a person can help" if way is OUTAGE_WAY_OUT else "",
                cause=state.position,
            )
        )
