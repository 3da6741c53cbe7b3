"""How a question or an order to a fence device is put, and which rungs may be asked. Pure."""

from __future__ import annotations

from aggregator.core.actions import AskFence
from aggregator.core.draft import Draft
from aggregator.core.events import FenceAsked
from aggregator.core.fencing_device import alone, devices_of
from aggregator.core.proofs import rung_is_trusted
from aggregator.core.state import NodeRecord
from fleet.units import parse_duration_s

STATUS_TIMEOUT_S = 8.0


def usable_rungs(node: NodeRecord) -> list[int]:
    return [i for i in range(len(node.spec.fencing)) if rung_is_trusted(node, i)]


def waits_for(draft: Draft, node: NodeRecord, question: str, rung: int | None = None) -> bool:
    """Return whether an answer may still come, from any rung or that one; a slot is given back at its deadline."""
    asked = [q for q in node.questions.values() if q.question == question]
    ends = [q.deadline for q in asked if rung is None or q.rung == rung]
    return bool(ends) and not draft.due(max(ends))


def ask(draft: Draft, node: NodeRecord, rung: int, question: str, purpose: str, timeout_s: float) -> None:
    """Ask every device of a rung, or order it, at once."""
    for device in range(len(devices_of(node.spec.fencing[rung]))):
        ask_one(draft, node, (rung, device), (question, purpose), timeout_s)


def ask_one(draft: Draft, node: NodeRecord, which: tuple[int, int], what: tuple[str, str], timeout_s: float) -> None:
    """Ask one device. which: (rung, device); what: (question, purpose)."""
    (rung, device), (question, purpose) = which, what
    entry = node.spec.fencing[rung]
    within_s = min(timeout_s, parse_duration_s(entry.timeout))
    question_id = draft.new_id("q")
    draft.add(
        FenceAsked(
            at=draft.now,
            node=node.name,
            question_id=question_id,
            rung=rung,
            device=device,
            question=question,
            purpose=purpose,
            deadline=draft.now + within_s,
            cause=node.fact,
        )
    )
    draft.act(
        AskFence(
            decided_at=draft.now,
            node=node.name,
            question_id=question_id,
            rung=alone(entry, device),
            question=question,
            timeout_s=within_s,
        )
    )
