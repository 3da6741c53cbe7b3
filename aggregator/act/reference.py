"""The hand that asks the reference address: does anything outside of the fleet answer us?

With a port it is a connection, without one an echo by the system's `ping`. Each question is answered by
exactly one ReferenceAnswered within ASK_S_MAX. Knows sockets and one program; judges nothing.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress

from aggregator.core.actions import AskReference
from aggregator.core.events import Event, ReferenceAnswered

CONNECT_S_MAX = 1.0
ASK_S_MAX = 2.0
ASKING_MAX = 4
PING = "ping"
_WITH_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+)):([0-9]{1,5})")


class ReferenceHand:
    """Asks; report takes the facts."""

    def __init__(self, now: Callable[[], float], report: Callable[[Event], None]) -> None:
        self._now = now
        self._report = report
        self._asking: set[asyncio.Task[None]] = set()

    def ask(self, action: AskReference) -> None:
        """Begin to ask, unless so many questions are open that an answer would be of no use."""
        if len(self._asking) < ASKING_MAX:
            task = asyncio.create_task(self._ask(action.address))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    def close(self) -> None:
        """Ask nothing more."""
        for task in self._asking:
            task.cancel()

    async def _ask(self, address: str) -> None:
        asked_at = self._now()
        trouble = await answers(address)
        self._report(ReferenceAnswered(at=self._now(), asked_at=asked_at, answered=not trouble, detail=trouble))


async def answers(address: str) -> str:
    """Return why the address does not answer, empty if it does."""
    found = _WITH_PORT.fullmatch(address)
    try:
        async with asyncio.timeout(ASK_S_MAX):
            if found is None:
                return await _echo(address)
            return await _connect(found.group(1) or found.group(2), int(found.group(3)))
    except TimeoutError:
        return f"no answer within {ASK_S_MAX:g} s"


async def _connect(host: str, port: int) -> str:
    """A refused connection is an answer, too: the address is there, and so is our way to it."""
    try:
        async with asyncio.timeout(CONNECT_S_MAX):
            _, writer = await asyncio.open_connection(host, port)
    except ConnectionRefusedError:
        return ""
    except TimeoutError:
        return f"no answer within {CONNECT_S_MAX:g} s"
    except (OSError, OverflowError) as error:
        return str(error)
    writer.transport.abort()
    return ""


async def _echo(host: str) -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            *(PING, "-n", "-q", "-c", "1", "-W", "1", "--", host),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError as error:
        return f"ping cannot be run ({error.strerror or error}); write the address with a port"
    try:
        code = await process.wait()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
    return "" if code == 0 else "no echo"
