"""The hand that asks fence devices, through fence-agents' fence_* programs.

Knows programs, parameters and secrets; judging an answer is fence_answer's. Each question is answered by
exactly one FenceAnswered, also when the program is missing, hangs or was never started.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from msgspec import Struct

from aggregator.act.fence_answer import ProgramEnded, is_secret, judge, scrub, telling_line
from aggregator.act.fence_program import INPUT_BYTES_MAX, run_program
from aggregator.core.actions import ACTION_AGE_S_MAX, AskFence
from aggregator.core.events import Event, FenceAnswered, PowerAnswer
from aggregator.core.fencing_device import CRASH_LISTENER, unusable

PROGRAMS_AT_ONCE_MAX = 16
SECRET_FILE_BYTES_MAX = 4096
AGENT_NAME = re.compile(r"fence_[a-z0-9_]+")
PARAMETER_NAME = re.compile(r"[A-Za-z0-9_-]+")
QUESTIONS = ("status", "off", "on")
LISTEN = "listen"
HARMLESS = ("status", LISTEN)
LISTENER_ENDS_S = 1.0  # so much sooner than it would be killed does fence_kdump give up, and say so
OURS = frozenset({"action", "option", "o"})  # what is asked is never a parameter of the operator's
FILES_OF_THE_PROGRAM = frozenset({"identity_file", "debug_file", "status_file"})
"""Parameters that end in _file and are the program's own; every other one is read here."""


class RefusedRungError(ValueError):
    """A rung that cannot be asked; its text is one sentence."""


class FenceInput(Struct, frozen=True):
    """What goes to the program's stdin, and what must never be shown."""

    text: str
    secrets: tuple[str, ...]


class FenceHand:
    """Asks devices side by side. report takes the facts; may_act says whether deeds are allowed now."""

    def __init__(
        self,
        agents_dir: Path,
        now: Callable[[], float],
        report: Callable[[Event], None],
        may_act: Callable[[], bool],
    ) -> None:
        self._dir = agents_dir
        self._now = now
        self._report = report
        self._may_act = may_act
        self._threads = ThreadPoolExecutor(PROGRAMS_AT_ONCE_MAX, "fence")
        self._free = asyncio.Semaphore(PROGRAMS_AT_ONCE_MAX)
        self._asking: set[asyncio.Task[None]] = set()

    def ask(self, action: AskFence) -> None:
        """Begin to ask; the answer is a fact."""
        task = asyncio.create_task(self._ask(action))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    def close(self) -> None:
        """Ask nothing more. Programs that run end at their own time; their answers are not waited for."""
        for task in self._asking:
            task.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _ask(self, action: AskFence) -> None:
        async with self._free:
            asked_at = self._now()
            ended, secrets = ProgramEnded(None), tuple[str, ...]()
            loop = asyncio.get_running_loop()
            try:
                self._check_age(action, asked_at)
                path = program_path(self._dir, action.rung.agent)
                prepared = await loop.run_in_executor(
                    self._threads, prepare_input, action.question, action.rung.agent, params_of(action)
                )
                secrets = prepared.secrets
                self._check_age(action, self._now())  # a secret's file may have been slow
                asked_at = self._now()
                ended = await loop.run_in_executor(self._threads, run_program, path, prepared.text, action.timeout_s)
                answer, line = judge(action.question, ended), telling_line(ended, secrets)
            except RefusedRungError as error:
                answer, line = PowerAnswer.ERROR, scrub(str(error), secrets)
        self._report(
            FenceAnswered(
                at=self._now(),
                node=action.node,
                question_id=action.question_id,
                answer=answer,
                asked_at=asked_at,
                exit_code=ended.exit_code,
                line=line,
            )
        )

    def _check_age(self, action: AskFence, now: float) -> None:
        if action.question in HARMLESS:
            return
        if not self._may_act():
            raise RefusedRungError(f"dropped: {action.question} was not sent, this aggregator may not act now")
        if now - action.decided_at > ACTION_AGE_S_MAX:
            raise RefusedRungError(
                f"dropped: {action.question} was not sent, its decision is {now - action.decided_at:.1f} s old"
            )


def program_path(agents_dir: Path, agent: str) -> Path:
    """Return where the program must lie; RefusedRungError for a name that is no fence program's."""
    if not AGENT_NAME.fullmatch(agent):
        raise RefusedRungError(f"{agent!r} is no fence program's name; it must look like fence_ipmilan")
    return agents_dir / agent


def params_of(action: AskFence) -> dict[str, str]:
    """Return the operator's parameters; a listener is told for how long."""
    if action.question != LISTEN:
        return action.rung.params
    listens_s = max(1, int(action.timeout_s - LISTENER_ENDS_S))
    return {**action.rung.params, "timeout": str(listens_s)}


def prepare_input(question: str, agent: str, params: Mapping[str, str]) -> FenceInput:
    """Return the program's stdin, `name=value` a line; RefusedRungError if the rung cannot be asked. Reads files."""
    listens = question == LISTEN
    if question not in QUESTIONS and not listens:
        raise RefusedRungError(f"{question!r} is not a question to a fence device")
    if listens and agent != CRASH_LISTENER:
        raise RefusedRungError(f"{agent} does not listen for a crash kernel; {CRASH_LISTENER} does")
    why = "" if listens else unusable(agent, params)
    if why:
        raise RefusedRungError(why)
    lines, secrets = [f"action={'off' if listens else question}"], []  # what fence_kdump calls its listening
    for given, value in sorted(params.items()):
        name, text = given, value
        if not PARAMETER_NAME.fullmatch(name) or name in OURS:
            raise RefusedRungError(f"params.{name}: not a parameter an operator may give; remove it")
        if name.endswith("_file") and name not in FILES_OF_THE_PROGRAM:
            name, text = name.removesuffix("_file"), _read_secret(name, Path(value))
            secrets.append(text)
        elif is_secret(name):
            secrets.append(text)
        if "\n" in text or "\0" in text:
            raise RefusedRungError(f"params.{given}: must be one line")
        lines.append(f"{name}={text}")
    whole = "\n".join(lines) + "\n"
    if len(whole.encode()) > INPUT_BYTES_MAX:
        raise RefusedRungError(f"params: more than {INPUT_BYTES_MAX} bytes in all; shorten them")
    return FenceInput(whole, tuple(secrets))


def _read_secret(name: str, path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(SECRET_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise RefusedRungError(f"params.{name}: cannot read {path}: {error.strerror or error}; mend it") from None
    if len(data) > SECRET_FILE_BYTES_MAX:
        raise RefusedRungError(
            f"params.{name}: {path} is longer than {SECRET_FILE_BYTES_MAX} bytes; it must hold one line"
        )
    try:
        text = data.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise RefusedRungError(f"params.{name}: {path} is not text; it must hold one line") from None
    if not text:
        raise RefusedRungError(f"params.{name}: {path} is empty; it must hold one line")
    return text
