"""Runs the check programs of a host: what its owner knows of its health, one line and an exit code each.

Every executable file in the directory is run as the agent's account, side by side, again and again: exit 0 is fine, 1
degraded, 2 failing; anything else, no end within TIMEOUT_S or no such program tells nothing. What that does to the
node is agent.verdicts' word.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import structlog

from agent.verdicts import Outcome, Steadied, verdict
from fleet.model import CheckVerdict

CHECKS_MAX = 32
TIMEOUT_S = 10.0
END_S_MAX = 1.0  # that a killed one is waited for
OUTPUT_BYTES_MAX = 4096
LINE_MAX = 200

log = structlog.get_logger(part="checks")


class NodeChecks:
    """What the checks say of this host. effects: by name, the taint when it fails. own: looks for the agent itself."""

    def __init__(
        self, directory: Path, every_s: float, effects: Mapping[str, str], own: Callable[[], dict[str, Outcome]] = dict
    ) -> None:
        self._directory = directory
        self._own = own
        self._every_s = every_s
        self._effects = effects
        self._known: dict[str, Steadied] = {}

    def verdicts(self) -> tuple[CheckVerdict, ...]:
        """Return what is not fine, by name."""
        found = (verdict(name, each, self._effects.get(name, "")) for name, each in sorted(self._known.items()))
        return tuple(each for each in found if each is not None)

    async def run(self, changed: Callable[[], None]) -> None:
        """Run them until cancelled; changed is called when a verdict differs from the last one."""
        while True:
            if await self.run_all():
                changed()
            await asyncio.sleep(self._every_s)

    async def run_all(self) -> bool:
        """Run every program once, side by side, and look for ourselves; say whether a verdict has changed."""
        programs = await asyncio.to_thread(self._programs)
        own = await asyncio.to_thread(self._own)
        before = self.verdicts()
        ran = await asyncio.gather(*(run_check(path) for path in programs.values()))
        outcomes = own | dict(zip(programs, ran, strict=True))
        self._known = {name: self._known.get(name, Steadied()) for name in outcomes}  # one that is gone says nothing
        for name, outcome in outcomes.items():
            if self._known[name].take(outcome):
                told = self._known[name]
                (log.warning if told.level != "Fine" else log.info)("check", name=name, level=told.level)
        return self.verdicts() != before

    def _programs(self) -> dict[str, Path]:
        try:
            found = sorted(path for path in self._directory.iterdir() if path.is_file() and os.access(path, os.X_OK))
        except OSError:
            return {}
        if len(found) > CHECKS_MAX:
            log.warning("too many checks", directory=str(self._directory), run=CHECKS_MAX, found=len(found))
        return {path.name: path for path in found[:CHECKS_MAX]}


async def run_check(path: Path) -> Outcome:
    """Run one program; its end is never waited for longer than TIMEOUT_S, and its output never read beyond a bound."""
    try:
        process = await asyncio.create_subprocess_exec(
            str(path),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        return Outcome(None, f"cannot be run: {error}")
    try:
        async with asyncio.timeout(TIMEOUT_S):
            text = await _read(process.stdout) if process.stdout is not None else b""
            code = await process.wait()
    except TimeoutError:
        return Outcome(None, f"did not end within {TIMEOUT_S:g} s")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # and whatever it left behind
        with suppress(TimeoutError):  # one that hangs in the kernel is not waited for
            async with asyncio.timeout(END_S_MAX):
                await process.wait()
    return Outcome(code, first_line(text))


async def _read(stream: asyncio.StreamReader) -> bytes:
    """Return the beginning of what a program says, and let it come to its end."""
    text = await stream.read(OUTPUT_BYTES_MAX)
    while await stream.read(OUTPUT_BYTES_MAX):
        pass
    return text


def first_line(text: bytes) -> str:
    """Return the first line as it can be shown, cut to LINE_MAX characters."""
    line = text.decode("utf-8", errors="replace").strip().partition("\n")[0]
    return "".join(char if char.isprintable() else " " for char in line)[:LINE_MAX]
