"""Fence programs are real programs here: small scripts that do what real ones have been seen doing."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from aggregator.act.fence import FenceHand, RefusedRungError, prepare_input, program_path
from aggregator.act.fence_answer import ProgramEnded, judge
from aggregator.act.fence_program import OUTPUT_BYTES_MAX, run_program
from aggregator.core.actions import AskFence
from aggregator.core.events import Event, FenceAnswered, PowerAnswer
from aggregator.core.objects import FencingRung

OFF, ON, DONE = PowerAnswer.OFF, PowerAnswer.ON, PowerAnswer.DONE
ERROR, TIMEOUT, MISSING = PowerAnswer.ERROR, PowerAnswer.TIMEOUT, PowerAnswer.MISSING
Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a program into the directory of fence programs; return its name."""

    def write(body: str, name: str = "fence_x", mode: int = 0o755, shebang: str = "#!/bin/sh") -> str:
        path = tmp_path / name
        path.write_text(f"{shebang}\n{body}\n")
        path.chmod(mode)
        return name

    return write


class Fences:
    """A FenceHand, its facts and a clock that stands still."""

    def __init__(self, directory: Path) -> None:
        self.facts: asyncio.Queue[Event] = asyncio.Queue()
        self.now = 100.0
        self.may_act = True
        self.hand = FenceHand(directory, lambda: self.now, self.facts.put_nowait, lambda: self.may_act)

    async def ask(
        self, agent: str, question: str = "status", timeout_s: float = 20.0, params: dict[str, str] | None = None
    ) -> FenceAnswered:
        """Ask; return the one answer there is."""
        rung = FencingRung(agent=agent, params=params or {})
        self.hand.ask(
            AskFence(decided_at=100.0, node="h1", question_id="q-1", rung=rung, question=question, timeout_s=timeout_s)
        )
        async with asyncio.timeout(60):
            fact = await self.facts.get()
        assert isinstance(fact, FenceAnswered)
        assert (fact.node, fact.question_id) == ("h1", "q-1")
        return fact


@pytest.fixture
def fences(tmp_path: Path) -> Fences:
    return Fences(tmp_path)


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ("echo 'Status: OFF'; exit 2", OFF),
        ("echo 'Status: ON'; exit 0", ON),
        ("exit 2", ERROR),
        ("echo 'usage: fence_x [-h]'; echo 'fence_x: error: unrecognized arguments' >&2; exit 2", ERROR),
        ("echo 'Status: OFF'; exit 0", ERROR),
        ("echo 'Status: OFF'; exit 1", ERROR),
        ("echo 'Status: ON'; exit 2", ERROR),
        ("echo 'Status: OFF' >&2; exit 2", ERROR),
        ("echo 'Status: ON'; echo 'Status: OFF'; exit 2", ERROR),
        ("echo 'Chassis Status: OFF'; exit 2", ERROR),
        ("echo 'Status: OFF (cached)'; exit 2", ERROR),
        ("echo 'Status: off'; exit 2", ERROR),
        ("exit 0", ERROR),
        ("exit 1", ERROR),
        ("no-such-command-anywhere", MISSING),
        ("exit 126", MISSING),
        ("if then", ERROR),
        ("kill -KILL $$", ERROR),
        ("echo 'Status: OFF'; kill -TERM $$", ERROR),
    ],
)
async def test_only_the_right_status_with_the_right_line_is_knowledge(
    fences: Fences, write: Write, body: str, answer: PowerAnswer
) -> None:
    assert (await fences.ask(write(body))).answer is answer


@pytest.mark.parametrize(
    ("body", "answer"), [("exit 0", DONE), ("exit 1", ERROR), ("echo 'Status: OFF'; exit 2", ERROR)]
)
async def test_an_order_is_done_only_when_its_program_says_so(
    fences: Fences, write: Write, body: str, answer: PowerAnswer
) -> None:
    assert (await fences.ask(write(body), "off")).answer is answer


async def test_a_missing_program_is_missing_and_named(fences: Fences, tmp_path: Path) -> None:
    fact = await fences.ask("fence_none")
    assert (fact.answer, fact.exit_code) == (MISSING, None)
    assert str(tmp_path / "fence_none") in fact.line


async def test_a_program_that_may_not_be_run_or_has_no_interpreter_is_missing(fences: Fences, write: Write) -> None:
    assert (await fences.ask(write("exit 0", mode=0o644))).answer is MISSING
    assert (await fences.ask(write("exit 0", shebang="#!/no/such/shell"))).answer is MISSING


async def test_a_program_that_hangs_is_killed_with_all_its_children(
    fences: Fences, write: Write, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    agent = write(f"trap '' TERM; (trap '' TERM; echo $$ >> {pids}; exec sleep 300) & echo $! >> {pids}; wait")
    fact = await fences.ask(agent, timeout_s=0.5)
    assert (fact.answer, fact.exit_code) == (TIMEOUT, None)
    assert fact.line.startswith("no answer in time")
    assert not [pid for pid in pids.read_text().split() if is_alive(int(pid))]


async def test_a_child_left_behind_cannot_act_later(fences: Fences, write: Write, tmp_path: Path) -> None:
    """A device order that goes on in the background after its program has ended would act on a node that is back."""
    pids = tmp_path / "pids"
    fact = await fences.ask(write(f"sleep 300 & echo $! > {pids}; echo 'Status: ON'"))
    assert fact.answer is ON
    assert not is_alive(int(pids.read_text()))


async def test_a_flood_of_output_is_bounded_and_no_knowledge(fences: Fences, write: Write) -> None:
    agent = write("echo 'Status: OFF'; yes flood | head -c 5000000; exit 2")
    fact = await fences.ask(agent)
    assert fact.answer is ERROR
    assert len(fact.line) <= 300
    assert "more output" in fact.line


def test_what_is_kept_of_the_output_is_bounded(write: Write, tmp_path: Path) -> None:
    ended = run_program(tmp_path / write("yes | head -c 5000000; yes no | head -c 5000000 >&2"), "", 30.0)
    assert ended.too_much
    assert len(ended.output) == len(ended.talk) == OUTPUT_BYTES_MAX


async def test_parameters_go_to_stdin_and_secrets_come_from_files(fences: Fences, write: Write, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3kr1t words\n")
    agent = write(f"cat > {tmp_path}/got; echo \"$# $LC_ALL $*\" >> {tmp_path}/got; echo 'Status: ON'; exit 0")
    params = {"ip": "10.0.0.1", "password_file": str(tmp_path / "secret"), "lanplus": "1", "identity_file": "/k"}
    await fences.ask(agent, params=params)
    got = (tmp_path / "got").read_text().splitlines()
    assert got == [
        "action=status",
        "identity_file=/k",
        "ip=10.0.0.1",
        "lanplus=1",
        "password=s3kr1t words",
        "0 C ",
    ]


async def test_what_python_deprecates_is_not_what_a_device_says(fences: Fences, write: Write) -> None:
    """fence-agents warn on stderr at every call; incidents quote the device, not the interpreter."""
    body = "import warnings; warnings.warn('old', DeprecationWarning, stacklevel=1); print('Status: ON')"
    fact = await fences.ask(write(body, shebang="#!/usr/bin/python3 -tt"))
    assert (fact.answer, fact.line) == (ON, "Status: ON")


async def test_no_secret_is_shown(fences: Fences, write: Write, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3kr1t\n")
    agent = write("cat >&2; exit 1")
    params = {"password_file": str(tmp_path / "secret"), "snmp_community": "c0mm", "username": "ops"}
    fact = await fences.ask(agent, params=params)
    assert fact.answer is ERROR
    assert "s3kr1t" not in fact.line
    assert "c0mm" not in fact.line
    assert "username=ops" in fact.line


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"password_file": "/no/such/file"}, "params.password_file: cannot read /no/such/file"),
        ({"action": "on"}, "params.action: not a parameter"),
        ({"ip": "1\naction=on"}, "params.ip: must be one line"),
        ({"i p": "1"}, "params.i p: not a parameter"),
        ({"missing_as_off": "1"}, "missing_as_off"),
        ({"missing-as-off": "true"}, "missing_as_off"),
        ({"ip": "x" * 20_000}, "more than"),
    ],
)
async def test_a_rung_that_cannot_be_asked_is_an_error_that_says_why(
    fences: Fences, write: Write, params: dict[str, str], said: str
) -> None:
    fact = await fences.ask(write("echo 'Status: OFF'; exit 2"), params=params)
    assert fact.answer is ERROR
    assert said in fact.line


def test_missing_as_off_that_is_switched_off_is_no_obstacle() -> None:
    assert "missing_as_off=0" in prepare_input("status", "fence_x", {"missing_as_off": "0"}).text


@pytest.mark.parametrize(
    "name", ["../fence_x", "sh", "fence_X", "fence_", "fence_x ", "/usr/sbin/fence_x", "fence_x\n"]
)
def test_only_a_fence_programs_name_is_looked_up(tmp_path: Path, name: str) -> None:
    with pytest.raises(RefusedRungError, match="is no fence program's name"):
        program_path(tmp_path, name)


@pytest.mark.parametrize("agent", ["fence_dummy", "fence_scsi", "fence_ifmib", "fence_mpath", "fence_kdump"])
async def test_programs_that_prove_nothing_are_not_believed(fences: Fences, write: Write, agent: str) -> None:
    fact = await fences.ask(write("echo 'Status: OFF'; exit 2", name=agent))
    assert fact.answer is ERROR
    assert f"{agent} is not asked" in fact.line


async def test_the_real_fence_dummy_says_off_about_nothing_and_is_not_believed() -> None:
    """Seen: without its status file it prints `Status: OFF` and exits 2."""
    real = Path("/usr/sbin/fence_dummy")
    ended = run_program(real, "action=status\n", 30.0)
    assert judge("status", ended) is OFF
    assert (await Fences(real.parent).ask("fence_dummy")).answer is ERROR


async def test_an_order_whose_decision_is_old_is_dropped_and_a_question_is_not(
    fences: Fences, write: Write, tmp_path: Path
) -> None:
    agent = write(f"touch {tmp_path}/ran; echo 'Status: ON'")
    fences.now = 101.5
    fact = await fences.ask(agent, "off")
    assert fact.answer is ERROR
    assert fact.line.startswith("dropped: off was not sent, its decision is 1.5 s old")
    assert not (tmp_path / "ran").exists()
    assert (await fences.ask(agent, "status")).answer is ON


async def test_who_does_not_lead_orders_nothing(fences: Fences, write: Write, tmp_path: Path) -> None:
    fences.may_act = False
    fact = await fences.ask(write(f"touch {tmp_path}/ran"), "off")
    assert fact.answer is ERROR
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("exit_code", [None, 0, 1, 2, 126, 127, -9, 137])
def test_a_program_out_of_time_says_nothing_whatever_it_printed(exit_code: int | None) -> None:
    ended = ProgramEnded(exit_code, "Status: OFF\n", timed_out=True)
    assert judge("status", ended) in (TIMEOUT, MISSING)


def is_alive(pid: int) -> bool:
    """Tell whether a process runs still, giving a killed one a moment to be gone."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return False
        if state == "Z":
            return False
        os.sched_yield()
        time.sleep(0.02)
    return True


# --- listening for a crash kernel


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ("echo \"[debug]: received valid message from '10.1.0.1'\"; exit 0", PowerAnswer.CRASHED),
        ("echo \"[debug]: received valid message from '10.1.0.1'\"; exit 1", ERROR),
        ("echo '[debug]: timeout after 4 seconds'; exit 1", ERROR),
        ("exit 0", ERROR),
        ("echo 'Status: OFF'; exit 2", ERROR),
    ],
)
async def test_a_crash_kernel_is_heard_only_in_the_listeners_own_words(
    fences: Fences, write: Write, body: str, answer: PowerAnswer
) -> None:
    assert (await fences.ask(write(body, "fence_kdump"), "listen")).answer is answer


async def test_the_listener_is_told_how_long_and_is_never_asked_for_power(fences: Fences, write: Write) -> None:
    said = await fences.ask(write("cat; exit 1", "fence_kdump"), "listen", 20.0, {"nodename": "10.1.0.1"})
    assert said.line == "action=off nodename=10.1.0.1 timeout=19"
    for question in ("status", "off", "on"):
        assert "never switches power" in (await fences.ask("fence_kdump", question)).line
    assert "does not listen for a crash kernel" in (await fences.ask(write("exit 0"), "listen")).line


async def test_the_real_listener_hears_the_real_sender(fences: Fences, tmp_path: Path) -> None:
    """fence_kdump and fence_kdump_send of fence-agents, over loopback."""
    sender = "/usr/libexec/fence-agents/fence_kdump_send"
    (tmp_path / "fence_kdump").symlink_to("/usr/sbin/fence_kdump")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    crash = await asyncio.create_subprocess_exec(sender, "-p", port, "-i", "1", "-c", "15", "127.0.0.1")
    try:
        heard = await fences.ask("fence_kdump", "listen", 15.0, {"nodename": "127.0.0.1", "ipport": port})
    finally:
        crash.kill()
        await crash.wait()
    assert heard.answer is PowerAnswer.CRASHED
    assert "received valid message from '127.0.0.1'" in heard.line
