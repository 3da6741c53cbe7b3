"""An agent that is cut off speaks through a peer that offers itself, and offers itself to others only unrelayed."""

from __future__ import annotations

import pytest

from agent.keeper_types import (
    CloseLink,
    Effect,
    LinkClosed,
    LinkOpened,
    MessageReceived,
    OfferToPeer,
    OpenRelay,
    RelayOffered,
    Tick,
)
from fleet.messages import (
    DestroyVm,
    FullState,
    Hello,
    MigrateVm,
    OfferRelay,
    OrderBody,
    ReceiveVm,
    RelayOffer,
    ResumeVm,
    StartVm,
    Welcome,
)
from fleet.model import QemuState
from tests.unit.keeper_harness import LEADER, SECRET, UUID, Node, a_vm, deeds, reports, sent_of


def offer(target: str = "h1", peer: str = "h2") -> RelayOffered:
    return RelayOffered(RelayOffer(peer, target, 8422, "a ticket"), "10.2.0.2:8422")


def opened(effects: list[Effect]) -> list[OpenRelay]:
    return [e for e in effects if isinstance(e, OpenRelay)]


def relay(node: Node) -> list[Effect]:
    """Let the node's own link fall silent and a peer carry it from then on."""
    node.step(Tick(), 3.0)
    assert opened(node.step(offer())) == [OpenRelay("h2", "10.2.0.2:8422", "a ticket")]
    node.link += 1
    node.step(LinkOpened(node.link, "h2"))
    node.hear(Welcome(1, LEADER, node.session, 1.0, ()))
    return node.listed()


def test_an_agent_whose_beats_are_answered_takes_no_offer() -> None:
    node = Node()
    node.connect()
    node.tick(5.0)
    assert opened(node.step(offer())) == []


def test_one_that_is_not_answered_opens_a_newer_session_through_the_peer() -> None:
    node = Node()
    node.connect()
    number = node.session.number
    effects = relay(node)
    assert node.session.number == number + 1
    assert sent_of(effects, FullState)[0].session == node.session


def test_two_offers_open_one_relay() -> None:
    node = Node()
    node.connect()
    node.step(Tick(), 3.0)
    assert len(opened(node.step(offer())) + opened(node.step(offer(peer="h3")))) == 1
    node.step(Tick(), 3.0)
    assert [e.peer for e in opened(node.step(offer(peer="h3")))] == ["h3"], "the first one led nowhere"


@pytest.mark.parametrize("wrong", [offer(target="h9"), offer(peer="h1")])
def test_an_offer_to_somebody_else_is_not_taken(wrong: RelayOffered) -> None:
    node = Node()
    node.connect()
    node.step(Tick(), 3.0)
    assert opened(node.step(wrong)) == []


def test_an_agent_without_a_link_first_tries_for_itself() -> None:
    node = Node()
    node.connect()
    node.step(LinkClosed(node.link))
    node.step(Tick(), 4.0)
    assert opened(node.step(offer())) == []
    node.step(Tick(), 1.1)
    assert len(opened(node.step(offer()))) == 1


def test_so_does_one_that_has_just_started() -> None:
    node = Node()
    node.step(Tick())
    assert opened(node.step(offer(), 4.0)) == []
    assert len(opened(node.step(offer(), 1.1))) == 1


def test_when_the_relay_ends_the_next_offer_is_taken_at_once() -> None:
    node = Node()
    node.connect()
    relay(node)
    node.step(Tick(), 1.0)
    node.step(LinkClosed(node.link))
    node.step(Tick(), 2.0)
    assert [e.peer for e in opened(node.step(offer(peer="h3")))] == ["h3"]


def test_a_relay_that_falls_silent_is_given_up_sooner_than_our_own_link() -> None:
    node = Node()
    node.connect()
    relay(node)
    assert not [e for e in node.step(Tick(), 3.5) if isinstance(e, CloseLink)]
    assert [e.link for e in node.step(Tick(), 1.0) if isinstance(e, CloseLink)] == [node.link]


def test_our_own_link_replaces_the_relayed_one() -> None:
    node = Node()
    node.connect()
    relay(node)
    through = node.session
    effects = node.step(LinkOpened(node.link + 1))
    assert [hello.session.number for hello in sent_of(effects, Hello)] == [through.number + 1]
    node.link += 1
    node.hear(Welcome(1, LEADER, node.session, 1.0, ()))
    node.listed()
    assert [report.outcome for report in reports(node.order(StartVm("<domain/>", 1)))] == ["Accepted"]


@pytest.mark.parametrize(
    "body",
    [
        StartVm("<domain/>", 1),
        ReceiveVm("m1", 1, "h3", 1, SECRET),
        MigrateVm("m1", 1, "h3", 2, "", "", (), SECRET),
    ],
)
def test_a_relayed_agent_begins_nothing_new(body: OrderBody) -> None:
    node = Node()
    node.connect()
    relay(node)
    (report,) = reports(node.order(body))
    assert (report.outcome, report.code) == ("Refused", "RELAYED")
    assert "h2" in report.message


def test_it_does_end_what_runs() -> None:
    node = Node()
    node.connect()
    node.start()
    node.step(Tick(), 3.0)
    node.step(offer())
    node.link += 1
    node.step(LinkOpened(node.link, "h2"))
    node.hear(Welcome(1, LEADER, node.session, 1.0, ()))
    node.listed(a_vm(QemuState.RUNNING))
    node.order(DestroyVm(1))
    node.gone()
    assert node.keeper.memory.promises[UUID].standing == "Released"


def asked(node: Node, target: str = "h3") -> list[OfferToPeer]:
    effects = node.step(MessageReceived(node.link, OfferRelay(target, "10.2.0.3:8422")))
    return [e for e in effects if isinstance(e, OfferToPeer)]


def test_an_agent_offers_itself_when_it_speaks_for_itself() -> None:
    node = Node()
    node.step(LinkOpened(0))
    assert asked(node) == [], "no session stands yet"
    node.connect()
    assert asked(node) == [OfferToPeer("h3", "10.2.0.3:8422")]
    assert asked(node, "h1") == []
    relay(node)
    assert asked(node) == [], "one hop"


def test_a_copy_that_waits_is_resumed_by_order_through_the_relay() -> None:
    """Its permit is older than the cut: nothing new begins, a guest that stands still goes on."""
    node = Node()
    node.connect()
    node.permit()
    node.changed(a_vm(QemuState.PAUSED))
    node.step(Tick(), 3.0)
    node.step(offer())
    node.link += 1
    node.step(LinkOpened(node.link, "h2"))
    node.hear(Welcome(1, LEADER, node.session, 1.0, ()))
    node.listed(a_vm(QemuState.PAUSED))
    effects = node.order(ResumeVm("m1", 1), epoch=2)
    assert [report.outcome for report in reports(effects)] == ["Accepted"]
    assert [type(deed).__name__ for deed in deeds(effects)] == ["Resume"]
