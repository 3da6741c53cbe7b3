"""What an agent says it obeyed holds the fleet in reconcile-only only if an aggregator of the fleet has told it."""

from __future__ import annotations

import shutil

import pytest
from msgspec import structs

from agent.memory import recall
from agent.records import LeadershipSeen, OrderBegun
from aggregator.leadership_proof import LeadershipProofs, proof_key
from fleet.codec import FROM_AGGREGATOR
from fleet.messages import BeatAnswer, CheckDefinition, Order, PauseVm, Welcome
from fleet.model import Leadership, SessionKey
from tests.unit.shell.agent_speaker import AgentSpeaker
from tests.unit.shell.identity_world import Shown, World, until

PROOFS = LeadershipProofs([proof_key(b"a key"), proof_key(b"the one before")])
TOLD = Leadership(3, "instance", 77)
SESSION = SessionKey("boot", "start", 1)


async def says(world: World, shown: Shown, highest: Leadership | None, number: int = 2) -> AgentSpeaker:
    """Come in as h1 and say that this was obeyed."""
    speaker = world.speaker("h1", shown)
    speaker.session = structs.replace(speaker.session, number=number)
    speaker.hello = structs.replace(speaker.hello, session=speaker.session, highest=highest)
    await speaker.stand()
    await until(lambda: world.fleet.state.nodes["h1"].session == speaker.session)
    return speaker


async def has_spoken(world: World) -> Shown:
    """Join as h1, and speak once: from then on nobody new is vouched for."""
    shown = await world.join("h1")
    await (await says(world, shown, None, number=1)).close()
    return shown


# --- what is told, and what can be made of it


@pytest.mark.parametrize(
    "message",
    [
        Welcome(1, TOLD, SESSION, 1.0, ()),
        BeatAnswer(1, TOLD),
        Order("o", "u", "n", 1, TOLD, SESSION, PauseVm(1)),
    ],
)
def test_every_leadership_that_is_told_bears_a_proof_of_its_own(message: Welcome | BeatAnswer | Order) -> None:
    told = FROM_AGGREGATOR.decode(FROM_AGGREGATOR.encode(PROOFS.prove(message)))
    assert isinstance(told, Welcome | BeatAnswer | Order)
    leader = told.leader
    assert (leader.term, leader.instance, leader.position) == (3, "instance", 77)
    assert PROOFS.holds(leader)
    for change in ({"term": 4}, {"position": 78}, {"position": 7, "instance": "7instance"}, {"instance": "other"}):
        assert not PROOFS.holds(structs.replace(leader, **change)), change
    assert not PROOFS.holds(structs.replace(leader, proof=""))


def test_another_fleets_proof_is_none_and_that_of_an_authority_that_is_trusted_still_is_one() -> None:
    before, stranger = (LeadershipProofs([proof_key(key)]) for key in (b"the one before", b"a stranger's"))
    answer = BeatAnswer(1, TOLD)
    assert PROOFS.holds(before.prove(answer).leader)
    assert not PROOFS.holds(stranger.prove(answer).leader)
    other = CheckDefinition("c", "<domain/>")
    assert PROOFS.prove(other) is other


def test_an_agent_keeps_the_proof_whether_it_was_welcomed_or_ordered() -> None:
    welcomed, ordered = (
        PROOFS.prove(BeatAnswer(1, each)).leader for each in (TOLD, structs.replace(TOLD, position=90))
    )
    order = Order("o", "u", "n", 1, ordered, SESSION, PauseVm(1))
    memory = recall([LeadershipSeen(welcomed)])
    assert memory.highest is not None
    assert PROOFS.holds(memory.highest)
    memory = recall([LeadershipSeen(welcomed), OrderBegun(order)])
    assert memory.highest == ordered


# --- who is believed


async def test_a_thief_of_a_nodes_key_cannot_hold_the_fleet_in_reconcile_only(world: World) -> None:
    """It may invent any number, and repeat what the node was told, with whatever it makes of its proof."""
    shown = await has_spoken(world)
    speaker = await says(world, shown, None)
    await speaker.beat()
    told = (await speaker.hear(BeatAnswer)).leader
    assert told.proof
    await speaker.close()
    claims = [
        Leadership(told.term + 5, "invented", 10**9),
        structs.replace(told, instance="invented", position=10**9),
        structs.replace(told, term=told.term + 1, instance="invented"),
        Leadership(told.term + 5, "invented", 10**9, "0" * 32),
    ]
    term = world.fleet.state.leader.term
    for number, claim in enumerate(claims, start=3):
        await (await says(world, shown, claim, number)).close()
        assert not world.fleet.state.behind, claim
    assert world.fleet.state.leader.term == term, "its own term is not driven up either"
    line = next(each for each in reversed(world.fleet.state.history) if each.kind == "SessionOpened")
    assert "is not believed" in line.detail


async def test_a_true_higher_one_is_honoured_after_the_journal_went_back(world: World) -> None:
    """The journal is put back as it was before; the authority, which no backup of it holds, stays."""
    shown = await has_spoken(world)
    await world.stop()
    state_dir = world.dir / "a1"
    kept = world.dir / "kept"
    shutil.copytree(state_dir, kept)
    await world.start()  # another life, which the copy does not know
    speaker = await says(world, shown, None)
    await speaker.beat()
    told = (await speaker.hear(BeatAnswer)).leader
    await world.stop()
    for file in state_dir.glob("journal*"):
        file.unlink()
        shutil.copy(kept / file.name, file)
    await world.start()
    claimed = structs.replace(told, position=told.position + 100)
    await (await says(world, shown, claimed, 3)).close()
    assert told.instance not in world.fleet.state.tenures, "that one was not told"
    await (await says(world, shown, told, 4)).close()
    assert told.instance in world.fleet.state.tenures
    assert world.fleet.state.leader.term > told.term


async def test_who_a_person_has_just_let_in_is_believed_once(world: World) -> None:
    """An authority that was lost takes its proofs along; whoever joins anew may know more than the journal."""
    shown = await world.join("h1")
    claim = Leadership(9, "before the loss", 10**6, "a proof that nobody can read")
    await (await says(world, shown, claim, 1)).close()
    assert "before the loss" in world.fleet.state.tenures
    assert world.fleet.state.leader.term == 10, "agents heed no term below the one they obeyed"
