"""What people see of moves for balance: which one would be next, and what it waits for. Pure."""

from __future__ import annotations

from math import isinf

from aggregator.core.calm import why_not_calm
from aggregator.core.fold_moves import ENDED
from aggregator.core.moments import rfc3339
from aggregator.core.rebalance import PRIORITY_REBALANCE, Move, next_allowed_at, next_move
from aggregator.core.state import State
from aggregator.core.views import Plain


def rebalance_view(state: State, now: float) -> Plain:
    """Return mode, profile, the next move (None: nothing would be better), and a sentence about it all."""
    settings = state.config.rebalance
    own = [m for m in state.migrations.values() if m.priority == PRIORITY_REBALANCE and m.phase not in ENDED]
    move = next_move(state, now) if settings.mode != "Off" and not own else None
    waits = _waits(state, now, move) if move is not None else ""
    return {
        "mode": settings.mode,
        "profile": state.config.profile,
        "move": None if move is None else _shown(move),
        "underWay": [m.name for m in own],
        "waits": waits,
        "words": _words(state, move, waits, [m.name for m in own]),
    }


def _shown(move: Move) -> Plain:
    return {
        "vm": move.vm,
        "source": move.source,
        "target": move.target,
        "why": move.why,
        "notBefore": rfc3339(move.due),
    }


def _waits(state: State, now: float, move: Move) -> str:
    """Return why the move would not be made now; empty if it would."""
    if why := why_not_calm(state, now):
        return why
    allowed = next_allowed_at(state, now)
    if isinf(allowed):
        return "rebalance.movesPerHourMax is 0"
    if allowed > now:
        return f"rebalance.movesPerHourMax is reached until {rfc3339(allowed)}"
    if move.due > now:
        return f"it has to last until {rfc3339(move.due)} (rebalance.hold, rebalance.cooldown)"
    return ""


def _words(state: State, move: Move | None, waits: str, own: list[str]) -> str:
    mode = state.config.rebalance.mode
    if own:
        return f"{', '.join(own)} moves a VM for balance"
    if mode == "Off":
        return "off"
    if move is None:
        return "nothing to move" if state.config.profile != "NoScoring" else "profile NoScoring never moves a VM"
    to = f"{move.vm} from {move.source} to {move.target} ({move.why})"
    if waits:
        return f"{'would move' if mode == 'Suggest' else 'is to move'} {to}; it waits: {waits}"
    if mode == "Suggest":
        return f"suggests to move {to}: virtward migrate {move.vm} --to {move.target}"
    return f"moves {to}"
