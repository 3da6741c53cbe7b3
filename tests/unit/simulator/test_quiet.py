"""Quiet time: jumping over beats leaves everything as the beats themselves would have, and hides no decision."""

from __future__ import annotations

import pytest
from msgspec import structs

from agent.keeper_types import Effect, Tick
from aggregator.core.journal_form import copy_state
from aggregator.core.policy import read_config
from aggregator.core.settle import settle
from fleet.messages import BeatAnswer
from fleet.model import Leadership
from simulator.run import Performance, Player, Story
from simulator.swarm import make_story, play_seed
from simulator.world import World
from tests.unit.keeper_harness import LEADER, Node

LOOK_S = 0.37


def a_keeper_that_beats() -> Node:
    node = Node()
    node.connect()
    node.tick(2.0)
    assert node.keeper.only_beats
    return node


def step_at(node: Node, at_s: float, fact: Tick | BeatAnswer) -> list[Effect]:
    node.now = at_s
    return node.step(fact, 0.0) if isinstance(fact, Tick) else node.hear(fact)


def beat_and_be_answered(node: Node, position: int) -> float:
    """Play one beat and its answer as events; returns when the answer came."""
    step_at(node, node.keeper.beat_s, Tick())
    step_at(node, node.now + 0.001, BeatAnswer(node.keeper.beats, Leadership(LEADER.term, LEADER.instance, position)))
    return node.now


@pytest.mark.parametrize("count", [1, 2, 7, 100])
@pytest.mark.parametrize("grows", [0, 3])
def test_beats_passed_leave_the_keeper_as_beats_do(count: int, grows: int) -> None:
    one, other = a_keeper_that_beats(), a_keeper_that_beats()
    heard_s = 0.0
    for number in range(1, count + 1):
        heard_s = beat_and_be_answered(one, LEADER.position + number * grows)
    leader = Leadership(LEADER.term, LEADER.instance, LEADER.position + count * grows)
    effects = other.keeper.beats_passed(count, heard_s, leader)
    assert len(effects) == (1 if grows else 0)
    assert other.keeper.only_beats
    assert other.keeper.memory == one.keeper.memory
    assert other.keeper.beat_s == pytest.approx(one.keeper.beat_s)
    beat_s = one.keeper.beat_s
    assert step_at(other, beat_s, Tick())[:-1] == step_at(one, beat_s, Tick())[:-1]  # the beat itself
    limit_s = heard_s + one.keeper.settings.answer_silence_s_max
    for at_s, closes in ((limit_s - 0.01, False), (limit_s + 0.001, True)):
        said = [[type(e).__name__ for e in step_at(node, at_s, Tick())] for node in (one, other)]
        assert said[0] == said[1]
        assert ("CloseLink" in said[0]) is closes


class Watch:
    """Looks again and again whether a full turn now, all beats heard, would decide anything although all rest."""

    def __init__(self) -> None:
        self.looks = 0
        self.missed: list[str] = []

    def over(self, world: World) -> None:
        def look() -> None:
            world.queue.after(LOOK_S, look)
            aggregator = world.aggregator
            if aggregator.rests_until <= aggregator.now():
                return
            self.looks += 1
            beats = sorted(aggregator.heard(), key=lambda beat: beat.at)
            settled = settle(copy_state(aggregator.state), beats, aggregator.now())
            if settled.events or settled.actions:
                self.missed.append(f"{world.queue.now:.3f} {settled.events[:2]} {settled.actions[:2]}")

        world.queue.after(LOOK_S, look)


@pytest.mark.parametrize("seed", [*range(1, 8), 22, 1065])
def test_no_decision_waits_for_a_beat_that_nobody_awaits(seed: int) -> None:
    watch = Watch()
    play_seed(make_story(seed, None, None)[0], watch.over)
    assert watch.looks > 200
    assert not watch.missed


def test_a_quiet_fleet_hardly_takes_a_step() -> None:
    story = make_story(1, 3, 6)[0]
    plan = structs.replace(story.plan, config=read_config({"readinessEvery": "180s"}), aggregators=1)
    performance: Performance = Player(Story(name="quiet", plan=plan, until=100.0)).play()
    assert performance.good
    assert all(node.state == "Up" for node in performance.world.aggregator.state.nodes.values())
    assert set(performance.world.aggregator.quiet) == set(performance.world.hosts)
    beats = 100 * len(plan.nodes)
    assert performance.steps < beats / 2  # one beat would be five
