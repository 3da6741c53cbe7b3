"""A rescue as its target's agent does it: nothing is resumed before the source is read as migrated."""

from __future__ import annotations

import pytest
from msgspec import structs

from agent.keeper_types import (
    AWAY_ALIVE,
    AWAY_GONE,
    AWAY_MIGRATED,
    AWAY_MOVING,
    AbortJob,
    AskState,
    Call,
    CallReturned,
    DestroyIncoming,
    Effect,
    Elsewhere,
    Migrate,
    NoticeTaken,
    OrderEnded,
    Persist,
    Resume,
    Undefine,
)
from fleet.messages import CancelMigration, DiscardIncoming, RescueVm
from fleet.model import QemuState
from tests.unit.keeper_harness import UUID, Node, a_vm, calls, deeds, reports
from tests.unit.keeper_pair import a_target

RESCUE = RescueVm("m1", 1, "h1", 1, "qemu+tls://10.0.1.1/system", "uuid-h1", "qemu+tls://10.0.1.2/system", "10.0.1.2")
COPY = a_vm(QemuState.PAUSED, "q2")


def rescue(node: Node) -> Call:
    (call,) = [c for c in calls(node.order(RESCUE, 2)) if isinstance(c.deed, Elsewhere)]
    assert isinstance(call.deed, Elsewhere)
    assert isinstance(call.deed.deed, Migrate)
    return call


def _said(call: Call, code: str) -> CallReturned:
    return CallReturned(call.call_id, code in (AWAY_ALIVE, AWAY_GONE, AWAY_MIGRATED, AWAY_MOVING), code)


def asked(effects: list[Effect]) -> list[Call]:
    return [c for c in calls(effects) if isinstance(c.deed, Elsewhere) and isinstance(c.deed.deed, AskState)]


def away(effects: list[Effect], kind: type) -> list[Elsewhere]:
    return [d for d in deeds(effects) if isinstance(d, Elsewhere) and isinstance(d.deed, kind)]


def resumed(effects: list[Effect]) -> bool:
    return any(isinstance(deed, Resume) for deed in deeds(effects))


def test_the_migrate_call_goes_to_the_source_and_keeps_its_definition() -> None:
    call = rescue(a_target())
    assert isinstance(call.deed, Elsewhere)
    assert (call.deed.uri, call.deed.host_uuid) == (RESCUE.source_uri, RESCUE.source_host_uuid)
    assert isinstance(call.deed.deed, Migrate)
    assert (call.deed.deed.peer_uri, call.deed.deed.keep_definition) == (RESCUE.peer_uri, True)


def test_the_copy_is_resumed_when_the_source_reads_as_migrated_and_not_before() -> None:
    node = a_target()
    rescue(node)
    (first,) = asked(node.changed(COPY))
    effects = node.step(_said(first, AWAY_MOVING))
    assert not resumed(effects)
    (second,) = asked(node.tick(0.3))
    effects = node.step(_said(second, AWAY_MIGRATED))
    persisted = [e.record for e in effects if isinstance(e, Persist)]
    assert NoticeTaken(UUID, "m1") in persisted
    assert resumed(effects)
    assert reports(effects)[-1].outcome == "Done"
    assert away(effects, Undefine)  # what is left at the source


def test_the_promise_is_persisted_before_the_resume() -> None:
    node = a_target()
    rescue(node)
    (ask,) = asked(node.changed(COPY))
    effects = node.step(_said(ask, AWAY_MIGRATED))
    kinds = [type(getattr(e, "record", None) or getattr(e, "deed", None) or e) for e in effects]
    assert kinds.index(NoticeTaken) < kinds.index(Resume)


def test_nobody_is_asked_while_the_copy_is_not_complete() -> None:
    node = a_target()
    rescue(node)
    assert asked(node.changed(a_vm(QemuState.INCOMING, "q2"))) == []
    assert asked(node.tick(5.0)) == []


@pytest.mark.parametrize("word", [AWAY_ALIVE, AWAY_GONE, "LIBVIRT_DOWN", "OTHER_HOST"])
def test_no_other_answer_resumes_anything(word: str) -> None:
    node = a_target()
    rescue(node)
    (ask,) = asked(node.changed(COPY))
    assert not resumed(node.step(_said(ask, word)))
    for _ in range(20):
        again = asked(node.tick(0.5))
        if again:
            assert not resumed(node.step(_said(again[0], word)))


def test_a_source_that_goes_on_ends_the_rescue_with_what_libvirt_said() -> None:
    node = a_target()
    call = rescue(node)
    (ask,) = asked(node.returned(call, "OPERATION_FAILED", message="no route to host") + node.tick(0.1))
    ended = reports(node.step(_said(ask, AWAY_ALIVE)))[-1]
    assert (ended.outcome, ended.code, ended.message) == ("Failed", "OPERATION_FAILED", "no route to host")


def test_a_source_that_ended_and_left_no_copy_is_no_hand_over() -> None:
    node = a_target()
    call = rescue(node)
    node.listed()
    (ask,) = asked(node.returned(call, "OPERATION_FAILED") + node.tick(0.1))
    node.listed()
    ended = reports(node.step(_said(ask, AWAY_MIGRATED)))[-1]
    assert (ended.outcome, ended.code) == ("Failed", "SOURCE_GONE")


def test_a_libvirtd_that_never_says_how_it_ended_is_given_up_after_its_time() -> None:
    node = a_target()
    call = rescue(node)
    node.changed(COPY)
    node.returned(call, "RESULT_UNKNOWN")
    ended: list[OrderEnded] = []
    for _ in range(400):
        effects = node.tick(1.0)
        for ask in asked(effects):
            effects += node.step(_said(ask, "LIBVIRT_DOWN"))
        ended += [e.record for e in effects if isinstance(e, Persist) and isinstance(e.record, OrderEnded)]
        assert not resumed(effects)
    assert [record.code for record in ended] == ["UNKNOWN"]


def test_an_agent_killed_in_a_rescue_asks_the_source_and_ends_it() -> None:
    node = a_target()
    rescue(node)
    node.changed(COPY)
    node.restart()
    node.connect(COPY)
    ask = asked(node.effects)[-1]
    effects = node.step(_said(ask, AWAY_MIGRATED))
    assert resumed(effects)


def test_a_copy_that_is_discarded_ends_the_rescue_at_once() -> None:
    node = a_target()
    rescue(node)
    node.changed(COPY)
    assert any(isinstance(deed, DestroyIncoming) for deed in deeds(node.order(DiscardIncoming("m1"), 2)))
    effects = node.gone("q2")
    effects += node.tick(0.1)
    ended = {report.order_id: report for report in reports(effects)}
    assert sorted(str(report.outcome) for report in ended.values()) == ["Done", "Failed"]


def test_it_is_called_off_at_the_source() -> None:
    node = a_target()
    rescue(node)
    assert away(node.order(CancelMigration("m1"), 2), AbortJob)


def test_a_rescue_without_its_permit_is_refused() -> None:
    node = a_target()
    refused = reports(node.order(structs.replace(RESCUE, migration="m9"), 2))[-1]
    assert (refused.outcome, refused.code) == ("Refused", "NO_PERMIT")
    fresh = Node("h3")
    fresh.connect()
    refused = reports(fresh.order(RESCUE, 2))[-1]
    assert (refused.outcome, refused.code) == ("Refused", "NO_PERMIT")
