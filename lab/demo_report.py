"""What the demo says in words and figures: sentences about events, and the last line.

Pure: builds text from what others saw.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime

from msgspec import Struct

from lab.truth import Cpus, Qemu, Sample
from lab.witness import GuestTail, Happening, silences_s


class Recovery(Struct):
    """Seconds from the power cut to each step."""

    suspect_s: float
    proof_s: float
    running_s: float
    counting_s: float


class Moved(Struct):
    """One live migration: from its start to its end, and the longest silence of the guest in between."""

    vm: str
    wall_s: float
    gap_s: float


class Judgement(Struct):
    """The end of the story. bad: VMs that do not run exactly once now; line: the JSON of the last line."""

    bad: list[str]
    line: str


def judge(
    sample: Sample,
    guests: Mapping[str, GuestTail],
    recovery: Recovery,
    moves: Sequence[Moved],
    *,
    page: str,
    twice: int,
) -> Judgement:
    """Return what became of each VM, by its guest and by the last look at every QEMU.

    downtime_s is the sum of a guest's silences of more than three ticks, from its first count to the last look.
    """
    running = {name: [qemu for qemu in sample.vms.get(name, []) if may_run(qemu)] for name in guests}
    result = {
        "vms": {
            name: {
                "node": running[name][0].host if running[name] else None,
                "starts": guest.says("boot from"),
                "downtime_s": round(silences_s(guest.ticks, sample.at_s), 3),
            }
            for name, guest in guests.items()
        },
        "recovery": {field: round(getattr(recovery, field), 3) for field in Recovery.__struct_fields__},
        "migrations": [
            {"vm": each.vm, "wall_s": round(each.wall_s, 3), "gap_s": round(each.gap_s, 3)} for each in moves
        ],
        "page": page,
        "twice": twice,
    }
    return Judgement(sorted(name for name, qemus in running.items() if len(qemus) != 1), json.dumps(result))


def may_run(qemu: Qemu) -> bool:
    """Say whether a QEMU's CPUs run or could at any moment."""
    return qemu.may_run or qemu.cpus is Cpus.RUNNING


def sentence_of(happening: Happening) -> str:
    """What happened, for a person; empty for what would only be noise."""
    kind, node, vm, message = happening.kind, happening.node, happening.vm, happening.message
    sentences = {
        "NodeProven": f"{node} is proven to run nothing: {message}",
        "IncidentOpened": f"incident opened: {message}",
        "IncidentClosed": f"incident closed: {message}".rstrip(": "),
        "StartDecided": f"{vm} is to start on {node}, {message}",
        "MigrationQueued": f"{vm} is to move: {message}",
        "MigrationChanged": f"{vm}: {message}",
        "DrainChanged": f"drain of {node}: {message}",
        "FenceAsked": f"{node}'s fence device: {message}",
        "BrakeChanged": f"brake {message}",
    }
    if kind in sentences:
        return sentences[kind]
    if kind.startswith("Node") and kind[4:] in ("Up", "Suspect", "AgentLost", "Lost", "Fencing", "Fenced", "Unseen"):
        return f"{node} is {kind[4:]}"
    if kind == "VmPhaseChanged" and message in ("Recovering", "Running", "Failed", "CrashLoopBackOff", "Unknown"):
        return f"{vm} is {message}" + (f" on {node}" if node else "")
    return ""


def colour_of(kind: str) -> str:
    """Bad news is red, doubts are yellow, good news is green."""
    if kind in ("NodeLost", "NodeFencing", "NodeFenced"):
        return "red"
    if kind in ("NodeSuspect", "NodeAgentLost", "IncidentOpened", "BrakeChanged"):
        return "yellow"
    return "green" if kind in ("NodeProven", "NodeUp", "IncidentClosed") else ""


def unix_s(timestamp: str) -> float:
    """UNIX seconds of an RFC 3339 time; 0 where there is none."""
    return datetime.fromisoformat(timestamp).timestamp() if timestamp else 0.0
