"""What happens to the aggregators of a made-up story and to their store, drawn beside its other faults.

Drawn by a generator of its own: most stories have one aggregator whose store is sound, and are what they would be
without this. Rates are drawn per seed.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from msgspec import structs

from simulator.dice import Dice
from simulator.faults import ClockJump, ClockRate, Signal, Store
from simulator.run import Happening

STEPS = (0, 0, 1, 2, 3, 5, 8, 13)
SEVERAL_SHARE = 0.15
STORE_SHARE = 0.12  # of the stories: something happens to their store
STRIKES = (1, 6)
HALF = 0.5
MOMENTS = ("StartDecided", "OrderIssued", "OrderClosed", "OwnerChanged", "BindingFreed", "NodeProven", "FenceAsked")
RATE = 0.005  # by how much a machine's raw clock may be wrong; two of them stay within the lease's margin
RATE_ELSEWHERE = 0.1  # by how much strikes.py has it wrong


class Leaders:
    """Draws what happens to them in one story."""

    def __init__(self, dice: Dice, aggregators: int) -> None:
        self.dice = dice
        self.aggregators = aggregators

    def target(self) -> str:
        return f"aggregator@{self.dice.random.randint(1, self.aggregators)}"

    def kill(self) -> None:
        at, target = self.dice.at(), self.target()
        kill = Signal(at=at, verb="kill", target=target, after_steps=self.dice.random.choice(STEPS))
        self.dice.add("kill aggregator", kill, Signal(at=self.dice.soon(at), verb="start", target=target))

    def pause(self) -> None:
        at, target = self.dice.at(), self.target()
        resume = Signal(at=self.dice.soon(at), verb="resume", target=target)
        self.dice.add("pause aggregator", Signal(at=at, verb="pause", target=target), resume)

    def at_a_moment(self) -> None:
        """Some of them at once, between the record of a decision and its deed."""
        at, when = self.dice.at(), self.dice.random.choice(MOMENTS)
        verb, back = self.dice.random.choice([("pause", "resume"), ("kill", "start")])
        for number in range(1, self.aggregators + 1):
            if self.dice.random.random() < HALF:
                target = f"aggregator@{number}"
                again = Signal(at=self.dice.delay_s(90.0), verb=back, target=target)
                self.dice.add_at_moment(f"{verb} aggregator", when, Signal(at=at, verb=verb, target=target), again)

    def clock(self) -> None:
        at, target, random = self.dice.at(), self.target(), self.dice.random
        if random.random() < HALF:
            self.dice.add("clock jump", ClockJump(at=at, target=target, by_s=round(random.uniform(-4000, 4000), 1)))
        else:
            rate = round(1 + random.uniform(-RATE, RATE), 5)
            self.dice.add("clock rate", ClockRate(at=at, target=target, rate=rate))

    def lose_store(self) -> None:
        at = self.dice.at()
        self.dice.add("store lost", Store(at=at, to="lost"), Store(at=self.dice.soon(at), to="back"))

    def roll_store_back(self) -> None:
        by_s = round(self.dice.random.uniform(0.05, 1.0) ** 2 * 120.0, 3)
        back, when = Store(at=self.dice.at(), to="rolledBack", by_s=by_s), self.dice.random.choice(["", *MOMENTS])
        if when:
            self.dice.add_at_moment("store rolled back", when, back)
        else:
            self.dice.add("store rolled back", back)


def draw_leaders(seed: int, dice: Dice) -> int:
    """Add what happens to a story's aggregators and their store; return how many aggregators it has."""
    random = dice.random = Random(f"{seed} leaders")
    leaders = Leaders(dice, random.choice([2, 3]) if random.random() < SEVERAL_SHARE else 1)
    kinds: list[Callable[[], None]] = []
    if leaders.aggregators > 1:
        dice.happenings = [_with_sound_clock(happening) for happening in dice.happenings]
        kinds += [leaders.kill, leaders.pause, leaders.at_a_moment, leaders.clock]
    if random.random() < STORE_SHARE:
        kinds += [leaders.lose_store, leaders.roll_store_back]
    if kinds:
        weights = [random.uniform(0.05, 1.0) for _ in kinds]
        for kind in random.choices(kinds, weights, k=random.randint(*STRIKES)):
            kind()
    return leaders.aggregators


def _with_sound_clock(happening: Happening) -> Happening:
    """A raw clock that is wrong by more than the margin of a lease is nobody's."""
    fault = happening.fault
    if not isinstance(fault, ClockRate) or not fault.target.startswith("aggregator@"):
        return happening
    slow = structs.replace(fault, rate=round(1 + (fault.rate - 1) * RATE / RATE_ELSEWHERE, 5))
    return structs.replace(happening, fault=slow, words=happening.words.replace(str(fault), str(slow)))
