"""Where a node stands, and every step it may take.

A node that falls silent is Suspect: tainted, free and reversible. What then becomes of it hangs
on evidence, never on time alone: peers that hear it make it AgentLost (its VMs run, nobody is
fenced); silence on two planes makes it Lost; a fence device that says off makes it Fenced at
once, for that is the proof already. Lost is a verdict, not a proof: only Fenced lets its VMs
start elsewhere, and only another boot leaves Fenced. After a start of the aggregator every node
is Unseen: amnesia is not knowledge (S7).

Pure: reads the state, decides steps. The proof itself is proofs.py's, the ladder fencing.py's.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from aggregator.core.actions import CloseSession
from aggregator.core.arming import acts
from aggregator.core.beats import falls_silent_at
from aggregator.core.contradictions import RECONNECT_DELAY_S_MAX
from aggregator.core.draft import Draft
from aggregator.core.events import BrakeChanged, NodeProven, NodeState, NodeStateChanged, ProofKind
from aggregator.core.lookups import SILENT, counts_from, doubt_over_at, grace_over
from aggregator.core.policy import lost_nodes_max
from aggregator.core.proofs import off_proof
from aggregator.core.reference import reference_doubt, runs_here
from aggregator.core.state import NodeRecord, State, Suspicion

EVIDENCE_FRESH_S = 5.0
PLANES_FOR_SHORT_WAIT = 2
BRAKE_MARGIN_S = 1.0  # so that the first and the last of a window never fall on its two ends
RELAY_TRIES_FIRST = 3  # an agent that has just lost its link tries for itself first
RELAY_EVERY_S = 2.0
BRAKE_WORDS = "the brake is closed: too many nodes fell silent"

STEPS: dict[NodeState, tuple[NodeState, ...]] = {
    NodeState.JOINING: (NodeState.UP,),
    NodeState.UNSEEN: (NodeState.UP, NodeState.AGENT_LOST, NodeState.LOST, NodeState.FENCED),
    NodeState.UP: (NodeState.SUSPECT, NodeState.UNSEEN, NodeState.FENCED, NodeState.FENCING),
    NodeState.SUSPECT: (
        NodeState.UP,
        NodeState.UNSEEN,
        NodeState.AGENT_LOST,
        NodeState.LOST,
        NodeState.FENCED,
    ),
    NodeState.AGENT_LOST: (
        NodeState.UP,
        NodeState.UNSEEN,
        NodeState.LOST,
        NodeState.FENCED,
        NodeState.FENCING,
    ),
    NodeState.LOST: (NodeState.UP, NodeState.FENCING, NodeState.FENCED),
    NodeState.FENCING: (NodeState.FENCED, NodeState.LOST),
    NodeState.FENCED: (NodeState.UP,),
}
"""The table; UNSEEN is entered only by a start of the aggregator, FENCED from anywhere by proof.

A node that is Up is fenced only for QEMUs that do not end there (storage_loss.py), one that is AgentLost only for VMs
that it keeps down after its rescue (rescue.py).
"""


class IllegalStepError(RuntimeError):
    """Somebody decided a step the table does not have: a defect."""


def step(draft: Draft, node: NodeRecord, to: NodeState, reason: str) -> None:
    """Decide a step; IllegalStepError if the table does not have it."""
    if to not in STEPS[node.state]:
        raise IllegalStepError(f"node {node.name} cannot go from {node.state} to {to} ({reason})")
    draft.add(NodeStateChanged(at=draft.now, node=node.name, state=to, reason=reason, cause=node.fact))


def decide_nodes(draft: Draft) -> None:
    """Take every node one step along the table, where there is a reason to."""
    nodes: Iterable[NodeRecord] = draft.state.derived.active_nodes
    if _is_any_overdue(draft):
        nodes = draft.state.nodes.values()
    for node in nodes:
        if not _proven(draft, node):
            _STEPPERS[node.state](draft, node)


def _is_any_overdue(draft: Draft) -> bool:
    """Return whether a node at rest has been silent for too long; of the rest this alone is watched here."""
    state = draft.state
    if not state.derived.resting_nodes:
        return False
    first = min([node.last_sign for node in state.derived.resting_nodes])
    base = max(first, counts_from(state), state.doubted_at)
    return draft.now >= base + state.config.suspect_after  # when to look again: beats.silence_due_at


def decide_brake(draft: Draft) -> None:
    """Close the brake when too many nodes fell silent within its window, open it afterwards (S6)."""
    state = draft.state
    silent = silent_nodes(draft)
    closed = len(silent) > brake_limit(state)
    if closed != state.brake_closed:
        word = "more nodes fell silent than the brake lets through" if closed else "nodes are back"
        draft.add(BrakeChanged(at=draft.now, closed=closed, nodes=tuple(silent), reason=word))


def brake_limit(state: State) -> int:
    """Return how many nodes may be lost at once before nobody is convicted any more."""
    if state.derived.brake_limit is None:
        state.derived.brake_limit = _count_brake_limit(state)
    return state.derived.brake_limit


def _count_brake_limit(state: State) -> int:
    members = [n for n in state.nodes.values() if n.approved]
    domains: dict[tuple[str, str], int] = {}
    for node in members:
        for key in ("virtward/rack", "virtward/zone"):
            if key in node.labels:
                domain = (key, node.labels[key])
                domains[domain] = domains.get(domain, 0) + 1
    return lost_nodes_max(state.config, len(members), max(domains.values(), default=0))


def silent_nodes(draft: Draft) -> list[str]:
    """Return the nodes the brake counts: silent now, too long unseen, or fallen silent within its window.

    One that left in order is none of them, however long it is away: hosts are rebooted one after the other, and a real
    failure meanwhile is to be recovered. Nothing is bound to it, so its conviction would set nothing free.
    """
    window = draft.state.config.brake.window
    margin = BRAKE_MARGIN_S if window else 0.0
    found = []
    for node in draft.state.derived.fallen:
        fell_at = max(0.0 if node.left_in_order else node.silent_at, node.convicted_at)
        ends = fell_at + window + margin
        if not node.left_in_order and (node.state in SILENT or unseen_too_long(draft, node)):
            found.append(node.name)
        elif fell_at and ends > draft.now:
            draft.look_again(ends)
            found.append(node.name)
    return sorted(found)


def unseen_too_long(draft: Draft, node: NodeRecord) -> bool:
    """Return whether a node has not spoken in this life although it had the time to: it is silent, too."""
    if node.state is not NodeState.UNSEEN or node.connected or not (node.approved and node.machine_id):
        return False
    state = draft.state
    return draft.due(counts_from(state) + max(state.config.unseen_at_least, 2 * RECONNECT_DELAY_S_MAX))


def may_convict(draft: Draft) -> str:
    """Return why nobody may be convicted now; empty if verdicts may be given (S6, S7, S9)."""
    state = draft.state
    if not acts(state):
        return "the fleet only observes"
    if state.behind:
        return "the store is older than what agents have obeyed"
    if not grace_over(state, draft.now):
        draft.look_again(counts_from(state) + state.config.startup_grace.at_most)
        return "the start-up grace is not over"
    if not draft.due(doubt_over_at(state)):
        return f"the aggregator doubts itself: {state.doubt}"
    if state.brake_closed:
        return BRAKE_WORDS
    return reference_doubt(draft)


def silence_s(draft: Draft, node: NodeRecord) -> float:
    """Return for how long the node has been silent, in this life and since the last doubt."""
    return draft.now - max(node.last_sign, counts_from(draft.state), draft.state.doubted_at)


def beats_again(draft: Draft, node: NodeRecord) -> bool:
    """Return whether a standing session gives signs of life."""
    return node.connected and draft.now - node.last_sign < draft.state.config.suspect_after


class Evidence(Struct, frozen=True):
    """What peers last said of a node. fresh: it speaks of now; if not, newer answers are on their way."""

    heard: list[str]  # where a peer got an answer from it
    silent: list[str]  # planes on which it was silent
    fresh: bool


def evidence_of(draft: Draft, node: NodeRecord) -> Evidence:
    """Return what peers last said; empty where none could be asked, or none has answered for long."""
    suspicion = node.suspicion
    if suspicion is None:
        return Evidence([], [], fresh=True)
    newest = max([*suspicion.answered.values(), *suspicion.silent.values()], default=0.0)
    if draft.due(newest + draft.state.config.lost_after_one_plane):
        return Evidence([], [], fresh=True)  # nobody is waited for any more
    since = min(draft.now, newest) - EVIDENCE_FRESH_S
    heard = sorted(where for where, at in suspicion.answered.items() if at > since)
    silent = sorted(plane for plane, at in suspicion.silent.items() if at > since)
    return Evidence(heard, silent, fresh=newest > draft.now - EVIDENCE_FRESH_S)


def _proven(draft: Draft, node: NodeRecord) -> bool:
    if node.state in {NodeState.FENCED, NodeState.JOINING}:
        return False
    proof = off_proof(draft, node)
    if proof is None:
        return False
    kind, detail = proof
    already = node.state in (NodeState.SUSPECT, NodeState.UNSEEN, NodeState.UP)
    draft.add(
        NodeProven(
            at=draft.now,
            node=node.name,
            boot_id=node.boot_id,
            proof=kind,
            detail=detail,
            reason="already off" if already and kind is ProofKind.POWER_OFF else "",
            cause=node.fact,
        )
    )
    step(draft, node, NodeState.FENCED, detail)
    if node.connected:
        draft.act(CloseSession(decided_at=draft.now, node=node.name, why="this boot was proven inert"))
    return True


def _joining(draft: Draft, node: NodeRecord) -> None:
    if node.approved and node.connected and node.session is not None:
        step(draft, node, NodeState.UP, "joined")


def _unseen(draft: Draft, node: NodeRecord) -> None:
    if node.connected:
        step(draft, node, NodeState.UP, _again_words("heard", node))
        return
    if unseen_too_long(draft, node):
        _judge(draft, node, waited=True)


def _up(draft: Draft, node: NodeRecord) -> None:
    if draft.now >= falls_silent_at(draft.state, node):  # when to look again: beats.silence_due_at
        base = max(node.last_sign, counts_from(draft.state), draft.state.doubted_at)
        ended = f", its connection {node.ended_how}" if node.ended_how else ""
        step(draft, node, NodeState.SUSPECT, f"no beat for {draft.now - base:.1f} s{ended}")


def _suspect(draft: Draft, node: NodeRecord) -> None:
    if beats_again(draft, node):
        step(draft, node, NodeState.UP, _again_words("beats", node))
        return
    _judge(draft, node, waited=False)


def _again_words(verb: str, node: NodeRecord) -> str:
    return f"{verb} again, through {node.via}" if node.via else f"{verb} again"


def _agent_lost(draft: Draft, node: NodeRecord) -> None:
    if beats_again(draft, node):
        step(draft, node, NodeState.UP, _again_words("beats", node))
        return
    last_answer = max(node.suspicion.answered.values(), default=0.0) if node.suspicion else 0.0
    if draft.due(last_answer + draft.state.config.lost_after):
        _judge(draft, node, waited=True)


def _judge(draft: Draft, node: NodeRecord, *, waited: bool) -> None:
    """Convict, or not: with a life sign AgentLost; without any, on two planes or after long."""
    suspicion = node.suspicion
    if suspicion is None:
        return
    config = draft.state.config
    silence = silence_s(draft, node)
    start = draft.now - silence
    if not draft.due(start + config.lost_after):
        return
    evidence = evidence_of(draft, node)
    if not evidence.fresh:
        return
    if any(where.endswith("/agent") for where in evidence.heard) and _may_be_relayed(draft, suspicion):
        return
    if evidence.heard:
        if node.state is not NodeState.AGENT_LOST:
            where = ", ".join(evidence.heard)
            step(draft, node, NodeState.AGENT_LOST, f"no beat, but a peer gets answers ({where})")
        return
    fresh = evidence.silent
    two_planes = len(fresh) >= PLANES_FOR_SHORT_WAIT
    if not two_planes and not draft.due(start + config.lost_after_one_plane):
        return
    if waited and not fresh and not suspicion.reads:
        return  # no conviction without fresh evidence
    if may_convict(draft) or runs_here(draft.state, node):
        return
    seen = f"silent on {', '.join(fresh)}" if fresh else "no peer could be asked"
    step(draft, node, NodeState.LOST, f"no sign of life for {silence:.1f} s, {seen}")


def _may_be_relayed(draft: Draft, suspicion: Suspicion) -> bool:
    """Return whether an agent that lives may yet take a relay it was offered (relays.py)."""
    tries = suspicion.relay_tries
    return tries < RELAY_TRIES_FIRST or (
        tries == RELAY_TRIES_FIRST and not draft.due(suspicion.relay_asked_at + RELAY_EVERY_S)
    )


def _lost(draft: Draft, node: NodeRecord) -> None:
    if not node.connected or node.last_sign <= node.state_since:
        return
    if node.attempt is None or draft.due(node.attempt.may_act_until):
        step(draft, node, NodeState.UP, "came back")


def _fencing(_draft: Draft, _node: NodeRecord) -> None:
    """Only a proof or the end of the ladder leads out (fencing.py)."""


def _fenced(draft: Draft, node: NodeRecord) -> None:
    inert = node.inert
    if not node.connected or node.via or inert is None or node.boot_id == inert.boot_id:
        return
    if any(q.question == "off" for q in node.questions.values()):
        return
    if node.attempt is not None and not draft.due(node.attempt.may_act_until):
        return
    step(draft, node, NodeState.UP, "another boot of it has joined")


_STEPPERS = {
    NodeState.JOINING: _joining,
    NodeState.UNSEEN: _unseen,
    NodeState.UP: _up,
    NodeState.SUSPECT: _suspect,
    NodeState.AGENT_LOST: _agent_lost,
    NodeState.LOST: _lost,
    NodeState.FENCING: _fencing,
    NodeState.FENCED: _fenced,
}
