"""When a check's results turn a node's verdict on itself, and when not: a flapping check moves nobody. Pure."""

from __future__ import annotations

from msgspec import Struct

from fleet.model import CheckVerdict

BAD_AFTER = 2  # results in a row, each at least so bad, before the verdict worsens
GOOD_AFTER = 5  # results in a row, each better, before it improves
LEVELS = {0: "Fine", 1: "Degraded", 2: "Failing"}
FINE = "Fine"


class Outcome(Struct, frozen=True):
    """One run of a check program. exit_code: None where it did not end by itself; message: its line."""

    exit_code: int | None
    message: str = ""

    @property
    def level(self) -> str:
        """Fine, Degraded, Failing, or Unknown: what cannot be told is no evidence, neither way."""
        return LEVELS.get(-1 if self.exit_code is None else self.exit_code, "Unknown")


class Steadied:
    """One check's verdict over its results."""

    def __init__(self) -> None:
        self.level = FINE
        self.message = ""
        self._worse: list[Outcome] = []
        self._better: list[Outcome] = []

    def take(self, outcome: Outcome) -> bool:
        """Take a result in; True: the verdict, or what it says, has changed."""
        before = (self.level, self.message)
        rank = _rank(outcome.level)
        if outcome.level == "Unknown":
            return False
        if rank == _rank(self.level):
            self._worse, self._better = [], []
            self.message = outcome.message if self.level != FINE else ""
        elif rank > _rank(self.level):
            self._better = []
            self._worse.append(outcome)
            if len(self._worse) >= BAD_AFTER:
                self._turn(min(self._worse, key=lambda each: _rank(each.level)))
        else:
            self._worse = []
            self._better.append(outcome)
            if len(self._better) >= GOOD_AFTER:
                self._turn(max(self._better, key=lambda each: _rank(each.level)))
        return (self.level, self.message) != before

    def _turn(self, to: Outcome) -> None:
        self.level = to.level
        self.message = to.message if to.level != FINE else ""
        self._worse, self._better = [], []


def _rank(level: str) -> int:
    return ("Fine", "Degraded", "Failing").index(level) if level != "Unknown" else 0


def effect_of(level: str, configured: str) -> str:
    """Return the taint that a verdict sets: the configured effect when it fails, at most a preference before."""
    if not configured or level == FINE:
        return ""
    return configured if level == "Failing" else "PreferNoSchedule"


def verdict(name: str, steadied: Steadied, configured: str) -> CheckVerdict | None:
    """Return what is told of a check, None while it is fine."""
    if steadied.level == FINE:
        return None
    return CheckVerdict(name, steadied.level, effect_of(steadied.level, configured), steadied.message)
