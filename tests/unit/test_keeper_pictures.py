"""What the agent shows of a guest's screen: when a run that hung is ended, and when it is asked."""

from __future__ import annotations

from agent.keeper_types import Call, Destroy, Effect, PictureGuest, PictureTaken, Screenshot, Send
from fleet.messages import DestroyVm, GuestPictured, TakePicture
from fleet.model import EndReason, QemuState
from tests.unit.keeper_harness import UUID, Node, a_vm, only_call, reports

PNG = b"\x89PNG\r\n\x1a\n"
HUNG = DestroyVm(1, picture=True)


def shown(effects: list[Effect]) -> list[GuestPictured]:
    return [e.message for e in effects if isinstance(e, Send) and isinstance(e.message, GuestPictured)]


def running() -> Node:
    node = Node()
    node.connect()
    node.start()
    return node


def test_a_guest_that_hung_shows_its_screen_before_it_is_ended() -> None:
    node = running()
    asked = only_call(node.order(HUNG))
    assert isinstance(asked.deed, Screenshot)
    effects = node.returned(asked, picture=PNG)
    assert shown(effects) == [GuestPictured(UUID, 1, PNG)]
    destroy = only_call(effects)
    assert isinstance(destroy.deed, Destroy)
    assert effects.index(destroy) > next(i for i, e in enumerate(effects) if isinstance(e, Send))
    node.returned(destroy)
    assert reports(node.gone(end=EndReason.DESTROYED))[-1].outcome == "Done"


def test_it_is_ended_all_the_same_when_nothing_can_be_shown() -> None:
    node = running()
    effects = node.returned(only_call(node.order(HUNG)), "NO_PICTURE", message="it has no screen")
    assert shown(effects) == [GuestPictured(UUID, 1, b"", message="it has no screen")]
    assert isinstance(only_call(effects).deed, Destroy)


def test_a_guest_that_ends_by_itself_meanwhile_is_not_ended_again() -> None:
    node = running()
    asked = only_call(node.order(HUNG))
    effects = node.gone(end=EndReason.POWEROFF)
    node.changed(a_vm(QemuState.GONE))
    effects += node.returned(asked, "NOT_RUNNING", message="it is gone")
    assert [e for e in effects if isinstance(e, Call)] == []
    assert reports(node.effects)[-1].outcome == "Done"


def test_others_are_ended_without() -> None:
    node = running()
    assert isinstance(only_call(node.order(DestroyVm(1))).deed, Destroy)


def test_the_aggregator_may_ask_at_any_time() -> None:
    node = running()
    (asked,) = (e for e in node.hear(TakePicture("p1", UUID)) if isinstance(e, PictureGuest))
    assert (asked.request, asked.uuid) == ("p1", UUID)
    assert shown(node.step(PictureTaken("p1", UUID, PNG))) == [GuestPictured(UUID, 1, PNG, "p1")]
    assert shown(node.step(PictureTaken("p2", "unknown", b"", "there is none"))) == [
        GuestPictured("unknown", 0, b"", "p2", "there is none")
    ]
