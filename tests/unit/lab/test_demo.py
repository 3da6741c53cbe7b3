"""The demo's own arithmetic and words; the story itself is told by `make demo`, and by the laboratory's test of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.demo_report import Moved, Recovery, judge, sentence_of, unix_s
from lab.demo_screen import Screen
from lab.guest_log import GuestLine
from lab.truth import Cpus, Qemu, Sample
from lab.witness import GuestTail, Happening, gap_between_s, silences_s

RECOVERY = Recovery(suspect_s=3.1, proof_s=4.25, running_s=4.9, counting_s=5.1234)


def _ticks(*times: float) -> list[GuestLine]:
    return [GuestLine(at, "h1", f"tick {number}") for number, at in enumerate(times)]


def _qemu(host: str, cpus: Cpus = Cpus.RUNNING, *, may_run: bool = True) -> Qemu:
    return Qemu(host, 1, "uuid", cpus, may_run)


def test_a_tail_reads_each_line_once_and_only_when_it_is_whole(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    tail = GuestTail(log)
    tail.read()
    assert tail.lines == []
    log.write_text("1.000 h1 boot from 7\n2.000 h1 tick 1\n3.0")
    tail.read()
    assert [line.text for line in tail.lines] == ["boot from 7", "tick 1"]
    with log.open("a") as file:
        file.write("00 h2 split 9\n")
    tail.read()
    tail.read()
    assert [line.text for line in tail.lines] == ["boot from 7", "tick 1", "split 9"]
    assert (tail.says("split"), tail.says("boot from"), tail.lines[-1].host) == (1, 1, "h2")
    assert tail.last is not None
    assert tail.last.text == "tick 1"


def test_only_silences_longer_than_three_ticks_count_as_down() -> None:
    assert silences_s(_ticks(1.0, 1.1, 1.35, 6.35, 6.45), 6.5) == pytest.approx(5.0)
    assert silences_s(_ticks(1.0), 3.0) == pytest.approx(2.0)


def test_a_gap_that_only_touches_the_migration_counts_whole() -> None:
    ticks = _ticks(1.0, 1.1, 1.5, 1.6, 5.6)
    assert gap_between_s(ticks, 1.2, 1.4) == pytest.approx(0.4)
    assert gap_between_s(ticks, 1.55, 1.7) == pytest.approx(4.0)
    assert gap_between_s([], 0.0, 9.0) == 0


def _guest(tmp_path: Path, name: str) -> GuestTail:
    log = tmp_path / f"{name}.log"
    log.write_text("1.000 h1 boot from 7\n1.100 h1 tick 1\n6.100 h2 boot from 8\n6.200 h2 tick 2\n")
    tail = GuestTail(log)
    tail.read()
    return tail


def test_the_last_line_says_where_each_vm_is_how_often_it_started_and_how_long_it_was_down(tmp_path: Path) -> None:
    sample = Sample(6.25, {"a": [_qemu("h2"), _qemu("h1", Cpus.FINISHED, may_run=False)]})
    found = judge(sample, {"a": _guest(tmp_path, "a")}, RECOVERY, [Moved("a", 1.5, 0.25)], page="http://x/", twice=0)
    assert found.bad == []
    assert json.loads(found.line) == {
        "vms": {"a": {"node": "h2", "starts": 2, "downtime_s": 5.1}},
        "recovery": {"suspect_s": 3.1, "proof_s": 4.25, "running_s": 4.9, "counting_s": 5.123},
        "migrations": [{"vm": "a", "wall_s": 1.5, "gap_s": 0.25}],
        "page": "http://x/",
        "twice": 0,
    }


@pytest.mark.parametrize(
    "qemus",
    [
        [],
        [_qemu("h1", Cpus.INCOMING, may_run=False)],
        [_qemu("h1"), _qemu("h2")],
        [_qemu("h1"), _qemu("h2", Cpus.STOPPED)],
    ],
)
def test_a_vm_that_runs_nowhere_or_twice_is_named(tmp_path: Path, qemus: list[Qemu]) -> None:
    found = judge(Sample(6.25, {"a": qemus}), {"a": _guest(tmp_path, "a")}, RECOVERY, [], page="", twice=0)
    assert found.bad == ["a"]


def test_sentences_are_for_people_and_noise_is_left_out() -> None:
    def said(kind: str, **fields: str) -> str:
        empty = {"node": "", "vm": "", "reason": "", "message": ""}
        return sentence_of(Happening(at_s=0.0, kind=kind, **{**empty, **fields}))

    assert said("NodeSuspect", node="h1") == "h1 is Suspect"
    assert (
        said("NodeProven", node="h1", message="proof PowerOff: off")
        == "h1 is proven to run nothing: proof PowerOff: off"
    )
    assert said("VmPhaseChanged", vm="a", message="Recovering") == "a is Recovering"
    assert said("VmPhaseChanged", vm="a", message="Starting") == ""
    assert said("OrderIssued", vm="a") == ""


def test_times_of_the_api_are_read_as_utc() -> None:
    assert unix_s("1970-01-01T00:01:00.250Z") == 60.25
    assert unix_s("") == 0


def test_lines_off_a_terminal_are_plain(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(dict)
    screen.start()
    screen.chapter("One")
    screen.order("virtward get vms")
    screen.happened("h1 is [Lost]", "because")
    screen.close()
    out = capsys.readouterr().out.splitlines()
    assert out[1] == "== One"
    assert out[2].endswith(" s  $ virtward get vms")
    assert out[3].endswith(" s  h1 is [Lost] – because")
