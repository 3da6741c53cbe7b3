"""The program as systemd sees it: it says when it serves, ends when told to, and says in one line why it cannot."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

PATIENCE_S = 60.0


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Program:
    """virtward-aggregator in a directory of its own, with a notification socket for it."""

    def __init__(self, directory: Path) -> None:
        self.dir = directory
        self.api, self.agents = free_port(), free_port()
        self.processes: list[subprocess.Popen[str]] = []
        self.ready = ""
        token = directory / "token"
        token.write_text("s3kr1t\n")
        token.chmod(0o600)
        self.file = directory / "aggregator.toml"
        self.file.write_text(
            f'name = "a1"\ntoken_file = "{token}"\nstate_dir = "{directory}/state"\nfence_agents_dir = "{directory}"\n'
            f'api_listen = "127.0.0.1:{self.api}"\nagents_listen = "127.0.0.1:{self.agents}"\n'
        )
        self.notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notified.bind(str(directory / "notify"))
        self.notified.settimeout(PATIENCE_S)

    def start(self, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "aggregator.main", "--config", str(self.file)],
            env={**os.environ, "NOTIFY_SOCKET": str(self.dir / "notify"), **environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def serving(self, **environment: str) -> subprocess.Popen[str]:
        """Start it and return when it said READY."""
        process = self.start(**environment)
        self.ready = self.next_word()
        assert "READY=1" in self.ready
        return process

    def next_word(self) -> str:
        return self.notified.recv(4096).decode()

    def status(self, path: str) -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.api}{path}", timeout=PATIENCE_S) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
            if process.stderr is not None:
                process.stderr.close()
        self.notified.close()


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    program = Program(tmp_path)
    yield program
    program.close()


def test_it_says_ready_when_both_doors_are_open_and_ends_in_order(program: Program) -> None:
    process = program.serving()
    assert program.status("/readyz") == 200
    with socket.create_connection(("127.0.0.1", program.agents), timeout=PATIENCE_S):
        pass
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    lines = [json.loads(line) for line in log.splitlines()]
    assert {"life begins", "AggregatorStarted", "serving", "stopped"} <= {line["event"] for line in lines}
    assert "s3kr1t" not in log


def test_the_watchdog_is_fed_by_the_loop(program: Program) -> None:
    program.serving(WATCHDOG_USEC="400000")
    words = [program.next_word() for _ in range(3)]
    assert words == ["WATCHDOG=1"] * 3


def test_a_second_one_on_the_same_directory_is_refused_in_one_line(program: Program) -> None:
    program.serving()
    second = program.start(NOTIFY_SOCKET="")
    _, log = second.communicate(timeout=PATIENCE_S)
    assert second.returncode == 1
    (line,) = [json.loads(line) for line in log.splitlines()]
    assert "another aggregator is using this directory" in line["error"]


def test_a_port_in_use_is_one_sentence(program: Program) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", program.agents))
        taken.listen()
        process = program.start()
        _, log = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert f"cannot listen on 127.0.0.1:{program.agents}" in json.loads(log.splitlines()[-1])["error"]
    assert "Traceback" not in log


def test_killed_it_starts_again_in_a_higher_term(program: Program) -> None:
    for term in (1, 2):
        process = program.serving()
        assert f"STATUS=leads in term {term}\n" in program.ready
        process.kill()
        process.wait()


def test_a_journal_that_is_damaged_is_one_sentence(program: Program) -> None:
    (program.dir / "state").mkdir()
    (program.dir / "state" / "journal.sqlite").write_bytes(b"nonsense " * 1000)
    process = program.start()
    _, log = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert "the journal is damaged" in json.loads(log.splitlines()[-1])["error"]
    assert "Traceback" not in log
