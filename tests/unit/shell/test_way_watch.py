"""The ways between nodes are asked about in turn, and one that is closed is said only when it was closed twice."""

from __future__ import annotations

from aggregator.core.events import NodeState
from aggregator.way_watch import AGAIN_S, WayWatch
from fleet.messages import CheckArrival, CheckDeparture, MoveChecked
from fleet.model import Finding
from tests.unit.core.fleet import Fleet


class Watched:
    """A fleet whose agents answer as told."""

    def __init__(self, nodes: int = 3) -> None:
        self.fleet = Fleet(nodes)
        self.fleet.run(2)
        self.closed_from: set[str] = set()  # nodes whose calls to others fail
        self.deaf = False
        self.watch = WayWatch(lambda: self.fleet.state, lambda: self.fleet.now, lambda: True, self.ask)

    async def ask(self, node: str, question: CheckArrival | CheckDeparture, _timeout_s: float) -> MoveChecked | None:
        if self.deaf:
            return None
        ok = isinstance(question, CheckArrival) or node not in self.closed_from
        return MoveChecked(question.check_id, (Finding("Call", ok=ok, message="it was called"),))

    async def look(self, source: str, target: str, times: int = 1) -> list[tuple[str, str]]:
        for _ in range(times):
            await self.watch.look(source, target)
        return [(way.source, way.target) for way in self.watch.closed]


def test_every_pair_has_its_turn() -> None:
    watched = Watched(4)
    pairs = [watched.watch.next_pair() for _ in range(12)]
    assert len(set(pairs)) == 12
    assert all(pair is not None and pair[0] != pair[1] for pair in pairs)
    assert [pair and pair[0] for pair in pairs[:4]] == ["n1", "n2", "n3", "n4"]


def test_a_single_node_has_nobody_to_ask() -> None:
    assert Watched(1).watch.next_pair() is None


async def test_a_way_is_closed_after_two_answers_and_open_after_one() -> None:
    watched = Watched()
    watched.closed_from.add("n1")
    assert await watched.look("n1", "n2") == []
    assert await watched.look("n1", "n2") == [("n1", "n2")]
    assert watched.watch.closed[0].why == "Call: n1: it was called"
    assert await watched.look("n2", "n1") == [("n1", "n2")]
    watched.closed_from.clear()
    assert await watched.look("n1", "n2") == []


async def test_what_was_closed_is_asked_again_soon() -> None:
    watched = Watched()
    watched.closed_from.add("n3")
    await watched.look("n3", "n1")
    watched.fleet.run(AGAIN_S - 1)
    assert watched.watch.next_pair() != ("n3", "n1")
    watched.fleet.run(2)
    assert watched.watch.next_pair() == ("n3", "n1")
    assert watched.watch.next_pair() != ("n3", "n1")


async def test_no_answer_says_nothing_and_a_node_that_is_away_has_no_ways() -> None:
    watched = Watched()
    watched.deaf = True
    assert await watched.look("n1", "n2", 5) == []
    watched.deaf = False
    watched.closed_from.add("n1")
    assert await watched.look("n1", "n2", 2) == [("n1", "n2")]
    watched.fleet.silent.add("n2")
    watched.fleet.run_until(lambda: watched.fleet.node("n2").state is not NodeState.UP)
    assert watched.watch.closed == ()
