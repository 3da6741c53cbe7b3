"""How events change what is known of fence devices and of the attempts to fence a node.

Assigns to the state; called by fold only. What an answer proves is proofs.py's business.
"""

from __future__ import annotations

from collections.abc import Callable

from aggregator.core import events as ev
from aggregator.core.events import Event, NodeState, PowerAnswer
from aggregator.core.fencing_device import device_of, devices_of, identity_problem, place_of
from aggregator.core.fold_nodes import number_of
from aggregator.core.state import CrashHeard, FenceQuestion, NodeRecord, PowerRead, RungReadiness, State

POWER_READS_MAX = 20
POWER_ONS_KEPT = 10
FENCE_MARGIN_S = 5.0


def _fence_asked(state: State, event: ev.FenceAsked) -> None:
    node = state.nodes[event.node]
    state.counters["q"] = max(state.counters.get("q", 0), number_of(event.question_id))
    node.questions[event.question_id] = FenceQuestion(
        event.question_id, event.rung, event.question, event.purpose, event.at, event.deadline, event.device
    )
    if node.suspicion is not None and event.question == "status":
        node.suspicion.power_asked_at = event.at
    elif node.suspicion is not None and event.question == "listen":
        node.suspicion.listened_at[event.rung] = event.at
    if event.device:
        return  # the rung was counted with its first device
    if event.question == "off":
        node.convicted_at = event.at
        node.first_off_at = node.first_off_at or event.at
        if node.attempt is None or not node.attempt.off_sent_at:  # the rest of its ladder is the same attempt
            state.off_orders = [t for t in state.off_orders if t > event.at - 3600] + [event.at]
        if node.attempt is not None:
            node.attempt.answers = []
            if event.rung != node.attempt.rung:
                node.attempt.tries = 0
            node.attempt.rung = event.rung
            node.attempt.tries += 1
            node.attempt.off_sent_at = event.at
            node.attempt.may_act_until = event.deadline + FENCE_MARGIN_S
    if event.question == "on":
        node.power_on_asked_at = event.at
        node.power_ons = [*node.power_ons[-POWER_ONS_KEPT:], event.at]


def _fence_answered(state: State, event: ev.FenceAnswered) -> None:
    node = state.nodes.get(event.node)
    question = node.questions.pop(event.question_id, None) if node is not None else None
    if node is None or question is None:
        return
    node.fact = state.position
    if question.purpose == "readiness":
        _take_readiness(node, question, event)
    elif question.question == "status":
        if node.suspicion is not None:
            read = PowerRead(question.rung, event.answer, event.asked_at, event.at, question.device)
            node.suspicion.reads = [*node.suspicion.reads[-POWER_READS_MAX:], read]
    elif question.question == "listen":
        if event.answer is PowerAnswer.CRASHED and node.suspicion is not None:
            node.suspicion.crashed = CrashHeard(question.rung, event.asked_at, event.at, event.line)
    elif question.question == "off" and node.attempt is not None:
        if question.asked_at >= node.attempt.off_sent_at:  # a late answer says nothing of the next order
            node.attempt.answered_at = event.at
            node.attempt.answers.append(event.answer)
        words = event.line or event.answer.lower()
        node.attempt.notes.append(f"{where_of(node, question)} off: {words}")
        if event.answer is not PowerAnswer.TIMEOUT:
            open_until = [q.deadline for q in node.questions.values() if q.question == "off"]  # its other devices
            node.attempt.may_act_until = max([event.at, *open_until]) + FENCE_MARGIN_S


def where_of(node: NodeRecord, question: FenceQuestion) -> str:
    """Return `rung 2`, or `rung 2 device 1` where the rung has several."""
    several = question.rung < len(node.spec.fencing) and len(devices_of(node.spec.fencing[question.rung])) > 1
    return f"rung {question.rung + 1}" + (f" device {question.device + 1}" if several else "")


def _take_readiness(node: NodeRecord, question: FenceQuestion, event: ev.FenceAnswered) -> None:
    place = place_of(node.spec, question.rung, question.device)
    if place is None:
        return
    device = devices_of(node.spec.fencing[question.rung])[question.device]
    while len(node.readiness) <= place:
        node.readiness.append(RungReadiness(device=""))
    ready = node.readiness[place]
    if ready.device != device_of(device):
        ready = node.readiness[place] = RungReadiness(device=device_of(device))
    ready.checked_at = event.at
    # Up and connected, not the last beat's time: beats are not journalled, a replay must agree.
    beating = node.connected and node.state is NodeState.UP
    if ready.distrusted:
        return
    if event.answer is PowerAnswer.ON and beating:
        ready.problem = identity_problem(device, node.facts)
        ready.identity = "" if ready.problem else device.identity
        ready.found_in = ""
        ready.on_at = event.at
        ready.off_at = 0.0
    elif event.answer is PowerAnswer.OFF and beating:
        ready.off_at = event.at  # the node may just have lost its power: its next beat will tell
    elif event.answer not in (PowerAnswer.ON, PowerAnswer.OFF):
        ready.problem = event.line or f"the device gave no answer ({event.answer.lower()})"


def _device_distrusted(state: State, event: ev.DeviceDistrusted) -> None:
    node = state.nodes[event.node]
    place = place_of(node.spec, event.rung, event.device)
    if place is None:
        return
    ready = node.readiness[place]
    ready.distrusted = True
    ready.on_at = ready.off_at = 0.0
    ready.identity = ""
    ready.problem = event.reason


def _fence_failed(state: State, event: ev.FenceFailed) -> None:
    node = state.nodes[event.node]
    node.quiet_until = event.at + state.config.fence_quiet
    node.fence_wanted = False


HANDLERS: dict[type[Event], Callable[..., None]] = {
    ev.FenceAsked: _fence_asked,
    ev.FenceAnswered: _fence_answered,
    ev.DeviceDistrusted: _device_distrusted,
    ev.FenceFailed: _fence_failed,
}
