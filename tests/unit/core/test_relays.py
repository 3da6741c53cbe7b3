"""A node whose own way to the aggregator is cut speaks through a peer: what that is worth, and what it is not."""

from __future__ import annotations

import pytest
from msgspec import structs

from aggregator.core import events as ev
from aggregator.core.actions import SendOrder, SendProbe, SendRelayOffer
from aggregator.core.events import NodeState, ProofKind, VmVerb
from aggregator.core.freshness import ANSWERS_KEPT_MAX, AnswersSent
from aggregator.core.lookups import speaks_directly, takes_vms
from aggregator.core.state import NodeRecord
from aggregator.core.views_node import conditions_of
from aggregator.core.welcome import answer_hello
from fleet.messages import Hello, Refusal, ShutdownVm, Welcome
from fleet.model import LedgerState, NodeFacts, SessionKey
from tests.unit.core.fleet import Fleet
from tests.unit.core.test_node_failure import fleet_with_vms


def relayed_fleet(nodes: int = 3, vms: int = 3) -> tuple[Fleet, NodeRecord]:
    """Return a fleet in which v1's node has just come to speak through a peer."""
    fleet = fleet_with_vms(nodes, vms)
    name = fleet.vm("v1").owner
    fleet.cut_off(name)
    fleet.run_until(lambda: bool(fleet.node(name).via), 10)
    return fleet, fleet.node(name)


def carriers(fleet: Fleet, target: str) -> list[str]:
    """Return the peers that were asked to carry the node, in order."""
    return [a.peer for a in fleet.actions if isinstance(a, SendRelayOffer) and a.offer.target == target]


def test_a_relayed_node_is_up_degraded_and_its_vms_stay() -> None:
    fleet, node = relayed_fleet()
    fleet.run(60)
    assert (node.state, node.via in fleet.state.nodes, node.suspicion) == (NodeState.UP, True, None)
    assert [(t.key, t.effect) for t in node.taints] == [("virtward/degraded", "NoSchedule")]
    degraded = next(c for c in conditions_of(fleet.state, node) if c.type == "Degraded")
    assert (degraded.status, degraded.reason) == ("True", "Relayed")
    assert node.via in degraded.message
    assert fleet.vm("v1").owner == node.name
    assert fleet.asked("off") == []
    assert fleet.state.incidents[node.incident].way_out.startswith("mend the control network")


def test_its_own_session_ends_everything_about_it() -> None:
    fleet, node = relayed_fleet()
    incident = fleet.state.incidents[node.incident]
    fleet.mend(node.name)
    fleet.run(2)
    assert (node.via, node.taints, node.state) == ("", (), NodeState.UP)
    assert incident.closed
    assert takes_vms(node)


def test_it_is_given_nothing_new_and_can_be_told_to_stop() -> None:
    fleet, node = relayed_fleet()
    assert not takes_vms(node)
    fleet.settle(ev.VmCommanded(at=fleet.now, name="v1", verb=VmVerb.STOP))
    fleet.run(1)
    told = [a for a in fleet.actions if isinstance(a, SendOrder) and a.node == node.name]
    assert isinstance(told[-1].order.body, ShutdownVm)
    assert told[-1].order.session == node.session
    assert not fleet.vm("v1").run_open
    for number in range(10, 16):
        fleet.apply(f"v{number}")
    fleet.run(5)
    assert node.name not in {fleet.vm(f"v{number}").owner for number in range(10, 16)}


def test_a_beat_that_may_be_older_than_a_lease_is_no_sign_of_life() -> None:
    fleet, node = relayed_fleet()
    session, heard, at = node.session, node.last_sign, fleet.now + 1
    assert session is not None

    def beat(age_s: float) -> None:
        made = at - age_s
        fleet.settle(ev.BeatHeard(at=at, node=node.name, session=session, sequence=9, made_after=made))

    fleet.now = at
    beat(6.1)
    assert node.last_sign == heard
    beat(6.0)
    assert node.last_sign == at


def test_what_a_relay_brings_besides_beats_is_no_sign_of_life() -> None:
    """A report says what was so; of its age nothing is known."""
    fleet, node = relayed_fleet()
    heard = node.last_sign
    fleet.now += 1
    fleet.settle(fleet.reported(node.name, fleet.qemus[node.name, "uuid-v1"]))
    assert node.last_sign == heard


def test_the_age_of_a_beat_is_that_of_the_answer_it_has_seen() -> None:
    answers = AnswersSent(100.0)
    assert answers.sent_at(0) == 100.0
    answers.sent(1, 101.0)
    assert answers.sent_at(1) == 101.0
    assert answers.sent_at(2) == 0.0, "an answer that was never sent makes nothing young"
    for sequence in range(2, ANSWERS_KEPT_MAX + 2):
        answers.sent(sequence, 100.0 + sequence)
    assert answers.sent_at(0) == 0.0, "one that is forgotten makes a beat old"


def test_a_relayed_node_that_falls_silent_is_lost_and_fenced_like_any_other() -> None:
    fleet, node = relayed_fleet()
    fleet.relayable.clear()
    fleet.heard.clear()
    fleet.silent.add(node.name)
    fleet.run_until(fleet.is_in(node.name, NodeState.FENCED), 20)
    fleet.run(2)
    assert fleet.vm("v1").owner != node.name


def test_another_peer_is_asked_when_the_relay_dies() -> None:
    fleet, node = relayed_fleet(nodes=5, vms=5)
    first = node.via
    fleet.silent |= {first, node.name}
    fleet.run_until(lambda: node.via != first, 10)
    assert node.state is NodeState.UP
    assert set(carriers(fleet, node.name)) == {first, node.via}


def test_an_agent_that_takes_no_offer_is_agent_lost_and_asked_ever_less_often() -> None:
    fleet = fleet_with_vms()
    fleet.cut_off("n1")
    fleet.relayable.clear()
    took_s = fleet.run_until(fleet.is_in("n1", NodeState.AGENT_LOST), 20)
    assert took_s > 12, "an agent that lives is given the time to take an offer"
    fleet.run(300)
    asked = carriers(fleet, "n1")
    assert fleet.node("n1").state is NodeState.AGENT_LOST
    assert set(asked) == {"n2", "n3"}
    assert 2 <= len(asked) <= 5 + 300 / 20 + 1


def test_an_agent_that_is_gone_is_offered_nothing() -> None:
    """Only libvirt answers: there is nobody who could speak."""
    fleet = fleet_with_vms()
    fleet.silent.add("n1")
    fleet.answers_at["n1"] = ("libvirt",)
    fleet.run_until(fleet.is_in("n1", NodeState.AGENT_LOST), 12)
    fleet.run(60)
    assert fleet.node("n1").state is NodeState.AGENT_LOST
    assert carriers(fleet, "n1") == []
    assert fleet.asked("off") == []


def test_a_silent_ssh_says_nothing_and_its_banner_says_the_host_lives() -> None:
    fleet = fleet_with_vms()
    fleet.silent.add("n1")
    fleet.answers_at["n1"] = ("ssh",)
    fleet.run_until(fleet.is_in("n1", NodeState.AGENT_LOST), 12)
    assert fleet.node("n1").state_reason.endswith("(control/ssh, migration/ssh)")
    del fleet.answers_at["n1"]
    fleet.run_until(fleet.is_in("n1", NodeState.FENCED), 30)


def test_a_relayed_node_is_asked_about_nobody_and_carries_nobody() -> None:
    fleet, node = relayed_fleet(nodes=5, vms=5)
    other = next(n for n in fleet.state.nodes if n not in {node.name, node.via})
    assert not speaks_directly(node)
    before = len(fleet.actions)
    fleet.cut_off(other)
    fleet.run_until(lambda: bool(fleet.node(other).via), 10)
    assert fleet.node(other).via != node.name
    assert node.name not in {a.prober for a in fleet.actions[before:] if isinstance(a, SendProbe)}


def _hello(node: NodeRecord, boot: str = "", number: int = 9) -> Hello:
    assert node.session is not None
    session = SessionKey(boot or node.boot_id, node.session.agent_start, number)
    facts = NodeFacts(machine_id=f"machine-{node.name}", host_uuid=f"host-{node.name}")
    return Hello(1, 1, node.name, session, facts, LedgerState.SOUND)


@pytest.mark.parametrize(
    ("boot", "via", "taken"), [("", "n2", True), ("another", "n2", False), ("", "n1", False), ("", "n9", False)]
)
def test_only_a_boot_that_is_known_may_speak_through_a_peer_that_speaks_itself(
    boot: str, via: str, *, taken: bool
) -> None:
    fleet = Fleet()
    fleet.run(2)
    answer = answer_hello(fleet.state, _hello(fleet.node("n1"), boot), "t", via)
    assert isinstance(answer, Welcome if taken else Refusal)
    assert isinstance(answer_hello(fleet.state, _hello(fleet.node("n1"), boot), "t"), Welcome)


def test_a_relayed_word_proves_no_reboot() -> None:
    """Should it ever come to such a session: the VM stays bound to the boot that ran it."""
    fleet = fleet_with_vms()
    name = fleet.vm("v1").owner
    fleet.boots[name] += 1
    fleet.qemus = {key: report for key, report in fleet.qemus.items() if key[0] != name}
    fleet.connect(name, via="n2" if name != "n2" else "n3")
    fleet.run(10)
    assert [b.node for b in fleet.vm("v1").bindings] == [name]
    fleet.connect(name)
    fleet.run(1)
    freed = [e for e in fleet.happened if isinstance(e, ev.BindingFreed) and e.vm == "v1"]
    assert [e.proof for e in freed] == [ProofKind.REBOOTED]


def test_the_journal_alone_gives_the_same_relay() -> None:
    fleet, node = relayed_fleet()
    again = fleet.replayed().nodes[node.name]
    assert (again.via, again.taints, again.session) == (node.via, node.taints, node.session)
    assert structs.asdict(again)["suspicion"] is None


def test_a_fenced_node_returns_by_its_own_word_only() -> None:
    fleet = fleet_with_vms()
    fleet.kill_power("n1")
    fleet.run_until(fleet.is_in("n1", NodeState.FENCED))
    fleet.boots["n1"] += 1
    fleet.silent.discard("n1")
    fleet.connect("n1", via="n2")
    fleet.run(5)
    assert fleet.node("n1").state is NodeState.FENCED
    fleet.connect("n1")
    fleet.run(1)
    assert fleet.node("n1").state is NodeState.UP
