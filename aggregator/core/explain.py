"""`explain`: what is, why it is so, what is waited for, and what a person can do.

Pure texts from the state and its history. Decides nothing: where it says "waits for", the core's
deciders are the ones that wait.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from aggregator.core.arming import acts, arm_command, disarmed_words, holding
from aggregator.core.events import NodeState, VmPhase
from aggregator.core.explain_placement import chosen_text, elsewhere_text, smallest_change
from aggregator.core.fencing import power_on_limit_words
from aggregator.core.flapping import flap_words
from aggregator.core.host_state import stays_words
from aggregator.core.lookups import CONVICTED, open_orders, survives_loss, wants_run
from aggregator.core.migratable import obstacles
from aggregator.core.moments import rfc3339, span
from aggregator.core.seats import refusals
from aggregator.core.state import Binding, HistoryLine, NodeRecord, State, VmRecord
from aggregator.core.views_node import not_ready
from aggregator.core.views_vm import fencing_problem, hold_text, reason_of, unprotected

STEPS_MAX = 40


class Step(Struct, frozen=True, kw_only=True):
    """One line of how it came to this. cause: what led to it, in words; empty where nothing did."""

    at: str
    kind: str
    reason: str = ""
    cause: str = ""
    message: str = ""


class Explanation(Struct, frozen=True, kw_only=True):
    """The answer of GET /api/v1/explain/…: a text of a few short paragraphs, and the steps behind it."""

    text: str
    steps: tuple[Step, ...]


def explain_vm(state: State, record: VmRecord, history: Sequence[HistoryLine]) -> Explanation:
    """Explain one VM. history: its lines and those of its nodes, oldest first."""
    what = _what_vm(state, record)
    reason = reason_of(state, record)
    if reason:
        what += f" Why: {reason}."
    places = [*chosen_text(record), *elsewhere_text(state, record)]
    if places:
        what += "\n\n" + "\n".join(places)
    waits, ways = _waits_of_vm(state, record)
    unsafe, sentence = unprotected(state, record)
    if unsafe and record.run_open:
        waits.append(f"It is not protected: {sentence}.")
    elif record.run_open and (left := stays_words(record)):
        waits.append(f"It is protected, but {left}.")
    if record.run_open and not record.migration and (against := obstacles(state, record)):
        waits.append("It cannot be live-migrated:")
        waits.extend(f"  {blocker.message} ({blocker.reason})" for blocker in against)
    return Explanation(text=_paragraphs(what, waits, ways), steps=steps_of(history))


def explain_node(state: State, record: NodeRecord, history: Sequence[HistoryLine]) -> Explanation:
    """Explain one node. history: its lines, oldest first."""
    since = record.state_since or record.created
    what = f"Node {record.name} is {record.state} since {rfc3339(since)} ({span(state.now - since)})."
    if record.state_reason:
        what += f" Why: {record.state_reason}."
    waits, ways = _waits_of_node(state, record)
    return Explanation(text=_paragraphs(what, waits, ways), steps=steps_of(history))


def steps_of(history: Sequence[HistoryLine]) -> tuple[Step, ...]:
    """Return the newest lines as steps, each with the words of the line that caused it where that is known."""
    by_position = {line.position: line for line in history}
    return tuple(
        Step(
            at=rfc3339(line.at),
            kind=line.kind,
            reason=line.reason,
            cause=_cause(by_position.get(line.cause), line.cause),
            message=line.detail,
        )
        for line in history[-STEPS_MAX:]
    )


def _cause(line: HistoryLine | None, position: int) -> str:
    if line is None:
        return f"event {position}" if position else ""
    about = line.vm or line.node
    return f"{line.kind} {about}".strip() + f" at {rfc3339(line.at)}"


def _paragraphs(what: str, waits: Sequence[str], ways: Sequence[str]) -> str:
    parts = [what]
    if waits:
        parts.append("\n".join(waits))
    if ways:
        parts.append("What you can do:\n" + "\n".join(f"  {way}" for way in dict.fromkeys(ways)))
    return "\n\n".join(parts)


def _what_vm(state: State, record: VmRecord) -> str:
    since = record.phase_since or record.created
    where = f" on {record.owner}" if record.run_open and record.owner else ""
    run = f", run {record.run} at epoch {record.epoch}" if record.run else ", it never ran"
    return (
        f"VM {record.name} is {record.phase}{where} since {rfc3339(since)} ({span(state.now - since)}), "
        f"runStrategy {record.spec.run_strategy}{run}."
    )


def _waits_of_vm(state: State, record: VmRecord) -> tuple[list[str], list[str]]:
    """Return (sentences on what is waited for, commands that would help)."""
    waits: list[str] = []
    ways: list[str] = []
    if record.deleting:
        waits.append("It is being deleted; its name and disks are free once every node it is bound to has let it go.")
    _held_text(state, record.home or record.owner, record.name, waits, ways)
    if not acts(state):
        waits.append("The fleet only observes (mode Observe): nothing is started, moved or fenced.")
        ways.append("virtward config set mode=Act")
    for order in open_orders(state, record):
        kind = type(order.order.body).__name__
        waits.append(
            f"Order {order.order.order_id} ({kind}) was given to {order.node} {span(state.now - order.issued_at)} ago "
            f"and is {'begun' if order.accepted else 'not answered yet'}."
        )
    if record.migration and record.migration in state.migrations:
        moving = state.migrations[record.migration]
        waits.append(
            f"Migration {moving.name} from {moving.source} to {moving.target or '(not chosen yet)'} is {moving.phase}."
        )
    incident = state.incidents.get(record.incident)
    if incident is not None and incident.stuck:
        waits.append(f"Incident {incident.name}: {incident.stuck}.")
        ways.append(incident.way_out)
    _waits_for_nodes(state, record, waits, ways)
    if not record.run_open and not record.deleting:
        _waits_for_start(state, record, waits, ways)
    return waits, ways


def _waits_for_nodes(state: State, record: VmRecord, waits: list[str], ways: list[str]) -> None:
    for binding in record.bindings:
        node = state.nodes.get(binding.node)
        settled = record.run_open and record.phase is VmPhase.RUNNING and binding.node == record.owner
        if node is not None and node.state is NodeState.UP and settled:
            continue
        waits.append(_binding_text(record, binding, node))
        if node is not None and node.state in CONVICTED:
            waits.append(_proof_text(state, node))
            ways.append(f"virtward fence {node.name} --confirm-off    # if you have seen that it is off")
            ways.append(f"virtward confirm-gone {record.name}    # if you know that this VM runs nowhere")


def _binding_text(record: VmRecord, binding: Binding, node: NodeRecord | None) -> str:
    state = f"{node.state}" if node is not None else "no longer known"
    return (
        f"It is bound to {binding.node} ({binding.why}, boot {binding.boot_id[:8]}), which is {state}: "
        f"{record.name} starts elsewhere only after {binding.node} has released it or is proven inert."
    )


def _proof_text(state: State, node: NodeRecord) -> str:
    if state.brake_closed:
        return (
            "The brake is closed: too many nodes fell silent within brake.window; nothing is fenced without a person."
        )
    problem = fencing_problem(node)
    if problem:
        return f"{node.name} is not fenced automatically: {problem}."
    attempt = node.attempt
    if attempt is not None and attempt.notes:
        return f"Fencing of {node.name}, attempt {attempt.number}: {attempt.notes[-1]}."
    if node.quiet_until > state.now:
        return f"The next fencing attempt on {node.name} comes in {span(node.quiet_until - state.now)}."
    return f"{node.name} is being fenced by its ladder of {len(node.spec.fencing)}."


def _waits_for_start(state: State, record: VmRecord, waits: list[str], ways: list[str]) -> None:
    held = hold_text(state, record)
    if held:
        waits.append(f"Held: {held}.")
        ways.append(f"virtward start {record.name}")
    if record.rejected:
        waits.append("No node takes it now:")
        waits.extend(f"  {node}: {words}" for node, words in refusals(state, record).items())
        waits.extend(smallest_change(state, record))
        ways.append(
            "make room, or change the rules of the VM or the taints and labels of a node; it is retried for ever"
        )
    if not wants_run(record) and not record.bindings:
        ended = f" after its last run ended as {record.outcome}" if record.outcome else ""
        waits.append(f"It stays down by runStrategy {record.spec.run_strategy}{ended}.")
        ways.append(f"virtward start {record.name}")


def _waits_of_node(state: State, record: NodeRecord) -> tuple[list[str], list[str]]:
    waits: list[str] = []
    ways: list[str] = []
    reason, sentence = not_ready(state, record)
    if reason:
        waits.append(f"It takes no VMs: {sentence}.")
        if reason == "NotApproved" or record.state is NodeState.JOINING:
            ways.append(f"virtward node approve {record.name}")
    _held_text(state, record.name, "", waits, ways)
    if record.flaps:
        words = flap_words(record, state.config.flap.node_per_day_max)
        waits.append(f"No VM is placed on it (taint virtward/degraded): {words}.")
        ways.append(f"virtward uncordon {record.name}    # when you know why it failed")
    if record.spec.unschedulable:
        waits.append("It is cordoned by a person: nothing new is placed on it.")
        ways.append(f"virtward uncordon {record.name}")
    if record.drain or record.name in state.drains:
        _drain_text(state, record, waits, ways)
    bound = [vm.name for vm in state.vms.values() if any(b.node == record.name for b in vm.bindings)]
    if record.state in CONVICTED:
        back = [name for name in bound if survives_loss(state.vms[name])]
        waits.append(
            f"{len(bound)} VMs are bound to it"
            + (f", {len(back)} would start elsewhere: {', '.join(back)}." if back else ".")
        )
        if record.inert is not None:
            waits.append(f"It is proven inert ({record.inert.proof}): {record.inert.detail}.")
            limit = power_on_limit_words(state, record, state.now) if record.inert.by_our_off else ""
            if limit and record.power_on_asked_at < record.inert.at:
                waits.append(f"It is not powered on again by itself: {limit}.")
                ways.append(f"switch {record.name} on yourself when you know why it failed")
        else:
            waits.append(_proof_text(state, record))
            ways.append(f"virtward fence {record.name} --confirm-off    # if you have seen that it is off")
    elif problem := fencing_problem(record):
        waits.append(f"If it failed, a person would be needed: {problem}.")
    if record.incident:
        ways.append(f"virtward describe incident {record.incident}")
    return waits, ways


def _held_text(state: State, node: str, vm: str, waits: list[str], ways: list[str]) -> None:
    for held in holding(state, node, vm):
        words = disarmed_words(held)
        waits.append(f"{words[0].upper()}{words[1:]}: virtward does nothing to it by itself.")
        ways.append(arm_command(held))


def _drain_text(state: State, record: NodeRecord, waits: list[str], ways: list[str]) -> None:
    drain = state.drains.get(record.name)
    if drain is None:
        return
    waits.append(f"Its drain is {drain.state}" + (f", ended {rfc3339(drain.ended)}." if drain.ended else "."))
    waits.extend(f"  {vm} blocks it: {why}" for vm, why in sorted(drain.blocked.items()))
    if record.drain:
        ways.append(f"virtward uncordon {record.name}    # ends the drain")
