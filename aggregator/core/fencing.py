"""Evidence, readiness and the fencing ladder.

A silent node is asked about from all sides at once: peers probe it, its fence device is asked
for its status. A Lost node whose VMs would start elsewhere is fenced rung by rung; a node that
was found off, or is in nobody's way, is never shot. Whatever the device answers, only proofs.py
says whether it proves anything. Pure.
"""

from __future__ import annotations

from aggregator.core.actions import AskFence, SendProbe
from aggregator.core.draft import Draft
from aggregator.core.events import (
    DeviceDistrusted,
    EvidenceSought,
    FenceAsked,
    FenceFailed,
    NodeState,
    PowerAnswer,
)
from aggregator.core.lookups import CONVICTED, acts, bound_to, pinned_to, speaks_directly, survives_loss
from aggregator.core.nodes import beats_again, evidence_of, may_convict, silence_s, step
from aggregator.core.policy import off_orders_per_hour_max
from aggregator.core.proofs import OFF_SPAN_S, first_of_off_series, rung_is_trusted
from aggregator.core.state import FenceAttempt, NodeRecord, State, VmRecord
from fleet.messages import ProbeAddress, ProbeRequest
from fleet.model import Plane
from fleet.units import parse_duration_s

PROBE_EVERY_S = 1.0
QUICK_FOR_S = 60.0
HEARD_EVERY_S = 2.0
SLOW_EVERY_S = 10.0
PROBERS_MAX = 2
STATUS_EVERY_S = 0.5
STATUS_TIMEOUT_S = 8.0
OFF_TIMEOUT_S = 10.0
OFF_SETTLES_S = 6.0
OFF_TRIES_MAX = 2
READINESS_IN_FLIGHT_MAX = 4
PROBED_PLANES = (Plane.CONTROL, Plane.MIGRATION)
ASKED_ABOUT = (NodeState.UNSEEN, NodeState.SUSPECT, NodeState.AGENT_LOST, NodeState.LOST)
DAY_S = 86400.0
HOUR_S = 3600.0


def decide_evidence(draft: Draft) -> None:
    """Ask peers and fence devices about nodes that are silent."""
    for node in draft.state.nodes.values():
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
        elif node.state is NodeState.FENCING:
            _ask_peers(draft, node)
            _ask_device(draft, node)
        elif node.state is NodeState.FENCED and _another_reads_off(draft, node):
            _ask_device(draft, node)


def _another_reads_off(draft: Draft, node: NodeRecord) -> bool:
    """Return whether a silent node's device says off: then this one's must still say so too (a swap)."""
    return any(
        other.name != node.name
        and other.state in ASKED_ABOUT
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
    probers = sorted(
        other.name for other in draft.state.nodes.values() if speaks_directly(other) and other.name != node.name
    )
    for prober in probers[:PROBERS_MAX] if addresses else ():
        probe_id = draft.new_id("probe")
        draft.add(EvidenceSought(at=draft.now, node=node.name, probe_id=probe_id, prober=prober, cause=node.fact))
        request = ProbeRequest(probe_id, node.name, addresses)
        draft.act(SendProbe(decided_at=draft.now, prober=prober, request=request))


def _ask_device(draft: Draft, node: NodeRecord) -> None:
    """Ask for the status of the rung in use, or of the first trusted one."""
    if node.suspicion is None or _waits_for(draft, node, "status"):
        return
    trusted = [i for i in range(len(node.spec.fencing)) if rung_is_trusted(node, i)]
    if node.attempt is not None and node.attempt.tries and node.attempt.rung < len(node.spec.fencing):
        rung = node.attempt.rung
    elif trusted:
        rung = trusted[node.suspicion.rounds % len(trusted)] if len(trusted) > 1 else trusted[0]
    else:
        return
    first = first_of_off_series(node, node.suspicion, rung)
    due_at = node.suspicion.power_asked_at + _pace_s(draft, node, STATUS_EVERY_S)
    if first is not None and node.suspicion.power_asked_at < first.answered_at + OFF_SPAN_S:
        due_at = first.answered_at + OFF_SPAN_S  # the reading that makes two of them a proof
    if draft.due(due_at):
        _ask(draft, node, rung, "status", "evidence", STATUS_TIMEOUT_S)


def _waits_for(draft: Draft, node: NodeRecord, question: str) -> bool:
    """Return whether an answer may still come; a slot is given back at its deadline."""
    ends = [q.deadline for q in node.questions.values() if q.question == question]
    return bool(ends) and not draft.due(max(ends))


def _ask(draft: Draft, node: NodeRecord, rung: int, question: str, purpose: str, timeout_s: float) -> None:
    question_id = draft.new_id("q")
    draft.add(
        FenceAsked(
            at=draft.now,
            node=node.name,
            question_id=question_id,
            rung=rung,
            question=question,
            purpose=purpose,
            deadline=draft.now + timeout_s,
            cause=node.fact,
        )
    )
    draft.act(
        AskFence(
            decided_at=draft.now,
            node=node.name,
            question_id=question_id,
            rung=node.spec.fencing[rung],
            question=question,
            timeout_s=timeout_s,
        )
    )


def decide_trust(draft: Draft) -> None:
    """Stop trusting a device that said off about a node that went on beating."""
    for node in draft.state.nodes.values():
        for index, ready in enumerate(node.readiness):
            if ready.off_at and node.last_sign > ready.off_at + draft.state.config.heartbeat:
                draft.add(
                    DeviceDistrusted(
                        at=draft.now,
                        node=node.name,
                        rung=index,
                        reason="the device says off while the node beats: it is not this node's device; "
                        "apply the node again once its entry is right",
                        cause=node.fact,
                    )
                )


def decide_readiness(draft: Draft) -> None:
    """Show, while a node beats, that its fence devices say on and are its own."""
    state = draft.state
    room = READINESS_IN_FLIGHT_MAX - sum(len(n.questions) for n in state.nodes.values())
    for node in state.nodes.values():
        if node.state is not NodeState.UP or node.questions or not beats_again(draft, node):
            continue
        for index in range(len(node.spec.fencing)):
            ready = node.readiness[index] if index < len(node.readiness) else None
            checked_at = ready.checked_at if ready is not None else 0.0
            due_at = checked_at + state.config.readiness_every
            if room > 0 and (not checked_at or draft.due(due_at)):
                _ask(draft, node, index, "status", "readiness", STATUS_TIMEOUT_S)
                room -= 1
                break


def would_move(state: State, node: NodeRecord) -> list[str]:
    """Return the VMs that would start elsewhere if the node were proven inert."""
    return [vm.name for vm in bound_to(state, node.name) if _would_move(state, vm, node)]


def _would_move(state: State, vm: VmRecord, node: NodeRecord) -> bool:
    return survives_loss(vm) and pinned_to(vm) != node.name and not _runs_elsewhere(state, vm, node)


def _runs_elsewhere(state: State, vm: VmRecord, node: NodeRecord) -> bool:
    """Return whether the VM's run is on another node that nobody has given up: a copy here keeps nothing down."""
    owner = state.nodes.get(vm.owner)
    if not vm.run_open or owner is None or owner.name == node.name or owner.state in CONVICTED:
        return False
    return any(binding.node == owner.name for binding in vm.bindings)


def decide_fencing(draft: Draft) -> None:
    """Begin attempts on Lost nodes, walk the ladder of those in Fencing, power on afterwards."""
    for node in draft.state.nodes.values():
        if draft.transitions:
            return  # the limits count what was decided: one node at a look
        if node.state is NodeState.LOST:
            _begin(draft, node)
        elif node.state is NodeState.FENCING and node.attempt is not None:
            _walk(draft, node, node.attempt)
        elif node.state is NodeState.FENCED:
            _power_on(draft, node)


def why_not_fenced(draft: Draft, node: NodeRecord) -> str:
    """Return what keeps a Lost node from being fenced now; empty if nothing does."""
    if not node.fence_wanted and not would_move(draft.state, node):
        return "no VM on it would start elsewhere"
    return why_not_shot(draft, node) or _not_shown_silent(draft, node)


def why_not_shot(draft: Draft, node: NodeRecord) -> str:
    """Return which device, limit or doubt forbids an off order to this node now, silent or not; empty if none does."""
    state = draft.state
    in_flight = sum(1 for n in state.nodes.values() if n.state is NodeState.FENCING)
    if not _usable_rungs(node):
        return "it has no fence device that was shown to be its own and on"
    if verdict := may_convict(draft):
        return verdict
    if not draft.due(node.quiet_until):
        return "the last attempt failed; the next one waits"
    if in_flight >= state.config.fences_in_flight_max:
        return "enough other nodes are being fenced"
    return _hour_is_full(draft, node)


def _not_shown_silent(draft: Draft, node: NodeRecord) -> str:
    """Return why the node is not known to be silent in this life of the aggregator; empty if it is."""
    silent_since = draft.now - silence_s(draft, node)
    if not draft.due(silent_since + draft.state.config.lost_after):
        return "it has not been silent for long enough since the aggregator started"
    if node.fence_wanted:
        return ""
    evidence = evidence_of(draft, node)
    if evidence.heard:
        return f"a peer gets answers from it ({', '.join(evidence.heard)}), so its VMs may well run"
    return "" if evidence.fresh else "its peers are being asked again"


def _hour_is_full(draft: Draft, node: NodeRecord) -> str:
    """Return why an off order needs a person now, empty if it does not. Orders about to be given count."""
    state = draft.state
    lately = [t for t in state.off_orders if t > draft.now - HOUR_S]
    coming = sum(1 for n in state.nodes.values() if n.state is NodeState.FENCING and not _tries(n))
    limit = off_orders_per_hour_max(state.config, len(state.nodes))
    if len(lately) + coming < limit or node.fence_wanted:
        return ""
    if lately:
        draft.look_again(min(lately) + HOUR_S)
    return f"{limit} off orders within the hour need no person, more do"


def _tries(node: NodeRecord) -> int:
    return node.attempt.tries if node.attempt is not None else 0


def _usable_rungs(node: NodeRecord) -> list[int]:
    return [i for i in range(len(node.spec.fencing)) if rung_is_trusted(node, i)]


def _begin(draft: Draft, node: NodeRecord) -> None:
    if why_not_fenced(draft, node):
        return
    moving = would_move(draft.state, node)
    why = f"{', '.join(moving)} would start elsewhere" if moving else "asked for by a person"
    step(draft, node, NodeState.FENCING, why)


def _walk(draft: Draft, node: NodeRecord, attempt: FenceAttempt) -> None:
    """Send the next off order once the last one is answered or its slot is over."""
    rungs = _usable_rungs(node)
    if not attempt.tries:
        if rungs:
            _ask(draft, node, rungs[0], "off", "fencing", OFF_TIMEOUT_S)
        else:
            _give_up(draft, node, attempt)
        return
    if _waits_for(draft, node, "off"):
        return
    carried_out = bool(attempt.answers) and attempt.answers[-1] is PowerAnswer.DONE
    if carried_out and not draft.due(attempt.answered_at + OFF_SETTLES_S):
        return
    following = _next_rung(node, attempt, rungs, retry=not carried_out)
    if following is None:
        _give_up(draft, node, attempt)
    elif why := _why_no_more(draft, node, attempt, carried_out=carried_out):
        _give_up(draft, node, attempt, why)
    elif not may_convict(draft) and (attempt.living or not _not_shown_silent(draft, node)):
        # else a new life of the aggregator, or a doubt: asked again before anybody is switched off
        _ask(draft, node, following, "off", "fencing", OFF_TIMEOUT_S)


def _next_rung(node: NodeRecord, attempt: FenceAttempt, rungs: list[int], *, retry: bool) -> int | None:
    """Return the rung that gets the next off order: the same one once more, or the next one down."""
    if retry and attempt.rung in rungs and attempt.tries < min(OFF_TRIES_MAX, node.spec.fencing[attempt.rung].tries):
        return attempt.rung
    return next((i for i in rungs if i > attempt.rung), None)


def _why_no_more(draft: Draft, node: NodeRecord, attempt: FenceAttempt, *, carried_out: bool) -> str:
    """Return why an attempt ends before its ladder does; empty if it goes on.

    A node that is fenced although it beats goes on beating while its device does nothing. One that
    beats after its device said that it is done has somebody else's device.
    """
    if beats_again(draft, node) and (carried_out or not attempt.living):
        return "it beats again"
    if draft.state.brake_closed:
        return "the brake is closed: too many nodes fell silent"
    return _hour_is_full(draft, node)


def _give_up(draft: Draft, node: NodeRecord, attempt: FenceAttempt, why: str = "") -> None:
    reads = node.suspicion.reads if node.suspicion is not None else []
    said = f"; status says {reads[-1].answer.lower()}" if reads else ""
    detail = ("; ".join(attempt.notes) or "no answer to the off order") + said + (f"; {why}" if why else "")
    draft.add(FenceFailed(at=draft.now, node=node.name, detail=detail, cause=node.fact))
    step(draft, node, NodeState.LOST, f"fencing gave no proof: {detail}")


def _power_on(draft: Draft, node: NodeRecord) -> None:
    inert = node.inert
    if inert is None or not inert.by_our_off or node.power_on_asked_at >= inert.at:
        return
    if node.spec.after_fence != "On" or node.drain or not acts(draft.state.config):
        return
    if bound_to(draft.state, node.name) or not draft.due(inert.at):
        return
    today = [t for t in node.power_ons if t > draft.now - DAY_S]
    rungs = _usable_rungs(node)
    if not rungs or len(today) >= draft.state.config.flap.power_on_per_day_max:
        return
    rung = node.attempt.rung if node.attempt is not None and node.attempt.rung in rungs else rungs[0]
    timeout_s = parse_duration_s(node.spec.fencing[rung].timeout)
    _ask(draft, node, rung, "on", "power-on", timeout_s)
