"""How the loss of nodes is shown to a person."""

from __future__ import annotations

from tests.unit.cli.conftest import Virtward
from tests.unit.cli.speaker import Speaker


def test_whatif_says_what_stays_down_first_and_why(speaker: Speaker, virtward: Virtward) -> None:
    fates = [
        {"vm": "a", "lostOn": "h1", "node": "h2", "why": "", "note": "", "rejected": {}},
        {
            "vm": "b",
            "lostOn": "h1",
            "node": None,
            "why": "no node takes it (VMAffinity on 2)",
            "note": "",
            "rejected": {},
        },
    ]
    estimate = {"powerLostS": 5.3, "hungS": 12.6, "madeOf": "this and that"}
    found = {"failed": ["h1"], "vms": fates, "brake": "too many at once", "estimate": estimate}
    speaker.says("GET", "/api/v1/whatif?fail=h1", found)
    code, out, _ = virtward("whatif", "--fail", "h1")
    assert code == 0
    assert out.splitlines() == [
        "2 VMs run on h1: 1 would return, 1 would not",
        "VM   FROM   TO           BECAUSE",
        "b    h1     stays down   no node takes it (VMAffinity on 2)",
        "a    h1     h2",
        "brake: too many at once",
        "about 5.3 s after a loss of power, 12.6 s after a hang (this and that)",
    ]


def test_whatif_alone_shows_the_standing_report(speaker: Speaker, virtward: Virtward) -> None:
    parts = [
        {"kind": "node", "name": "h1", "nodes": 1, "vms": 2, "unplaced": {"b": "there is no other node"}},
        {"kind": "rack", "name": "r1", "nodes": 2, "vms": 2, "unplaced": {}},
    ]
    speaker.says("GET", "/api/v1/readiness", {"at": "2026-01-01T00:00:00.000Z", "tookS": 0.1, "parts": parts})
    code, out, _ = virtward("whatif")
    assert code == 0
    assert out.splitlines() == [
        "as of 2026-01-01T00:00:00.000Z: 1 of 2 nodes, racks and zones could be lost",
        "node h1: 1 of 2 VMs would not return",
        "  b: there is no other node",
    ]
