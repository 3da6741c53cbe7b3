"""Telling the target's agent that the source is Released, again and again until it answers. Pure."""

from __future__ import annotations

from msgspec import Struct

from agent.desk import Desk
from agent.keeper_types import PeerAnswered, TellPeer
from fleet.messages import MigrateVm, ReleasedNotice


class Telling(Struct):
    """One notice on its way. Times are monotonic seconds."""

    addresses: tuple[str, ...]
    notice: ReleasedNotice
    until_s: float
    next_s: float
    in_flight: bool


class Tells:
    """All notices on their way, by migration."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._tellings: dict[str, Telling] = {}

    def tell(self, body: MigrateVm, notice: ReleasedNotice) -> None:
        """Begin telling."""
        until_s = self.desk.now + self.desk.settings.tell_peer_s_max
        self._tellings[notice.migration] = Telling(body.peer_agent, notice, until_s, self.desk.now, in_flight=True)
        self.desk.out.append(TellPeer(body.peer_agent, notice))

    def answered(self, fact: PeerAnswered) -> None:
        """Stop at any answer; try again later without one."""
        telling = self._tellings.get(fact.migration)
        if telling is None:
            return
        telling.in_flight = False
        if fact.receipt is not None:
            del self._tellings[fact.migration]
            if not fact.receipt.accepted:
                self.desk.note("peer refused the hand-over", fact.uuid, fact.receipt.message, warning=True)
        else:
            telling.next_s = self.desk.now + self.desk.settings.tell_peer_every_s

    @property
    def idle(self) -> bool:
        """Whether no notice is on its way."""
        return not self._tellings

    def advance(self) -> None:
        """Repeat what is due; give up what is too old (the aggregator tells the target as well)."""
        for migration, telling in list(self._tellings.items()):
            if telling.in_flight:
                continue
            if self.desk.now >= telling.until_s:
                del self._tellings[migration]
                self.desk.note("peer not told of the hand-over", telling.notice.uuid, "no answer", warning=True)
            elif self.desk.now >= telling.next_s:
                telling.in_flight = True
                self.desk.out.append(TellPeer(telling.addresses, telling.notice))
            else:
                self.desk.wake_at(telling.next_s)
