"""The order of things: folded, journalled, then done; and nothing at all once store or core have failed."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from aggregator.act.agents import AgentsHand
from aggregator.breach_files import FILES_MAX, BreachFiles
from aggregator.clock import FleetClock
from aggregator.core import nodes as nodes_module
from aggregator.core.actions import CloseSession, SendOrder, SendProbe
from aggregator.core.draft import Draft
from aggregator.core.events import BeatHeard, Event, NodeApplied, NodeState, NodeStateChanged, OrderDropped
from aggregator.core.journal_form import FORM_VERSION, decode_state, encode_state
from aggregator.core.objects import NodeSpec
from aggregator.core.state import NodeRecord, State
from aggregator.fault_point import FaultPoint
from aggregator.fleet_access import HistoryQuery, NotServingError
from aggregator.self_watch import SelfWatch
from aggregator.store import sqlite as sqlite_module
from aggregator.store.sqlite import FILE_NAME, SqliteStore
from fleet.messages import DestroyVm, Order, ProbeRequest
from fleet.model import Leadership, SessionKey
from fleet.service import ServiceError
from tests.unit.shell.agent_speaker import PATIENCE_S, enrol
from tests.unit.shell.conftest import Opener, Running


def applied(running: Running, name: str, **labels: str) -> NodeApplied:
    return NodeApplied(at=running.fleet.now(), name=name, labels=labels, spec=NodeSpec(), who="test")


class NobodyFolds(Event, frozen=True, kw_only=True):
    """A fact that the core does not know."""


class MachineClock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.monotonic, self.wall, self.slept = 100.0, 5000.0, 0.0

    def monotonic_s(self) -> float:
        return self.monotonic

    def wall_s(self) -> float:
        return self.wall

    def boottime_offset_s(self) -> float:
        return self.slept


async def test_a_write_answers_with_its_position_when_it_is_durable(opened: Opener, tmp_path: Path) -> None:
    running = await opened()
    position = await running.fleet.submit(applied(running, "h1"))
    with sqlite3.connect(tmp_path / FILE_NAME) as file:
        row = file.execute("SELECT kind, node FROM journal WHERE position = ?", (position,)).fetchone()
    assert row == ("NodeApplied", "h1")
    assert "h1" in running.fleet.state.nodes


async def test_writes_side_by_side_get_their_own_positions(opened: Opener) -> None:
    running = await opened()
    names = [f"n{number}" for number in range(20)]
    positions = await asyncio.gather(*(running.fleet.submit(applied(running, name)) for name in names))
    lines = {line.position: line.node for line in await running.fleet.history(HistoryQuery(kind="NodeApplied"))}
    assert [lines[position] for position in positions] == names


async def test_a_check_that_fails_leaves_everything_as_it_was(opened: Opener) -> None:
    running = await opened()
    before = encode_state(running.fleet.state)

    def refuse(state: State) -> None:
        raise KeyError("409")

    with pytest.raises(KeyError, match="409"):
        await running.fleet.submit(applied(running, "h1"), refuse)
    assert encode_state(running.fleet.state) == before


async def test_a_check_sees_what_was_folded_right_before_it(opened: Opener) -> None:
    """Two writers with the same resourceVersion: exactly one of them may win."""
    running = await opened()

    def only_new(state: State) -> None:
        if "h1" in state.nodes:
            raise FileExistsError

    writes = [running.fleet.submit(applied(running, "h1", by=str(n)), only_new) for n in range(5)]
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert [isinstance(result, int) for result in results].count(True) == 1
    assert [type(result) for result in results].count(FileExistsError) == 4


async def test_a_change_wakes_who_waits_for_it(opened: Opener) -> None:
    running = await opened()
    before = running.fleet.durable_position
    waiting = asyncio.create_task(running.fleet.wait_for_change(before))
    position = await running.fleet.submit(applied(running, "h1"))
    async with asyncio.timeout(PATIENCE_S):
        assert await waiting >= position


async def test_a_beat_is_folded_and_never_journalled(opened: Opener) -> None:
    running = await opened()
    await enrol(running.fleet, "h1")
    agent = running.agent("h1")
    await agent.stand()
    first = running.fleet.durable_position
    while not running.fleet.state.nodes["h1"].connected:
        first = await running.fleet.wait_for_change(first)
    before = running.fleet.state.nodes["h1"].last_sign
    running.fleet.offer(BeatHeard(at=running.fleet.now(), node="h1", session=agent.session, sequence=9))
    turns = running.fleet.loop.turns
    while running.fleet.loop.turns == turns:  # noqa: ASYNC110 (a beat announces nothing that could be waited for)
        await asyncio.sleep(0.01)
    assert running.fleet.state.nodes["h1"].last_sign > before
    assert await running.fleet.history(HistoryQuery(kind="BeatHeard")) == []


async def test_the_next_life_reads_the_same_state_and_has_a_higher_term(opened: Opener) -> None:
    first = await opened()
    await enrol(first.fleet, "h1", "h2")
    kept = first.fleet.state.nodes
    term, secret = first.fleet.state.leader.term, first.fleet.state.secret
    await first.close()
    second = await opened()
    assert second.fleet.state.nodes == kept
    assert second.fleet.state.leader.term == term + 1
    assert second.fleet.state.secret == secret
    assert secret
    assert second.fleet.now() >= max(line.at for line in await second.fleet.history(HistoryQuery()))


async def test_the_file_sets_its_keys_and_leaves_the_others(opened: Opener) -> None:
    first = await opened(lostAfter="10s", brake={"window": "5m"})
    assert float(first.fleet.state.config.lost_after) == 10
    await first.close()
    second = await opened(suspectAfter="4s")
    config = second.fleet.state.config
    found = [float(value) for value in (config.lost_after, config.suspect_after, config.brake.window)]
    assert found == [10, 4, 300]


async def test_a_lost_store_stops_everything_at_once(
    opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else holds the file's write lock for good: the write fails, nothing is acknowledged, the loop ends."""
    monkeypatch.setattr(sqlite_module, "BUSY_MS_MAX", 50)
    running = await opened()
    await enrol(running.fleet, "h1")
    agent = running.agent("h1")
    await agent.stand()
    thief = sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)
    while True:
        try:
            thief.execute("BEGIN IMMEDIATE")
            break
        except sqlite3.OperationalError:
            continue
    with pytest.raises(NotServingError, match="lost its store"):
        await running.fleet.submit(applied(running, "h9"))
    assert not running.fleet.leader_ready
    with pytest.raises(NotServingError):
        await running.fleet.submit(applied(running, "h8"))
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await running.agent("h1").connect()
    assert refused.value.status == web.HTTPServiceUnavailable.status_code
    with pytest.raises(ServiceError, match=r"database is locked.*nothing more is done"):
        await running.close()
    thief.close()
    again = await opened()
    assert "h9" not in again.fleet.state.nodes


async def test_a_defect_of_the_core_stops_the_process_and_is_told_in_one_line(
    opened: Opener, capsys: pytest.CaptureFixture[str]
) -> None:
    running = await opened()
    running.fleet.report(NobodyFolds(at=running.fleet.now()))
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.wait({running.fleet.turning})
    assert not running.fleet.leading
    with pytest.raises(ServiceError, match="TypeError in the core"):
        await running.close()
    said = capsys.readouterr()
    assert "digest=" in said.out + said.err
    assert "Traceback" not in said.out + said.err


async def test_a_process_that_stood_still_doubts_itself_before_it_decides(opened: Opener) -> None:
    running = await opened()
    time.sleep(0.9)  # noqa: ASYNC251 (it is the loop that must stand still)
    await running.fleet.submit(applied(running, "h1"))
    kinds = [line.kind for line in await running.fleet.history(HistoryQuery())]
    assert "SelfDoubted" in kinds
    assert kinds.index("SelfDoubted") < kinds.index("NodeApplied")
    assert running.fleet.state.doubted_at > 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"wall": 60.0}, "the wall clock jumped by +60.0 s"),
        ({"wall": -3600.0}, "the wall clock jumped by -3600.0 s"),
        ({"slept": 30.0, "wall": 30.0}, "this machine was suspended for 30.0 s"),
    ],
)
async def test_a_clock_that_jumped_is_a_doubt_and_fleet_time_does_not_follow(
    change: dict[str, float], said: str
) -> None:
    machine = MachineClock()
    clock = FleetClock(machine)
    watch = SelfWatch(clock)
    assert watch.doubt(0.5, overflowed=False) is None
    before = clock.now()
    for name, by in change.items():
        setattr(machine, name, getattr(machine, name) + by)
    doubt = watch.doubt(0.5, overflowed=False)
    assert doubt is not None
    assert doubt.detail == said
    assert clock.now() == before
    machine.monotonic += 5
    machine.wall += 5
    assert clock.now() == before + 5


def test_fleet_time_never_falls_behind_the_journal() -> None:
    machine = MachineClock()
    clock = FleetClock(machine)
    clock.start_after(9000.0)
    assert clock.now() == 9000.0
    machine.monotonic += 1
    assert clock.now() == 9001.0


class Posted:
    """An AgentsHand over a real intake, with the facts it reports."""

    def __init__(self, running: Running) -> None:
        self.facts: list[Event] = []
        self.may_act = True
        self.hand = AgentsHand(running.fleet.intake, running.fleet.now, self.facts.append, lambda: self.may_act)
        self.now = running.fleet.now

    def send(self, session: SessionKey, *, age_s: float = 0.0) -> None:
        leader = Leadership(1, "x", 1)
        order = Order("ord-1", "u-1", "a", 1, leader, session, DestroyVm(run=1))
        self.hand.send_order(SendOrder(decided_at=self.now() - age_s, node="h1", order=order))

    @property
    def dropped(self) -> list[str]:
        return [fact.why for fact in self.facts if isinstance(fact, OrderDropped)]


@pytest.fixture
async def running(opened: Opener) -> Running:
    one = await opened()
    await enrol(one.fleet, "h1")
    return one


async def test_an_order_goes_out_only_in_the_session_it_names(running: Running) -> None:
    posted, agent = Posted(running), running.agent("h1")
    posted.send(agent.session)
    assert posted.dropped == ["the session it names no longer stands on h1"]
    await agent.stand()
    position = running.fleet.durable_position
    while not running.fleet.state.nodes["h1"].connected:
        position = await running.fleet.wait_for_change(position)
    posted.facts.clear()
    posted.send(SessionKey("boot-h1", "start-1", 2))
    assert len(posted.dropped) == 1
    posted.facts.clear()
    posted.send(agent.session)
    assert (await agent.hear(Order)).order_id == "ord-1"
    posted.hand.send_probe(SendProbe(decided_at=0.0, prober="h1", request=ProbeRequest("p-1", "h2", ())))
    assert (await agent.hear(ProbeRequest)).target == "h2"
    assert posted.dropped == []
    posted.send(agent.session, age_s=1.5)
    assert posted.dropped == ["its decision is 1.5 s old"]
    posted.facts.clear()
    posted.may_act = False
    posted.send(agent.session)
    assert posted.dropped == ["this aggregator may not act now"]
    posted.hand.close_session(CloseSession(decided_at=0.0, node="h1", why="a delta was missed"))
    assert await agent.hear_the_end() is None


async def test_an_order_that_waits_behind_a_slow_reader_is_dropped_when_its_connection_ends(running: Running) -> None:
    posted, agent = Posted(running), running.agent("h1")
    await agent.stand()
    position = running.fleet.durable_position
    while not running.fleet.state.nodes["h1"].connected:
        position = await running.fleet.wait_for_change(position)
    posted.send(agent.session)
    connection = running.fleet.intake.standing("h1")
    assert connection is not None
    connection.end("reset", "test")  # the writer has had no chance to run yet
    await agent.hear_the_end()
    async with asyncio.timeout(PATIENCE_S):
        while not await running.fleet.history(HistoryQuery(kind="OrderDropped")):
            await running.fleet.wait_for_change(running.fleet.durable_position)
    (line,) = await running.fleet.history(HistoryQuery(kind="OrderDropped"))
    assert "the connection ended before it was sent" in line.detail


MORTAL = """
import asyncio, sys
from pathlib import Path
from aggregator.core.events import NodeApplied
from aggregator.core.objects import NodeSpec
from aggregator.fault_point import FaultPoint
from aggregator.fleet import open_fleet
from aggregator.settings import Endpoint, Settings

async def main() -> None:
    path = Path(sys.argv[1])
    nowhere = Endpoint("127.0.0.1", 0)
    settings = Settings(name="a1", api=nowhere, agents=nowhere, state_dir=path, fence_agents_dir=path,
                        machine_id="", log_level="info", token_sha256="", config={})
    fleet = await open_fleet(settings, FaultPoint(sys.argv[2]))
    for number in range(1, 6):
        await fleet.submit(NodeApplied(at=fleet.now(), name=f"n{number}", labels={}, spec=NodeSpec()))
    await fleet.close()

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("text", "nodes"),
    [("NodeApplied:3", 3), ("NodeApplied:1:after", 1), ("AggregatorStarted:1", 0), ("NodeLost:1", 5), ("", 5)],
)
async def test_the_fault_point_kills_right_after_the_event_is_durable(tmp_path: Path, text: str, nodes: int) -> None:
    command = [sys.executable, "-c", MORTAL, str(tmp_path), text]
    ended = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=False)
    assert ended.returncode == (0 if nodes == 5 else -signal.SIGKILL)
    again = await SqliteStore(tmp_path, FORM_VERSION).open()
    with sqlite3.connect(tmp_path / FILE_NAME) as file:
        count = file.execute("SELECT count(*) FROM journal WHERE kind = 'NodeApplied'").fetchone()[0]
    assert count == nodes
    assert again.position >= nodes


@pytest.mark.parametrize("text", ["NodeLost", "NodeLost:x", "NodeLost:1:before", ":::"])
def test_a_fault_point_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write KIND:N or KIND:N:after"):
        FaultPoint(text)


async def test_a_decision_that_breaks_an_invariant_is_neither_journalled_nor_done(
    opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The core is mistaken: the state is written down, the fleet is disarmed, and the loop goes on."""
    running = await opened()
    await enrol(running.fleet, "h1")
    monkeypatch.setitem(nodes_module._STEPPERS, NodeState.JOINING, _fenced_for_nothing)
    await running.fleet.submit(applied(running, "h2"))
    kinds = [line.kind for line in await running.fleet.history(HistoryQuery())]
    assert "InvariantBroken" in kinds
    assert "NodeFenced" not in kinds
    assert running.fleet.state.disarmed[""].who == "virtward"
    assert running.fleet.leading
    (kept,) = _breach_files(tmp_path)
    assert decode_state(kept.read_bytes()).breaches == 1
    said = capsys.readouterr()
    assert "a decision would have broken an invariant" in said.out + said.err
    assert kept.name in said.out + said.err


def _breach_files(directory: Path) -> list[Path]:
    return list(directory.glob("breach-*.state"))


def _fenced_for_nothing(draft: Draft, node: NodeRecord) -> None:
    draft.add(NodeStateChanged(at=draft.now, node=node.name, state=NodeState.FENCED, reason="planted"))


def test_only_a_few_states_are_written_down(tmp_path: Path) -> None:
    files = BreachFiles(tmp_path)
    written = [files.keep(bytes([number]))[1] for number in range(FILES_MAX + 2)]
    assert len(list(tmp_path.iterdir())) == FILES_MAX
    assert written[-1].startswith("not written: ")
    assert BreachFiles(tmp_path / "gone").keep(b"x")[1].startswith("not written: ")
