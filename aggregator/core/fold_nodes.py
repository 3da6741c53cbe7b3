"""How events change nodes: sessions, signs of life, evidence, fence devices, what people say.

Assigns to the state; called by fold only. Decides nothing: whether a node is suspect is
nodes.py's business, here it only becomes what was decided.
"""

from __future__ import annotations

from collections.abc import Callable

from aggregator.core import events as ev
from aggregator.core import fold_controllers, fold_credentials, fold_leftovers, fold_storage, fold_store, fold_vms
from aggregator.core.events import Event, NodeState
from aggregator.core.fencing_device import device_of, devices_of
from aggregator.core.flapping import DAY_S
from aggregator.core.objects import Taint, TaintEffect
from aggregator.core.state import (
    FenceAttempt,
    Impostor,
    Inert,
    NodeRecord,
    RungReadiness,
    State,
    Suspicion,
)

DEGRADED = "virtward/degraded"
CHECKS_MAX = 32  # of one node that count
_STATE_TAINTS: dict[NodeState, tuple[tuple[str, TaintEffect], ...]] = {
    NodeState.UNSEEN: (("virtward/not-ready", TaintEffect.NO_SCHEDULE),),
    NodeState.SUSPECT: (("virtward/not-ready", TaintEffect.NO_SCHEDULE),),
    NodeState.AGENT_LOST: (("virtward/agent-lost", TaintEffect.NO_SCHEDULE),),
    **dict.fromkeys(
        (NodeState.LOST, NodeState.FENCING, NodeState.FENCED),
        (("virtward/unreachable", TaintEffect.NO_SCHEDULE), ("virtward/unreachable", TaintEffect.NO_EXECUTE)),
    ),
}
_GIVEN_UP = (NodeState.LOST, NodeState.FENCING, NodeState.FENCED)
_SILENT = (NodeState.SUSPECT, NodeState.AGENT_LOST, NodeState.LOST)


def enter(node: NodeRecord, to: NodeState, at: float, reason: str) -> None:
    """Make a node be in a state, with the taints that belong to it."""
    came_from = node.state
    node.state = to
    node.state_since = at
    node.state_reason = reason
    if to is not NodeState.AGENT_LOST:
        node.rescue_since = 0.0
    set_taints(node, at)
    if to is NodeState.UP:
        node.suspicion = None
        node.attempt = None
        node.inert = None
        node.fence_wanted = False
        node.power_on_asked_at = node.first_off_at = 0.0
        if node.left_in_order:
            node.silent_at, node.left_in_order = 0.0, False
    if to is NodeState.SUSPECT or (to in _SILENT and came_from is NodeState.UNSEEN):
        node.silent_at = at
    if to is NodeState.LOST and not node.left_in_order:
        node.convicted_at = at
    if to in _GIVEN_UP and came_from not in _GIVEN_UP and not node.drain:
        node.failures = [t for t in node.failures if t > at - DAY_S] + [at]
    if to in _SILENT and node.suspicion is None:
        node.suspicion = Suspicion(since=at)
    if to is NodeState.FENCING and node.suspicion is None:
        node.suspicion = Suspicion(since=at)
    if to is NodeState.UNSEEN:
        node.suspicion = Suspicion(since=at)
    if to is NodeState.FENCING:
        node.attempts += 1
        node.attempt = FenceAttempt(
            number=node.attempts,
            since=at,
            living=came_from is NodeState.UP,
            answering=came_from in (NodeState.UP, NodeState.AGENT_LOST),
        )


def set_taints(node: NodeRecord, at: float) -> None:
    """Give the node exactly the system's taints it should carry, keeping their timeAdded."""
    wanted = list(_STATE_TAINTS.get(node.state, ()))
    if node.rescue_since:
        wanted.append(("virtward/agent-lost", TaintEffect.NO_EXECUTE))
    if node.drain:
        wanted.append(("virtward/maintenance", TaintEffect.NO_SCHEDULE))
    if node.flaps or (node.via and node.state is NodeState.UP):
        wanted.append((DEGRADED, TaintEffect.NO_SCHEDULE))
    wanted.extend((DEGRADED, TaintEffect(effect)) for effect in _check_effects(node))
    if node.storage_marked:
        wanted.append((fold_storage.TAINT, TaintEffect.NO_SCHEDULE))
    kept = {(taint.key, taint.effect): taint for taint in node.taints}
    node.taints = tuple(
        kept.get((key, effect)) or Taint(key=key, effect=effect, time_added=f"{at:.3f}")
        for key, effect in dict.fromkeys(wanted)
    )


def _check_effects(node: NodeRecord) -> list[str]:
    """Return the effects of what the node's check programs say of it; nobody else is worse off by them."""
    checks = node.facts.checks[:CHECKS_MAX] if node.facts is not None else ()
    return sorted({check.effect for check in checks if check.effect in set(TaintEffect)})


def _node_state_changed(state: State, event: ev.NodeStateChanged) -> None:
    node = state.nodes[event.node]
    if event.state in _SILENT and node.state in (NodeState.UP, NodeState.UNSEEN):
        goodbye = bool(node.drain) and node.ended_how == "goodbye"
        node.left_in_order = goodbye and not any(
            binding.node == node.name for vm in state.vms.values() for binding in vm.bindings
        )
    enter(node, event.state, event.at, event.reason)


def _session_opened(state: State, event: ev.SessionOpened) -> None:
    node = state.nodes.get(event.node)
    if node is None:
        node = state.nodes[event.node] = NodeRecord(event.node, created=event.at)
    if not node.machine_id:
        state.members_at = state.position
    node.machine_id = node.machine_id or event.facts.machine_id
    node.host_uuid = node.host_uuid or event.facts.host_uuid
    node.facts = event.facts
    if node.boot_id != event.session.boot_id:
        for ready in node.readiness:
            ready.off_at = 0.0  # it may well have been off between the two boots: that is no wrong device
    node.boot_id = event.session.boot_id
    node.session = event.session
    node.session_since = event.at
    node.via, node.protocol = event.via, event.protocol
    set_taints(node, event.at)
    node.connected = True
    node.doubted = False
    node.complete = event.complete
    node.ledger = event.ledger
    node.in_hand = event.in_hand
    node.last_sign = event.at
    node.ended_how, node.ended_by_it = "", False
    node.seen = True
    node.kept_told = False
    node.fact = state.position
    node.labels = {**node.labels, "virtward/hostname": event.node}  # none that a node gives itself: they attract VMs
    fold_controllers.take_controller(state, node)
    fold_storage.take_reaches(state, node, event.at)
    fold_store.take_highest(state, event.node, event.highest)
    fold_vms.take_reports(state, node, event.vms, event.definitions, full=True, at=event.at)


def _identity_refused(state: State, event: ev.IdentityRefused) -> None:
    node = state.nodes.get(event.node)
    if node is None:
        return
    known = node.impostor
    since, incident = (known.since, known.incident) if known is not None else (event.at, "")
    node.impostor = Impostor(event.machine_id, since, event.at, incident)
    node.fact = state.position


def _session_ended(state: State, event: ev.SessionEnded) -> None:
    node = state.nodes.get(event.node)
    if node is not None and node.session == event.session:
        node.connected = False
        node.ended_how, node.ended_by_it = event.how, event.by_it
        node.fact = state.position


def _beat_heard(state: State, event: ev.BeatHeard) -> None:
    node = state.nodes.get(event.node)
    if node is not None and node.connected and node.session == event.session and _speaks_of_now(state, event):
        node.last_sign = event.at
        node.load = event.load


def _speaks_of_now(state: State, beat: ev.BeatHeard) -> bool:
    """Return whether a beat is known to be younger than a lease; only a relay can keep one back unseen."""
    return beat.made_after is None or beat.at - beat.made_after <= state.config.lease


def _vms_reported(state: State, event: ev.VmsReported) -> None:
    node = state.nodes.get(event.node)
    if node is None or not node.connected or node.session != event.session:
        return
    if not node.via:
        node.last_sign = event.at  # of a relayed node only its beats show how old they are
    node.fact = state.position
    if event.full:
        node.complete = event.complete
        node.in_hand = event.in_hand
    if event.facts is not None:
        node.facts = event.facts
        node.host_uuid = node.host_uuid or event.facts.host_uuid
        set_taints(node, event.at)
        fold_controllers.take_controller(state, node)
        fold_storage.take_reaches(state, node, event.at)
    fold_vms.take_reports(state, node, event.vms, event.definitions, full=event.full and event.complete, at=event.at)


def _node_proven(state: State, event: ev.NodeProven) -> None:
    node = state.nodes[event.node]
    ours = node.attempt is not None and node.attempt.off_sent_at > 0
    node.inert = Inert(event.boot_id, event.proof, event.at, event.detail, by_our_off=ours)
    node.connected = False  # whatever its socket still says: that boot is over
    node.ended_how, node.ended_by_it = "its node was proven inert", False


def _session_doubted(state: State, event: ev.SessionDoubted) -> None:
    state.nodes[event.node].doubted = True


def _node_applied(state: State, event: ev.NodeApplied) -> None:
    node = state.nodes.get(event.name)
    if node is None:
        node = state.nodes[event.name] = NodeRecord(event.name, created=event.at)
    node.labels = {**event.labels, "virtward/hostname": event.name}
    node.spec = event.spec
    node.version = node.fact = state.position
    ready = {r.device: r for r in node.readiness if not r.distrusted}
    devices = [device_of(device) for rung in event.spec.fencing for device in devices_of(rung)]
    node.readiness = [ready.get(device) or RungReadiness(device=device) for device in devices]


def _node_approved(state: State, event: ev.NodeApproved) -> None:
    node = state.nodes[event.name]
    node.approved = True
    node.version = node.fact = state.position


def _node_token_issued(state: State, event: ev.NodeTokenIssued) -> None:
    node = state.nodes.get(event.name)
    if node is None:
        node = state.nodes[event.name] = NodeRecord(event.name, created=event.at)
    node.token_sha256 = event.token_sha256
    node.approved = True
    node.version = node.fact = state.position


def _node_deleted(state: State, event: ev.NodeDeleted) -> None:
    node = state.nodes.pop(event.name, None)
    if node is not None:
        fold_credentials.deny(state, node, event.at)
    for name in (node.incident, node.impostor.incident if node.impostor else "") if node is not None else ():
        if name in state.incidents:
            state.incidents[name].closed, state.incidents[name].way_out = event.at, ""
    state.members_at = state.position
    state.foreign.pop(event.name, None)
    fold_leftovers.forget(state, node=event.name)
    state.drains.pop(event.name, None)


def _off_confirmed(state: State, event: ev.OffConfirmed) -> None:
    node = state.nodes[event.name]
    node.off_confirmed_at = event.at
    node.off_confirmed_by = event.who
    node.fact = state.position


def _fence_requested(state: State, event: ev.FenceRequested) -> None:
    node = state.nodes[event.name]
    node.fence_wanted = True
    node.quiet_until = 0.0
    node.fact = state.position


def _node_flapping(state: State, event: ev.NodeFlapping) -> None:
    node = state.nodes[event.node]
    node.flaps = event.flaps
    set_taints(node, event.at)


def _node_forgiven(state: State, event: ev.NodeForgiven) -> None:
    node = state.nodes[event.name]
    node.failures = []
    node.fact = state.position


def number_of(identifier: str) -> int:
    """Return the number in an id such as ord-7."""
    return int(identifier.rsplit("-", 1)[1])


HANDLERS: dict[type[Event], Callable[..., None]] = {
    ev.NodeStateChanged: _node_state_changed,
    ev.SessionOpened: _session_opened,
    ev.SessionEnded: _session_ended,
    ev.IdentityRefused: _identity_refused,
    ev.BeatHeard: _beat_heard,
    ev.VmsReported: _vms_reported,
    ev.NodeProven: _node_proven,
    ev.SessionDoubted: _session_doubted,
    ev.NodeApplied: _node_applied,
    ev.NodeApproved: _node_approved,
    ev.NodeTokenIssued: _node_token_issued,
    **fold_credentials.HANDLERS,
    ev.NodeDeleted: _node_deleted,
    ev.OffConfirmed: _off_confirmed,
    ev.FenceRequested: _fence_requested,
    ev.NodeFlapping: _node_flapping,
    ev.NodeForgiven: _node_forgiven,
}
