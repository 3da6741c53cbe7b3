"""The shutdown of a host as its unit sees it: announced, waited for, bounded; a restart of the agent is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import host_stop
from agent.deeds import AskShutdown
from agent.host_stop import FLAG, announced_s, empty_host, forget_past, host_is_stopping
from agent.proc import QemuProcess


class Host:
    """Guests that leave one by one, each time somebody looks; `stay` of them only when they are asked."""

    def __init__(self, guests: int, stay: int = 0) -> None:
        self.guests, self.stay = guests, stay
        self.asked: list[str] = []

    def scan(self) -> list[QemuProcess]:
        self.guests = max(self.guests - 1, self.stay)
        return [QemuProcess(number, 0, f"u{number}", "guest") for number in range(self.guests)]

    def ask(self, uuid: str, deed: AskShutdown) -> None:
        assert isinstance(deed, AskShutdown)
        self.asked.append(uuid)
        self.stay -= 1


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_stop, "LOOK_EVERY_S", 0.001)


def test_it_is_announced_and_ends_when_the_last_guest_has_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    host = Host(4)
    monkeypatch.setattr(host_stop, "scan", host.scan)
    assert empty_host(tmp_path, 300.0, host.ask, said.append)
    assert announced_s(tmp_path) == 300.0
    assert said[-1] == "no guest is left"
    assert host.asked == []


def test_who_is_left_towards_the_end_is_asked_to_power_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    host = Host(5, stay=2)
    monkeypatch.setattr(host_stop, "scan", host.scan)
    assert empty_host(tmp_path, 1.0, host.ask, said.append)
    assert host.asked == ["u0", "u1"]
    assert "2 guests have not left: they are asked to power off" in said


def test_guests_that_obey_nobody_do_not_hold_the_host_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    host = Host(3, stay=3)
    monkeypatch.setattr(host_stop, "scan", host.scan)
    assert not empty_host(tmp_path, 0.05, lambda _uuid, _deed: None, said.append)
    assert said[-1] == "3 guests are left"


@pytest.mark.parametrize(
    ("text", "seconds"), [("300", 300.0), ("0", 1.0), ("1e9", 3600.0), ("soon", 0.0), ("", 0.0), ("9 unit", 9.0)]
)
def test_what_is_announced_is_a_time_within_bounds(tmp_path: Path, text: str, seconds: float) -> None:
    (tmp_path / FLAG).write_text(text)
    assert announced_s(tmp_path) == seconds


@pytest.mark.parametrize("by_unit", [True, False])
def test_what_the_unit_announced_is_past_when_an_agent_starts_and_what_a_person_began_is_not(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    by_unit: bool,  # noqa: FBT001
) -> None:
    monkeypatch.setattr(host_stop, "scan", Host(0).scan)
    forget_past(tmp_path)
    empty_host(tmp_path, 90.0, Host(0).ask, lambda _line: None, by_unit=by_unit)
    assert announced_s(tmp_path) == 90.0
    forget_past(tmp_path)
    assert announced_s(tmp_path) == (0.0 if by_unit else 90.0)


def test_nothing_is_announced_where_no_shutdown_was_begun(tmp_path: Path) -> None:
    assert announced_s(tmp_path) == 0.0


@pytest.mark.parametrize(("word", "stops"), [("stopping", True), ("running", False), ("degraded", False)])
def test_only_systemds_word_makes_it_a_shutdown_of_the_host(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    word: str,
    stops: bool,  # noqa: FBT001
) -> None:
    program = tmp_path / "systemctl"
    program.write_text(f"#!/bin/sh\n[ $1 = is-system-running ] && echo {word}\n[ {word} = running ]\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert host_is_stopping() is stops


def test_without_systemd_it_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not host_is_stopping()
