"""The fencing ladder: whom to fence, and how.

A Lost node whose VMs would start elsewhere is fenced rung by rung; a node that was found off, or is in
nobody's way, is never shot. Whatever the device answers, only proofs.py says whether it proves
anything. Pure.
"""

from __future__ import annotations

from math import inf

from aggregator.core.arming import is_vm_disarmed, why_held
from aggregator.core.draft import Draft
from aggregator.core.events import FenceFailed, NodeState, PowerAnswer
from aggregator.core.fence_questions import ask, usable_rungs, waits_for
from aggregator.core.fencing_device import devices_of
from aggregator.core.lookups import CONVICTED, bound_to, pinned_to, survives_loss
from aggregator.core.nodes import (
    BRAKE_WORDS,
    beats_again,
    brake_limit,
    evidence_of,
    may_convict,
    silence_s,
    silent_nodes,
    step,
)
from aggregator.core.policy import off_orders_per_hour_max
from aggregator.core.proofs import is_listener
from aggregator.core.reference import runs_here
from aggregator.core.state import FenceAttempt, NodeRecord, State, VmRecord
from fleet.units import parse_duration_s

OFF_TIMEOUT_S = 10.0
OFF_SETTLES_S = 6.0
OFF_TRIES_MAX = 2
DAY_S = 86400.0
HOUR_S = 3600.0


def would_move(state: State, node: NodeRecord) -> list[str]:
    """Return the VMs that would start elsewhere if the node were proven inert."""
    return [vm.name for vm in bound_to(state, node.name) if _would_move(state, vm, node)]


def _would_move(state: State, vm: VmRecord, node: NodeRecord) -> bool:
    if state.disarmed and is_vm_disarmed(state, vm.name) and not vm.start_wanted:
        return False
    return survives_loss(vm) and pinned_to(vm) != node.name and not _runs_elsewhere(state, vm, node)


def _runs_elsewhere(state: State, vm: VmRecord, node: NodeRecord) -> bool:
    """Return whether the VM's run is on another node that nobody has given up: a copy here keeps nothing down."""
    owner = state.nodes.get(vm.owner)
    if not vm.run_open or owner is None or owner.name == node.name or owner.state in CONVICTED:
        return False
    return any(binding.node == owner.name for binding in vm.bindings)


def decide_fencing(draft: Draft) -> None:
    """Begin attempts on Lost nodes, walk the ladder of those in Fencing, power on afterwards."""
    for node in draft.state.derived.active_nodes:
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
    if held := _held(state, node):
        return held
    if runs_here(state, node):
        return "this aggregator runs on it, and never convicts its own host"
    if not usable_rungs(node):
        return "it has no fence device that was shown to be its own and on"
    if verdict := may_convict(draft) or _beyond_the_brake(draft, node):
        return verdict
    if not draft.due(node.quiet_until):
        return "the last attempt failed; the next one waits"
    if in_flight >= state.config.fences_in_flight_max:
        return "enough other nodes are being fenced"
    return _hour_is_full(draft, node)


def _beyond_the_brake(draft: Draft, node: NodeRecord) -> str:
    """Return that a node which still beats would be one too many to be shot; empty if it would not (S6)."""
    others = [name for name in silent_nodes(draft) if name != node.name]
    if len(others) < brake_limit(draft.state):
        return ""
    return f"{', '.join(others)} fell silent lately, and one node more would be beyond the brake"


def _held(state: State, node: NodeRecord) -> str:
    return "" if node.fence_wanted else why_held(state, node=node.name)


def why_no_fence(node: NodeRecord) -> str:
    """Return why a person's order to fence the node is refused; empty if it is taken.

    Kept for a node that beats it would lie in wait and shoot at the first silence, past evidence and limits.
    """
    if node.state not in (NodeState.UP, NodeState.JOINING):
        return ""
    return (
        f"node {node.name} is {node.state}, and a node that speaks is not fenced; move its VMs away with "
        f"virtward drain {node.name}, or switch it off yourself: its VMs start elsewhere once its device says off"
    )


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
    return f"{limit} nodes may be ordered off within the hour without a person, and were"


def _tries(node: NodeRecord) -> int:
    return node.attempt.tries if node.attempt is not None else 0


def _begin(draft: Draft, node: NodeRecord) -> None:
    if why_not_fenced(draft, node):
        return
    moving = would_move(draft.state, node)
    why = f"{', '.join(moving)} would start elsewhere" if moving else "asked for by a person"
    step(draft, node, NodeState.FENCING, why)


def _walk(draft: Draft, node: NodeRecord, attempt: FenceAttempt) -> None:
    """Send the next off order once the last one is answered or its slot is over."""
    rungs = usable_rungs(node)
    if not attempt.tries:
        _order_first(draft, node, attempt, rungs)
        return
    if waits_for(draft, node, "off"):
        return
    carried_out = is_carried_out(node, attempt)
    if carried_out and not draft.due(attempt.answered_at + OFF_SETTLES_S):
        return
    following = _next_rung(node, attempt, rungs, retry=not carried_out)
    if following is None:
        _give_up(draft, node, attempt)
    elif why := _why_no_more(draft, node, attempt, carried_out=carried_out):
        _give_up(draft, node, attempt, why)
    elif not may_convict(draft) and (_is_known_to_answer(attempt) or not _not_shown_silent(draft, node)):
        # else a new life of the aggregator, or a doubt: asked again before anybody is switched off
        ask(draft, node, following, "off", "fencing", OFF_TIMEOUT_S)


def _order_first(draft: Draft, node: NodeRecord, attempt: FenceAttempt, rungs: list[int]) -> None:
    if held := _held(draft.state, node):
        _give_up(draft, node, attempt, held)
    elif not rungs:
        _give_up(draft, node, attempt)
    elif draft.state.brake_closed:
        _give_up(draft, node, attempt, BRAKE_WORDS)
    elif draft.due(_listened_until(node, rungs[0])) and not may_convict(draft):  # else a rung above it has its time
        ask(draft, node, rungs[0], "off", "fencing", OFF_TIMEOUT_S)


def _listened_until(node: NodeRecord, rung: int) -> float:
    """Return until when the rungs above this one listen for a crash kernel: it may be writing its dump."""
    above = [i for i in range(rung) if is_listener(node, i)]
    since = node.suspicion.since if node.suspicion is not None else 0.0
    return max((since + parse_duration_s(node.spec.fencing[i].timeout) for i in above), default=0.0)


def is_carried_out(node: NodeRecord, attempt: FenceAttempt) -> bool:
    """Return whether every device of the rung says that the last off order was carried out."""
    rungs = node.spec.fencing
    several = len(devices_of(rungs[attempt.rung])) if attempt.rung < len(rungs) else 1
    return len(attempt.answers) >= several and all(answer is PowerAnswer.DONE for answer in attempt.answers)


def is_past_first_order(node: NodeRecord, attempt: FenceAttempt) -> bool:
    """Return whether the ladder's first off order has given no proof, and another one was sent."""
    rungs = usable_rungs(node)
    return attempt.tries > 1 or (attempt.tries > 0 and bool(rungs) and attempt.rung != rungs[0])


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
        return BRAKE_WORDS
    return ("" if _is_known_to_answer(attempt) else _heard_words(draft, node)) or _held(draft.state, node)


def _is_known_to_answer(attempt: FenceAttempt) -> bool:
    """Return whether that peers get answers is nothing new; living: in a journal of before there is no other word."""
    return attempt.answering or attempt.living


def _heard_words(draft: Draft, node: NodeRecord) -> str:
    """Return that peers get answers from a node that is to be fenced by itself; empty if none does now."""
    evidence = evidence_of(draft, node)
    if node.fence_wanted or not (evidence.fresh and evidence.heard):
        return ""
    return f"a peer gets answers from it ({', '.join(evidence.heard)})"


def _give_up(draft: Draft, node: NodeRecord, attempt: FenceAttempt, why: str = "") -> None:
    reads = node.suspicion.reads if node.suspicion is not None else []
    said = f"; status says {reads[-1].answer.lower()}" if reads else ""
    detail = ("; ".join(attempt.notes) or _unanswered(attempt)) + said + (f"; {why}" if why else "")
    draft.add(FenceFailed(at=draft.now, node=node.name, detail=detail, cause=node.fact))
    step(draft, node, NodeState.LOST, f"fencing gave no proof: {detail}")


def _unanswered(attempt: FenceAttempt) -> str:
    return "no answer to the off order" if attempt.tries else "no off order was given"


def power_on_limit_words(state: State, node: NodeRecord, now: float) -> str:
    """Return that a node was powered on as often within a day as it may be; empty if it was not."""
    today = [t for t in node.power_ons if t > now - DAY_S]
    most = state.config.flap.power_on_per_day_max
    if len(today) < most:
        return ""
    return f"it was powered on {len(today)} times within a day, and flap.powerOnPerDayMax is {most}"


def _power_on(draft: Draft, node: NodeRecord) -> None:
    inert = node.inert
    if inert is None or not inert.by_our_off or node.power_on_asked_at >= inert.at:
        return
    if node.spec.after_fence != "On" or node.drain or why_held(draft.state, node=node.name):
        return
    if bound_to(draft.state, node.name) or not draft.due(inert.at):
        return
    rungs = usable_rungs(node)
    if not rungs or power_on_limit_words(draft.state, node, draft.now):
        return
    rung = node.attempt.rung if node.attempt is not None and node.attempt.rung in rungs else rungs[0]
    ask(draft, node, rung, "on", "power-on", inf)
