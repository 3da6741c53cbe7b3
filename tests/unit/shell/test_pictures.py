"""Pictures of guests in the aggregator: questions and their answers, and the files beside incidents."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec import structs

from aggregator import pictures
from aggregator.core.events import Event
from aggregator.core.objects import Probe, VmSpec
from aggregator.fleet_access import NoPictureError
from aggregator.pictures import Pictures
from fleet.guest_health import GuestHealth
from fleet.messages import PICTURE_BYTES_MAX, GuestPictured, TakePicture
from tests.unit.core.fleet import Fleet

PNG = b"\x89PNG\r\n\x1a\n"


class Desk:
    """A fleet whose one guest has hung and is being ended; facts are folded as the loop would."""

    def __init__(self) -> None:
        self.fleet = Fleet(1, {"unseenAtLeast": "5s"})
        self.fleet.apply("web", VmSpec(liveness_probe=Probe(guest_agent_ping={})))
        self.fleet.run(3)
        self.fleet.deaf.add("n1")
        self.fleet.says_of_guest("web", GuestHealth(failed="no answer"))
        self.state = self.fleet.state

    def report(self, fact: Event) -> None:
        self.fleet.settle(fact)

    def now(self) -> float:
        return self.fleet.now


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def kept(desk: Desk, tmp_path: Path) -> Pictures:
    return Pictures(desk, tmp_path / "screenshots")


def shown(desk: Desk, png: bytes = PNG, **other: object) -> GuestPictured:
    return structs.replace(GuestPictured(desk.fleet.vm("web").uuid, 1, png), **other)


async def test_a_question_gets_the_answer_of_the_node_that_was_asked(kept: Pictures, desk: Desk) -> None:
    asked: list[TakePicture] = []

    def send(question: TakePicture) -> bool:
        asked.append(question)
        kept.told("n2", shown(desk, PNG + b"forged", request=question.request))
        kept.told("n1", shown(desk, PNG + b"true", request="picture-99"))
        kept.told("n1", shown(desk, PNG + b"true", request=question.request))
        return True

    assert await kept.ask("n1", send, "uuid", 5.0) == PNG + b"true"
    assert [q.uuid for q in asked] == ["uuid"]


@pytest.mark.parametrize(
    ("png", "message", "words"),
    [
        (b"", "the guest has no screen", "the guest has no screen"),
        (b"GIF89a", "", "nothing that is a PNG"),
        (PNG + bytes(PICTURE_BYTES_MAX), "", "larger than"),
    ],
)
async def test_what_is_no_picture_is_said_to_be_none(
    kept: Pictures, desk: Desk, png: bytes, message: str, words: str
) -> None:
    def send(question: TakePicture) -> bool:
        kept.told("n1", shown(desk, png, request=question.request, message=message))
        return True

    with pytest.raises(NoPictureError, match=words):
        await kept.ask("n1", send, "uuid", 5.0)


async def test_a_node_that_is_gone_or_silent_holds_nobody_up(kept: Pictures) -> None:
    with pytest.raises(NoPictureError, match="cannot be asked"):
        await kept.ask("n1", lambda _: False, "uuid", 5.0)
    with pytest.raises(NoPictureError, match="did not show"):
        await kept.ask("n1", lambda _: True, "uuid", 0.01)


async def test_questions_are_bounded(kept: Pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "QUESTIONS_MAX", 1)
    first = asyncio.create_task(kept.ask("n1", lambda _: True, "uuid", 0.2))
    await asyncio.sleep(0)
    with pytest.raises(NoPictureError, match="at once"):
        await kept.ask("n1", lambda _: True, "uuid", 5.0)
    with pytest.raises(NoPictureError, match="did not show"):
        await first


async def test_the_last_screen_of_a_hung_run_is_kept_beside_its_incident(kept: Pictures, desk: Desk) -> None:
    incident = desk.fleet.vm("web").incident
    with pytest.raises(NoPictureError, match=f"no screenshot is kept beside incident {incident}"):
        await kept.kept(incident)
    kept.told("n2", shown(desk, PNG + b"forged"))
    kept.told("n1", shown(desk, PNG + b"true"))
    await kept.close()
    assert await kept.kept(incident) == PNG + b"true"
    assert desk.state.incidents[incident].screenshot
    kept.told("n1", shown(desk, PNG + b"another"))
    await kept.close()
    assert await kept.kept(incident) == PNG + b"true"


async def test_that_there_was_none_is_said_in_the_incident(kept: Pictures, desk: Desk) -> None:
    incident = desk.fleet.vm("web").incident
    kept.told("n1", shown(desk, b"", message="the guest has no screen"))
    await kept.close()
    record = desk.state.incidents[incident]
    assert not record.screenshot
    assert any("the guest has no screen" in step.detail for step in record.steps)


async def test_the_newest_files_are_kept(
    kept: Pictures, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "FILES_MAX", 3)
    folder = tmp_path / "screenshots"
    folder.mkdir()
    for number in range(5):
        (folder / f"inc-old{number}.png").write_bytes(PNG)
    kept.told("n1", shown(desk))
    await kept.close()
    left = {path.name for path in folder.iterdir()}
    assert len(left) == 3
    assert f"{desk.fleet.vm('web').incident}.png" in left
    assert all((folder / name).stat().st_size for name in left)
