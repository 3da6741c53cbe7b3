"""How the next move for balance is shown to a person."""

from __future__ import annotations

from tests.unit.cli.conftest import Virtward
from tests.unit.cli.speaker import Speaker


def test_rebalance_says_mode_profile_and_the_move(speaker: Speaker, virtward: Virtward) -> None:
    found = {"mode": "Suggest", "profile": "LowNodeUtilization", "move": None, "words": "nothing to move"}
    speaker.says("GET", "/api/v1/rebalance", found)
    code, out, _ = virtward("rebalance")
    assert (code, out) == (0, "Suggest, LowNodeUtilization: nothing to move\n")
    code, out, _ = virtward("rebalance", "-o", "json")
    assert code == 0
    assert '"move": null' in out
