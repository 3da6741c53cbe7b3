"""Whether libvirt answers, since when it is known, and whoever waits for it to turn."""

from __future__ import annotations

import asyncio

import structlog

from agent.workers import happens_within

log = structlog.get_logger(part="watcher")


class Readiness:
    """reason: why libvirt is silent, empty while it answers."""

    def __init__(self) -> None:
        self.reason = "libvirt has not been asked yet"
        self._answers = asyncio.Event()
        self._turned = asyncio.Event()

    def answers(self) -> None:
        """Libvirt answers from now on."""
        self.reason = ""
        self._answers.set()
        self._turned.set()

    def silent(self, reason: str) -> None:
        """Libvirt does not answer."""
        if self.reason != reason:
            self.reason = reason
            self._answers.clear()
            self._turned.set()
            log.warning("libvirt is silent", reason=reason)

    async def wait(self, wait_s_max: float) -> bool:
        """Wait for libvirt to answer; False if it does not within that time."""
        return await happens_within(self._answers, wait_s_max)

    async def wait_turned(self, wait_s_max: float) -> bool:
        """Wait for libvirt to fall silent or to answer again; False if it did not within that time."""
        turned = await happens_within(self._turned, wait_s_max)
        self._turned.clear()
        return turned
