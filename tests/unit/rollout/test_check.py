"""`--check` of both daemons: one sentence each for what is not ready, and what to do."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from agent.check import check_hook, ends_guests
from agent.host import read_devices
from aggregator.check import check_fence_programs, devices
from fleet.config import CREDENTIAL_SOURCE, secret_file
from fleet.environment import (
    Finding,
    Grade,
    check_directory,
    check_listen,
    check_own_address,
    check_reached,
    ok,
    problem,
    report,
    warning,
)


def test_only_a_problem_makes_the_check_fail(capsys: pytest.CaptureFixture[str]) -> None:
    assert report([ok("a"), warning("b")]) == 0
    assert report([problem("c"), ok("d")]) == 1
    assert capsys.readouterr().out == "ok: a\nwarning: b\nproblem: c\nok: d\n"


def test_a_port_is_free_held_by_us_or_taken_by_another() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        assert check_listen("listen", "127.0.0.1", port, ours=True).grade is Grade.OK
        taken = check_listen("listen", "127.0.0.1", port, ours=False)
        assert taken == problem(
            f"listen 127.0.0.1:{port} is taken by another program: `ss -ltnp sport = :{port}` names it"
        )
        assert check_reached("it", "127.0.0.1", port).grade is Grade.OK
    assert check_listen("listen", "127.0.0.1", port, ours=False).grade is Grade.OK
    assert check_reached("it", "127.0.0.1", port).grade is Grade.WARNING
    assert check_listen("listen", "192.0.2.1", port, ours=False).grade is Grade.PROBLEM


def test_an_address_is_this_machines_or_not() -> None:
    assert check_own_address("control_address", "127.0.0.1").grade is Grade.OK
    assert "no address of this machine" in check_own_address("control_address", "192.0.2.1").text


def test_a_directory_that_is_not_there_yet_can_be_made_below_one_that_is(tmp_path: Path) -> None:
    assert check_directory("state_dir", tmp_path / "a/b").grade is Grade.OK
    (tmp_path / "file").write_text("")
    assert "is no directory" in check_directory("state_dir", tmp_path / "file/b").text
    assert not (tmp_path / "a").exists()


def test_the_hook_is_there_the_same_and_may_be_run(tmp_path: Path) -> None:
    shipped, installed = tmp_path / "shipped", tmp_path / "installed"
    shipped.write_text("#!/bin/sh\n")
    assert check_hook(installed, shipped).grade is Grade.WARNING
    installed.write_text("#!/bin/sh\n")
    installed.chmod(0o600)
    assert "chmod 755" in check_hook(installed, shipped).text
    installed.chmod(0o755)
    assert check_hook(installed, shipped).grade is Grade.OK
    installed.write_text("#!/bin/sh\nexit 0\n")
    assert "another one than this version's" in check_hook(installed, shipped).text


def test_fence_programs_are_counted(tmp_path: Path) -> None:
    assert "install fence-agents" in check_fence_programs(tmp_path).text
    (tmp_path / "fence_x").write_text("")
    assert check_fence_programs(tmp_path) == ok(f"1 fence programs in {tmp_path}")


def test_the_devices_status_is_told_for_each_node() -> None:
    nodes = (
        b'{"items": [{"metadata": {"name": "h1"}, "status": {"state": "Up", "conditions":'
        b' [{"type": "Fenceable", "status": "True", "message": "fence_ipmilan"}]}},'
        b' {"metadata": {"name": "h2"}, "status": {"state": "Up", "conditions":'
        b' [{"type": "Ready", "status": "True"}, {"type": "Fenceable", "status": "False", "message": "no device"}]}}]}'
    )
    found = list(devices(nodes))
    assert found[0] == ok("node h1 (Up) can be fenced: fence_ipmilan")
    assert found[1].grade is Grade.WARNING
    assert "node h2 (Up) cannot be fenced" in found[1].text
    assert len(found) == 2
    assert next(devices(b'{"items": []}')).grade is Grade.WARNING
    assert next(devices(b"<html>")).grade is Grade.PROBLEM


def test_a_credential_is_systemds_file_or_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert secret_file("credential:agent.token") == CREDENTIAL_SOURCE / "agent.token"
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert secret_file("credential:agent.token") == tmp_path / "agent.token"
    assert secret_file("/a/token") == Path("/a/token")


def test_network_devices_are_read_without_a_netlink_socket() -> None:
    ours = read_devices(Path("/proc/self/net/dev").read_text(encoding="utf-8"))
    assert set(ours) == {name for _, name in socket.if_nameindex()}


def test_findings_are_one_line() -> None:
    for finding in (check_reached("x", "127.0.0.1", 1), check_own_address("x", "192.0.2.1"), Finding(Grade.OK, "x")):
        assert "\n" not in finding.text


@pytest.mark.parametrize(
    ("stop", "active", "enabled", "word"),
    [
        ("{ path=/usr/lib/libvirt/libvirt-guests.sh }", "active", "enabled", "ends"),
        ("{ path=/usr/lib/libvirt/libvirt-guests.sh }", "active", "disabled", "ends"),
        ("{ path=/usr/lib/libvirt/libvirt-guests.sh }", "inactive", "enabled", "ends"),
        ("{ path=/usr/lib/libvirt/libvirt-guests.sh }", "inactive", "disabled", "spares"),
        ("", "active", "enabled", "spares"),
        ("", "inactive", "", "spares"),
    ],
)
def test_libvirt_guests_that_was_started_ends_guests_also_where_it_is_disabled(
    stop: str, active: str, enabled: str, word: str
) -> None:
    shown = f"ExecStop={stop}\n" if stop else ""  # systemctl leaves it out where there is none
    told = ends_guests(f"{shown}ActiveState={active}\nUnitFileState={enabled}\n")
    assert ("ends" if told else "spares") == word
