"""Asks in the background, at a low rate, whether guests could move between each pair of nodes right now.

Each node asks one other a minute, in turn, as `virtward migrate NODE NODE --check` does. A way that is closed is asked
again soon and said only when it was closed twice. Knows when; what an answer means is core/preflight.py's.
What is found is kept in memory alone: another aggregator finds it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from aggregator.core.arrival_check import KNOWS_QUESTION, arrival_question
from aggregator.core.lookups import takes_vms
from aggregator.core.preflight import NO, ClosedWay, departure_question, way_check
from aggregator.core.state import State
from fleet.messages import CheckArrival, CheckDeparture, MoveChecked

ROUND_S = 60.0
PAUSE_S_MIN = 0.5
AGAIN_S = 10.0
TOLD_AFTER = 2  # answers in a row that say no
TIMEOUT_S = 8.0
CLOSED_MAX = 1000
OF_THE_WAY = ("Call", "Libvirt", "MigrationNetwork", "Ports", "TLS")  # not what depends on the guest

Ask = Callable[[str, CheckArrival | CheckDeparture, float], Awaitable[MoveChecked | None]]

_log = structlog.get_logger("aggregator.ways")


class WayWatch:
    """Which ways were found closed, and since when."""

    def __init__(
        self, state: Callable[[], State], now: Callable[[], float], leads: Callable[[], bool], ask: Ask
    ) -> None:
        self._state, self._now, self._leads, self._ask = state, now, leads, ask
        self._found: dict[tuple[str, str], tuple[ClosedWay, int]] = {}
        self._again: list[tuple[float, tuple[str, str]]] = []
        self._step = 0

    @property
    def closed(self) -> tuple[ClosedWay, ...]:
        """Return the ways that are known to be closed, by their ends."""
        known = set(self._nodes())
        told = [way for way, times in self._found.values() if times >= TOLD_AFTER and {way.source, way.target} <= known]
        return tuple(sorted(told, key=lambda way: (way.source, way.target)))

    async def run(self) -> None:
        """Ask until cancelled; a question that cannot be asked is logged, and the next one goes on."""
        while True:
            await asyncio.sleep(max(PAUSE_S_MIN, ROUND_S / max(1, len(self._nodes()))))
            pair = self.next_pair() if self._leads() else None
            if pair is None:
                continue
            try:
                await self.look(*pair)
            except Exception as error:  # noqa: BLE001 (the rim of a side task: a defect here must not end the aggregator)
                _log.error("way not asked", source=pair[0], target=pair[1], error=repr(error))

    def next_pair(self) -> tuple[str, str] | None:
        """Return whom to ask next about whom: what was closed and is due, else each node in turn, of another one."""
        nodes = self._nodes()
        if len(nodes) < 2:  # noqa: PLR2004 (a way has two ends)
            return None
        for entry in self._again:
            due_s, pair = entry
            if due_s <= self._now():
                self._again.remove(entry)
                if pair[0] in nodes and pair[1] in nodes:
                    return pair
                break
        place, turn = self._step % len(nodes), self._step // len(nodes)
        self._step += 1
        return nodes[place], nodes[(place + 1 + turn % (len(nodes) - 1)) % len(nodes)]

    async def look(self, source: str, target: str) -> None:
        """Ask both ends about one way, and remember it if one of them says that it is closed."""
        nodes = self._state().nodes
        departure, arrival = await asyncio.gather(
            self._ask(source, departure_question(None, nodes[target]), TIMEOUT_S),
            self._ask(target, arrival_question(None), TIMEOUT_S),
        )
        nodes = self._state().nodes
        if source not in nodes or target not in nodes or not takes_vms(nodes[source]) or not takes_vms(nodes[target]):
            return  # one end has gone meanwhile, which is no news about the way
        check = way_check(self._state(), nodes[source], nodes[target], arrival, departure)
        against = [f"{c.name}: {c.message}" for c in check.checks if c.status == NO and c.name in OF_THE_WAY]
        pair = (source, target)
        if not against:
            if self._found.pop(pair, None) is not None:
                _log.info("way open again", source=source, target=target)
            return
        old, times = self._found.get(pair, (None, 0))
        since = old.since if old is not None else self._now()
        way = ClosedWay(source=source, target=target, why="; ".join(against), since=since)
        if times + 1 == TOLD_AFTER:
            _log.warning("way closed", source=source, target=target, why=way.why)
        if pair in self._found or len(self._found) < CLOSED_MAX:
            self._found[pair] = (way, times + 1)
            self._again.append((self._now() + AGAIN_S, pair))

    def _nodes(self) -> list[str]:
        """Return the nodes that may give and take guests now and know the questions, by name."""
        nodes = self._state().nodes.values()
        return sorted(node.name for node in nodes if takes_vms(node) and node.protocol >= KNOWS_QUESTION)
