"""What is asked about a silent node, and about every node's fence devices while it beats.

From all sides at once: peers probe it, its fence device is asked for its status, its crash kernel is
listened for. A device counts only once it was shown to be on, and the node's own, while the node beat.
What the answers prove is proofs.py's. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from aggregator.core.actions import SendProbe
from aggregator.core.draft import Draft
from aggregator.core.events import DeviceDistrusted, EvidenceSought, NodeState, PowerAnswer
from aggregator.core.fence_questions import STATUS_TIMEOUT_S, ask, ask_one, usable_rungs, waits_for
from aggregator.core.fencing_device import POWER_OFF, places
from aggregator.core.lookups import speaks_directly
from aggregator.core.nodes import EVIDENCE_FRESH_S, beats_again
from aggregator.core.proofs import OFF_SPAN_S, first_of_off_series, is_listener
from aggregator.core.state import NodeRecord, Suspicion
from fleet.messages import ProbeAddress, ProbeRequest
from fleet.model import Plane

PROBE_EVERY_S = 1.0
QUICK_FOR_S = 60.0
HEARD_EVERY_S = 2.0
SLOW_EVERY_S = 10.0
PROBERS_MAX = 2
STATUS_EVERY_S = 0.5
READINESS_IN_FLIGHT_MAX = 4
TOGETHER = 0.1  # of readinessEvery: a device whose check is due so soon is asked along with one that is due now
LISTENERS_MAX = 4  # each keeps a hand busy for as long as it listens
LISTEN_S_MAX = 60.0
LISTEN_AGAIN_S = 1.0
PROBED_PLANES = (Plane.CONTROL, Plane.MIGRATION)
ASKED_ABOUT = (NodeState.UNSEEN, NodeState.SUSPECT, NodeState.AGENT_LOST, NodeState.LOST)


def decide_evidence(draft: Draft) -> None:
    """Ask peers and fence devices about nodes that are silent."""
    for node in draft.state.derived.active_nodes:
        if node.suspicion is None:
            continue
        if beats_again(draft, node) and node.state is not NodeState.FENCING:
            draft.look_again(node.last_sign + draft.state.config.suspect_after)
        elif node.state in ASKED_ABOUT and node.machine_id:
            start = node.suspicion.since
            if node.state is NodeState.UNSEEN:
                start += draft.state.config.suspect_after
            if draft.due(start):
                _ask_peers(draft, node)
                _ask_device(draft, node)
                _listen(draft, node)
        elif node.state is NodeState.FENCING:
            _ask_peers(draft, node)
            _ask_device(draft, node)
            _listen(draft, node)
        elif node.state is NodeState.FENCED and _another_reads_off(draft, node):
            _ask_device(draft, node)


def _another_reads_off(draft: Draft, node: NodeRecord) -> bool:
    """Return whether a silent node's device says off: then this one's must still say so too (a swap)."""
    return any(
        other.name != node.name
        and (other.state in ASKED_ABOUT or other.state is NodeState.FENCING)
        and other.suspicion is not None
        and bool(other.suspicion.reads)
        and other.suspicion.reads[-1].answer is PowerAnswer.OFF
        for other in draft.state.nodes.values()
    )


def _pace_s(draft: Draft, node: NodeRecord, quick_s: float) -> float:
    """Return how long to wait between two questions: a node that stays silent is asked less often."""
    if node.suspicion is None or draft.now - node.suspicion.since < QUICK_FOR_S:
        return quick_s
    if node.state in {NodeState.AGENT_LOST, NodeState.FENCING}:
        return max(quick_s, HEARD_EVERY_S)
    return SLOW_EVERY_S


def _ask_peers(draft: Draft, node: NodeRecord) -> None:
    if node.suspicion is None or node.facts is None:
        return
    if not draft.due(node.suspicion.asked_at + _pace_s(draft, node, PROBE_EVERY_S)):
        return
    addresses = tuple(
        ProbeAddress(plane, port, node.facts.addresses[plane], number)
        for plane in PROBED_PLANES
        if node.facts.addresses.get(plane)
        for port, number in (
            ("agent", node.facts.agent_port),
            ("libvirt", node.facts.libvirt_port),
            ("ssh", node.facts.ssh_port),
        )
        if number
    )
    for prober in _probers(draft, node, node.suspicion) if addresses else ():
        probe_id = draft.new_id("probe")
        draft.add(EvidenceSought(at=draft.now, node=node.name, probe_id=probe_id, prober=prober, cause=node.fact))
        request = ProbeRequest(probe_id, node.name, addresses)
        draft.act(SendProbe(decided_at=draft.now, prober=prober, request=request))


def _probers(draft: Draft, node: NodeRecord, suspicion: Suspicion) -> list[str]:
    """Return who is asked now: peers that hear the node are asked again, the others in turn."""
    names = sorted(n.name for n in draft.state.nodes.values() if speaks_directly(n) and n.name != node.name)
    since = draft.now - EVIDENCE_FRESH_S
    in_touch = [name for name in names if suspicion.heard_by.get(name, 0.0) > since]
    others = [name for name in names if name not in in_touch]
    turn = suspicion.rounds % len(others) if others else 0
    return [*in_touch, *others[turn:], *others[:turn]][:PROBERS_MAX]


def _ask_device(draft: Draft, node: NodeRecord) -> None:
    """Ask for the status of the rung in use, or of the first trusted one."""
    if node.suspicion is None:
        return
    trusted = usable_rungs(node)
    if node.attempt is not None and node.attempt.tries and node.attempt.rung < len(node.spec.fencing):
        rung = node.attempt.rung
    elif trusted:
        rung = trusted[node.suspicion.rounds % len(trusted)] if len(trusted) > 1 else trusted[0]
    else:
        return
    if waits_for(draft, node, "status", rung):
        return
    first = first_of_off_series(node, node.suspicion, rung)
    due_at = node.suspicion.power_asked_at + _pace_s(draft, node, STATUS_EVERY_S)
    if first is not None and node.suspicion.power_asked_at < first.answered_at + OFF_SPAN_S:
        due_at = first.answered_at + OFF_SPAN_S  # the reading that makes two of them a proof
    if draft.due(due_at):
        ask(draft, node, rung, "status", "evidence", STATUS_TIMEOUT_S)


def _listen(draft: Draft, node: NodeRecord) -> None:
    """Listen for the crash kernel of a silent node: harmless, so from the first moment on, and again and again."""
    suspicion = node.suspicion
    if suspicion is None or suspicion.crashed is not None:
        return
    busy = sum(1 for n in draft.state.nodes.values() for q in n.questions.values() if q.question == "listen")
    for rung in range(len(node.spec.fencing)):
        if not is_listener(node, rung) or waits_for(draft, node, "listen", rung) or busy >= LISTENERS_MAX:
            continue
        if draft.due(suspicion.listened_at.get(rung, 0.0) + _pace_s(draft, node, LISTEN_AGAIN_S)):
            ask(draft, node, rung, "listen", "evidence", LISTEN_S_MAX)


def decide_trust(draft: Draft) -> None:
    """Stop trusting a device that said off about a node that went on beating."""
    for node in draft.state.derived.active_nodes:
        for (rung, device), ready in zip(places(node.spec), node.readiness, strict=False):
            if ready.off_at and node.last_sign > ready.off_at + draft.state.config.heartbeat:
                draft.add(
                    DeviceDistrusted(
                        at=draft.now,
                        node=node.name,
                        rung=rung,
                        device=device,
                        reason="the device says off while the node beats: it is not this node's device; "
                        "apply the node again once its entry is right",
                        cause=node.fact,
                    )
                )


def decide_readiness(draft: Draft) -> None:
    """Show, while a node beats, that its fence devices say on and are its own."""
    state = draft.state
    active = state.derived.active_nodes
    room = READINESS_IN_FLIGHT_MAX - sum([len(n.questions) for n in active])
    if room <= 0:
        return
    nodes: Iterable[NodeRecord] = state.nodes.values() if _is_any_unready(draft) else active
    unready = any(due_at <= draft.now for node in nodes for due_at, _ in _checks(draft, node))
    soon = draft.now + state.config.readiness_every * TOGETHER if unready else draft.now
    for node in state.nodes.values() if unready else nodes:
        for due_at, which in _checks(draft, node):
            if due_at > soon:
                draft.look_again(due_at)
            elif room > 0:
                ask_one(draft, node, which, ("status", "readiness"), STATUS_TIMEOUT_S)
                room -= 1
                break


def _checks(draft: Draft, node: NodeRecord) -> list[tuple[float, tuple[int, int]]]:
    """Return (when its check is due, (rung, device)) of every device that can be asked while the node lives."""
    if node.state is not NodeState.UP or node.questions or not beats_again(draft, node):
        return []
    every_s, ready = draft.state.config.readiness_every, node.readiness
    return [
        ((ready[place].checked_at if place < len(ready) else 0.0) + every_s, which)
        for place, which in enumerate(places(node.spec))
        if node.spec.fencing[which[0]].proof == POWER_OFF
    ]


def _is_any_unready(draft: Draft) -> bool:
    """Return whether a node at rest has a device that is to be asked now, or does not beat just now."""
    state, derived = draft.state, draft.state.derived
    if not derived.resting_nodes:
        return False
    if draft.now - min([node.last_sign for node in derived.resting_nodes]) >= state.config.suspect_after:
        return True
    first_at = derived.checked_first_at
    return not first_at or draft.due(first_at + state.config.readiness_every)
