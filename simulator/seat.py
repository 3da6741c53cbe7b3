"""How one aggregator of a world comes to lead, and how it knows that it still does.

Alone it has the store's lock from its start to its end. Among several it waits for the lease, keeps it, and counts
by its own machine's clock (aggregator.core.leadership). Losing it ends the process; systemd starts the next life.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aggregator.core.leadership import LEADER_LEASE_S, LOOK_EVERY_S, RENEW_EVERY_S, Candidacy, Tenure
from simulator.clock import LocalClock
from simulator.store import ConflictError, SimulatedStore, StoreLostError

if TYPE_CHECKING:
    from simulator.aggregator import SimulatedAggregator

ANSWER_S = (0.001, 0.006)  # of the store


class Seat:
    """The aggregator's place at the store. number: of its tenure, in the order of the whole world."""

    def __init__(self, aggregator: SimulatedAggregator, store: SimulatedStore, *, alone: bool) -> None:
        self.machine = LocalClock(aggregator.queue)
        self.number = 0
        self.instance = ""
        self.taken = False
        self.leads = False  # this tenure is journalled
        self._aggregator, self._store, self._alone = aggregator, store, alone
        self._tenure: Tenure | None = None
        self._candidacy = Candidacy(LEADER_LEASE_S)

    def stand_up(self) -> None:
        """The process is over."""
        self.taken = self.leads = False
        self._tenure = None

    def is_fresh(self) -> bool:
        """Say whether nobody else can lead now."""
        return self._alone or (self._tenure is not None and self._tenure.is_fresh(self.machine.now()))

    def begin(self) -> None:
        """A new life begins: read the store as soon as that is allowed."""
        self._candidacy = Candidacy(LEADER_LEASE_S)
        if self._alone:
            self._take(self.machine.now())
        else:
            self._look()

    def append(self, position: int, events: list[bytes]) -> str:
        """Write events; return why this process has to end, or an empty text."""
        try:
            self._store.append(self.instance, position, events)
        except StoreLostError:
            return "its store does not answer"
        except ConflictError:
            return "its store holds what it has not written"
        return ""

    def take_quietly(self) -> None:
        """The tenure that was already running at the beginning of the story."""
        self._take(self.machine.now(), quietly=True)
        self.leads = True

    # --- inside

    def _look(self) -> None:
        now_s = self.machine.now()
        try:
            revision, held = self._store.sight()
            self._candidacy.seen(now_s, revision, held=held)
        except StoreLostError:
            self._candidacy = Candidacy(LEADER_LEASE_S)
        if self._candidacy.may_take(now_s):
            self._aggregator.later(self._aggregator.draw(ANSWER_S), lambda: self._take(now_s))
        else:
            self._aggregator.later(LOOK_EVERY_S, self._look)

    def _take(self, asked_s: float, *, quietly: bool = False) -> None:
        """asked_s: before the lease was asked for."""
        instance = f"instance-{self._store.tenures + 1}"
        try:
            opened = self._store.take(instance)
        except ConflictError:
            self._aggregator.later(LOOK_EVERY_S, self._look)
            return
        except StoreLostError:
            self._aggregator.give_up("its store does not answer")
            return
        self.instance, self.number, self.taken = instance, opened.number, True
        if not self._alone:
            self._tenure = Tenure(LEADER_LEASE_S, asked_s)
            self._aggregator.later(RENEW_EVERY_S, self._renew)
        if not quietly:
            self._aggregator.lead(opened, instance)

    def _renew(self) -> None:
        """The store answers while we may be paused; what the answer is worth counts from before we asked."""
        asked_s, life = self.machine.now(), self._aggregator.life
        queue = self._aggregator.queue

        def at_the_store() -> None:
            if self._aggregator.life != life:
                return
            try:
                self._store.renew(self.instance)
            except StoreLostError:
                self._aggregator.when_running(lambda: self._answered(None))
            except ConflictError:
                self._aggregator.when_running(lambda: self._aggregator.give_up("its lease is over"))
            else:
                self._aggregator.when_running(lambda: self._answered(asked_s))

        queue.after(self._aggregator.draw(ANSWER_S), at_the_store)

    def _answered(self, asked_s: float | None) -> None:
        if asked_s is not None and self._tenure is not None:
            self._tenure.renewed(asked_s)
        if self._aggregator.may_act():
            self._aggregator.later(RENEW_EVERY_S, self._renew)
