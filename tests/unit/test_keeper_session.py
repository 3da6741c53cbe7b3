"""The talk with the aggregator: what is said in which order, and to whom nothing is obeyed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from msgspec import structs

from agent.keeper_types import (
    CheckXml,
    CloseLink,
    DefinitionRead,
    Effect,
    FactsRead,
    LeadershipSeen,
    LinkClosed,
    LinkOpened,
    MessageReceived,
    Persist,
    Probe,
    ProbeReturned,
    RunBegan,
    Send,
    SessionOpened,
    Stopping,
    Tick,
    XmlChecked,
)
from fleet.messages import (
    Assignment,
    Beat,
    BeatAnswer,
    CheckDefinition,
    DefinitionChecked,
    Delta,
    DestroyVm,
    FullState,
    Goodbye,
    Hello,
    PauseVm,
    ProbeAddress,
    ProbeReport,
    ProbeRequest,
    ProbeResult,
    Refusal,
    Welcome,
)
from fleet.model import Definition, Disk, Leadership, LedgerState, NodeFacts, Plane, QemuState
from tests.unit.keeper_harness import (
    LEADER,
    UUID,
    Node,
    a_vm,
    calls,
    looks,
    messages,
    persisted,
    reports,
    sent_of,
    vm_reports,
)


def closings(effects: Sequence[Effect]) -> list[CloseLink]:
    return [e for e in effects if isinstance(e, CloseLink)]


def test_the_session_number_is_on_disk_before_the_hello_names_it() -> None:
    node = Node()
    effects = node.step(LinkOpened(1))
    kinds = [type(e) for e in effects]
    assert kinds.index(Persist) < kinds.index(Send)
    (record,) = persisted(effects)
    (hello,) = sent_of(effects, Hello)
    assert isinstance(record, SessionOpened)
    assert record.session == hello.session
    assert looks(effects)


def test_the_number_rises_over_links_restarts_and_boots() -> None:
    node = Node()
    numbers = []
    for _ in range(2):
        for _ in range(2):
            node.connect()
            numbers.append(node.session.number)
        node.restart()
    node.boot_id = "boot-2"
    node.restart()
    node.connect()
    assert [*numbers, node.session.number] == [1, 2, 3, 4, 5]


def test_full_state_waits_for_a_list_asked_for_in_this_session() -> None:
    node = Node()
    node.connect(a_vm(QemuState.RUNNING))
    node.link += 1
    node.step(LinkOpened(node.link))
    welcomed = node.hear(Welcome(1, LEADER, node.session, 1.0, ()))
    assert sent_of(welcomed, FullState) == []
    (full,) = sent_of(node.listed(a_vm(QemuState.RUNNING)), FullState)
    assert full.complete
    assert [vm.uuid for vm in full.vms] == [UUID]


def test_without_a_list_full_state_says_so_after_its_limit() -> None:
    node = Node()
    node.step(LinkOpened(1))
    node.link = 1
    node.hear(Welcome(1, LEADER, node.session, 1.0, ()))
    (full,) = sent_of(node.step(Tick(), 3.1), FullState)
    assert not full.complete


def test_an_order_in_hand_is_named_in_the_next_session() -> None:
    node = Node()
    node.connect()
    node.start()
    node.order(PauseVm(1))
    full = sent_of(node.connect(a_vm(QemuState.RUNNING)), FullState)[0]
    assert [(order.kind, order.epoch) for order in full.in_hand] == [("pause", 1)]


def test_bytes_of_an_old_connection_are_not_heard() -> None:
    node = Node()
    node.connect()
    node.start()
    old = node.link
    node.connect(a_vm(QemuState.RUNNING))
    late = node.step(MessageReceived(old, BeatAnswer(1, Leadership(9, "a9", 1))))
    assert persisted(late) == []


def test_an_order_of_the_old_session_on_the_new_connection_is_refused() -> None:
    node = Node()
    node.connect()
    node.start()
    old = node.session
    node.connect(a_vm(QemuState.RUNNING))
    refused = node.order(DestroyVm(1), session=old)
    assert [r.code for r in reports(refused)] == ["OLD_SESSION"]
    assert calls(refused) == []


def test_no_order_is_begun_before_the_session_stands() -> None:
    node = Node()
    node.connect()
    node.start()
    node.link += 1
    node.step(LinkOpened(node.link))
    node.hear(Welcome(1, LEADER, node.session, 1.0, ()))
    assert calls(node.order(DestroyVm(1))) == []


def test_changes_travel_as_deltas_and_each_raises_the_generation() -> None:
    node = Node()
    node.connect(a_vm(QemuState.RUNNING))
    (delta,) = sent_of(node.changed(a_vm(QemuState.PAUSED)), Delta)
    assert (delta.generation, [vm.state for vm in delta.vms]) == (2, [QemuState.PAUSED])
    assert sent_of(node.changed(a_vm(QemuState.PAUSED)), Delta) == []
    (beat,) = sent_of(node.step(Tick(), 1.0), Beat)
    assert beat.generation == 2


def test_beats_carry_the_highest_answered_sequence() -> None:
    node = Node()
    node.connect()
    node.hear(BeatAnswer(1, LEADER))
    (beat,) = sent_of(node.step(Tick(), 1.0), Beat)
    assert (beat.sequence, beat.answered) == (2, 1)
    node.hear(BeatAnswer(999, LEADER))
    (beat,) = sent_of(node.step(Tick(), 1.0), Beat)
    assert beat.answered == 1


def test_a_link_whose_beats_are_not_answered_is_given_up() -> None:
    node = Node()
    node.connect()
    effects = [effect for _ in range(12) for effect in node.step(Tick(), 1.0)]
    assert [c.reason for c in closings(effects)] == ["beats are not answered"]


def test_answers_of_an_older_leader_do_not_count() -> None:
    node = Node()
    node.connect(leader=Leadership(5, "a2", 1))
    node.hear(BeatAnswer(1, LEADER))
    (beat,) = sent_of(node.step(Tick(), 1.0), Beat)
    assert beat.answered == 0


def test_the_highest_leadership_is_persisted_and_told() -> None:
    node = Node()
    node.connect()
    answered = node.hear(BeatAnswer(1, Leadership(3, "a1", 11)))
    assert persisted(answered) == [LeadershipSeen(Leadership(3, "a1", 11))]
    node.restart()
    (hello,) = sent_of(node.step(LinkOpened(9)), Hello)
    assert hello.highest == Leadership(3, "a1", 11)


def test_an_aggregator_that_lost_its_store_is_reported_to_and_not_obeyed() -> None:
    node = Node()
    node.connect()
    node.start()
    older = Leadership(2, "a1", 5)
    full = node.connect(a_vm(QemuState.RUNNING), leader=older)
    assert sent_of(full, FullState)
    assert reports(node.order(DestroyVm(1), leader=older))[-1].code == "OLD_TERM"


@pytest.mark.parametrize("wrong", [{"protocol": 9}, {"session": "other"}])
def test_a_welcome_that_is_not_ours_ends_the_link(wrong: dict[str, object]) -> None:
    node = Node()
    node.step(LinkOpened(1))
    node.link = 1
    welcome = Welcome(1, LEADER, node.session, 1.0, ())
    if "session" in wrong:
        wrong = {"session": structs.replace(node.session, number=99)}
    assert closings(node.hear(structs.replace(welcome, **wrong)))


def test_a_refusal_ends_the_link_and_waits() -> None:
    node = Node()
    node.step(LinkOpened(1))
    node.link = 1
    (closing,) = closings(node.step(MessageReceived(1, Refusal("UNKNOWN_NODE", "approve it"))))
    assert closing.wait_s >= 1.0


def test_without_a_welcome_the_link_is_given_up() -> None:
    node = Node()
    node.step(LinkOpened(1))
    assert closings(node.step(Tick(), 5.1))


def test_nothing_is_sent_after_the_link_closed() -> None:
    node = Node()
    node.connect()
    node.step(LinkClosed(node.link))
    assert messages(node.changed(a_vm(QemuState.RUNNING))) == []
    assert messages(node.step(Tick(), 5.0)) == []


def test_a_run_that_no_ledger_knows_is_taken_over_when_the_aggregator_says_it_is_ours() -> None:
    node = Node()
    ours = Assignment(UUID, "web-1", 4, 2, here=True)
    full = node.connect(a_vm(QemuState.RUNNING), assignments=(ours,))
    assert RunBegan(UUID, "web-1", 4, 2, confirmed=True) in persisted(full)
    assert [(vm.epoch, vm.run, vm.managed) for vm in vm_reports(full)] == [(4, 2, True)]


def test_a_vm_in_other_hands_is_reported_and_not_touched() -> None:
    node = Node()
    node.connect()
    node.start()
    other = Assignment(UUID, "web-1", 9, 1, here=False)
    full = node.connect(a_vm(QemuState.RUNNING), assignments=(other,))
    assert calls(full) == []
    assert [(vm.epoch, vm.state) for vm in vm_reports(full)] == [(1, QemuState.RUNNING)]


def test_a_node_that_lost_its_ledger_takes_nothing_over() -> None:
    node = Node()
    node.ledger = LedgerState.LOST
    node.restart()
    ours = Assignment(UUID, "web-1", 4, 2, here=True)
    full = node.connect(a_vm(QemuState.RUNNING), assignments=(ours,))
    assert not any(isinstance(record, RunBegan) for record in persisted(full))
    assert sent_of(node.effects, Hello)[-1].ledger is LedgerState.LOST


def test_a_vm_that_is_gone_and_never_was_ours_is_told_once_and_forgotten() -> None:
    node = Node()
    node.connect(a_vm(QemuState.RUNNING))
    (delta,) = sent_of(node.listed(), Delta)
    assert [vm.state for vm in delta.vms] == [QemuState.GONE]
    node.listed()
    assert sent_of(node.connect(), FullState)[0].vms == ()


def test_an_incomplete_list_makes_nothing_gone() -> None:
    node = Node()
    node.connect()
    node.start()
    told = node.listed(complete=False)
    assert [vm.state for vm in vm_reports(told)] == [QemuState.UNKNOWN]
    assert persisted(told) == []


def test_changed_definitions_are_told_ahead_of_the_next_beat() -> None:
    node = Node()
    node.connect(a_vm(QemuState.RUNNING))
    (delta,) = sent_of(node.step(DefinitionRead(Definition(UUID, "web-1", "<domain/>", "h2"))), Delta)
    assert [definition.hash for definition in delta.definitions] == ["h2"]
    assert sent_of(node.step(DefinitionRead(Definition(UUID, "web-1", "<domain/>", "h2"))), Delta) == []
    mounted = Definition(UUID, "web-1", "<domain/>", "h2", (Disk("vda", "nfs://s:/e/a", shared=True),))
    for same_xml in (mounted, structs.replace(mounted, nvram="file:n:/a_VARS.fd")):
        (delta,) = sent_of(node.step(DefinitionRead(same_xml)), Delta)
        assert delta.definitions == (same_xml,)


def test_many_large_definitions_travel_in_portions() -> None:
    node = Node()
    for number in range(9):
        node.step(DefinitionRead(Definition(f"u{number}", f"v{number}", "x" * 400_000, "h")))
    connected = node.connect()
    portions = [m.definitions for m in messages(connected) if isinstance(m, FullState | Delta)]
    assert sum(len(portion) for portion in portions) == 9
    assert max(len(portion) for portion in portions) <= 3


def test_changed_facts_travel_once() -> None:
    node = Node()
    node.connect()
    facts = NodeFacts(machine_id="m", host_uuid="known by now")
    assert [d.facts for d in sent_of(node.step(FactsRead(facts)), Delta)] == [facts]
    assert sent_of(node.step(FactsRead(facts)), Delta) == []


def test_a_probe_is_reported_with_its_age() -> None:
    node = Node()
    node.connect()
    addresses = (ProbeAddress(Plane.CONTROL, "agent", "10.0.0.2", 8422),)
    asked = node.step(MessageReceived(node.link, ProbeRequest("p1", "h2", addresses)))
    assert [e for e in asked if isinstance(e, Probe)] == [Probe("p1", "h2", addresses)]
    asked_s = node.now
    result = ProbeResult(Plane.CONTROL, "agent", answered=False, asked_ago_s=0.0)
    (report,) = sent_of(node.step(ProbeReturned("p1", "h2", (result,), asked_s), 0.5), ProbeReport)
    assert report.results[0].asked_ago_s == pytest.approx(0.5)


def test_probes_in_flight_are_bounded() -> None:
    node = Node()
    node.connect()
    asked = [
        effect
        for number in range(40)
        for effect in node.step(MessageReceived(node.link, ProbeRequest(f"p{number}", "h2", ())))
    ]
    assert len([e for e in asked if isinstance(e, Probe)]) == node.keeper.settings.probes_in_flight_max


def test_xml_is_checked_without_defining_anything() -> None:
    node = Node()
    node.connect()
    asked = node.step(MessageReceived(node.link, CheckDefinition("c1", "<domain/>")))
    assert [e for e in asked if isinstance(e, CheckXml)] == [CheckXml("c1", "<domain/>")]
    told = node.step(XmlChecked("c1", ok=False, message="no such machine"))
    assert sent_of(told, DefinitionChecked) == [DefinitionChecked("c1", ok=False, message="no such machine")]


def test_a_stop_on_purpose_says_goodbye() -> None:
    node = Node()
    node.connect()
    assert [g.reason for g in sent_of(node.step(Stopping("SIGTERM")), Goodbye)] == ["SIGTERM"]
