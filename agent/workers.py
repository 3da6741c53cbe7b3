"""Threads for calls that may never return: bounded, abandoned when stuck, counted, replaced.

A thread cannot be cancelled. Each purpose has its own Workers, so that a stuck call of one purpose
never takes the last thread of another. Knows nothing of what the calls do.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Generic, TypeVar

T = TypeVar("T")


class StuckError(Exception):
    """The call did not return in time; its thread was abandoned and its result will never be heard."""


class CrowdedError(Exception):
    """So many threads of this purpose are stuck that no new one is begun."""


class Workers:
    """At most threads_max calls at once, and at most stuck_max abandoned ones beside them."""

    def __init__(self, name: str, threads_max: int, stuck_max: int = 16) -> None:
        self.name = name
        self.stuck_max = stuck_max
        self.stuck = 0
        self._slots = asyncio.Semaphore(threads_max)

    async def run(self, call: Callable[[], T], timeout_s: float) -> T:
        """Run a blocking call in a thread of its own and return what it returns.

        Raises what the call raises, StuckError after timeout_s, CrowdedError when too many are stuck.
        """
        if self.stuck >= self.stuck_max:
            raise CrowdedError(f"{self.stuck} calls of {self.name} are stuck")
        async with self._slots:
            loop = asyncio.get_running_loop()
            future: asyncio.Future[T] = loop.create_future()
            flight = _Flight(self, loop, future, call)
            threading.Thread(target=flight.run, name=f"{self.name}", daemon=True).start()
            try:
                # Not wait_for: it forgets a cancellation that comes as the call ends, and who was told to stop goes on.
                async with asyncio.timeout(timeout_s):
                    return await asyncio.shield(future)
            except TimeoutError:
                if future.done():
                    return future.result()
                flight.abandon()
                raise StuckError(f"a call of {self.name} did not return within {timeout_s:g} s") from None
            except asyncio.CancelledError:
                flight.abandon()
                raise


class _Flight(Generic[T]):
    """One call on its way; after `abandon` its end only corrects the count."""

    def __init__(
        self, workers: Workers, loop: asyncio.AbstractEventLoop, future: asyncio.Future[T], call: Callable[[], T]
    ) -> None:
        self._workers = workers
        self._loop = loop
        self._future = future
        self._call = call
        self._abandoned = False

    def run(self) -> None:
        settle: Callable[[], None]
        try:
            settle = partial(self._future.set_result, self._call())
        except BaseException as error:  # noqa: BLE001 - it is handed on to the one who waits
            settle = partial(self._future.set_exception, error)
        with suppress(RuntimeError):  # the loop is closed: the agent has ended
            self._loop.call_soon_threadsafe(self._finish, settle)

    def _finish(self, settle: Callable[[], None]) -> None:
        if self._abandoned:
            self._workers.stuck -= 1
        elif not self._future.cancelled():
            settle()

    def abandon(self) -> None:
        """Give the call up: it counts as stuck until it returns."""
        if not self._abandoned and not self._future.done():
            self._abandoned = True
            self._workers.stuck += 1


async def happens_within(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event at most so long; say whether it happened."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            return await event.wait()
    return False
