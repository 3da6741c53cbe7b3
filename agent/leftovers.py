"""What a QEMU that has ended left to its host's kernel: writes that were sent and never answered.

A process is gone and its connection to the storage lives on: the kernel goes on sending what the guest
wrote (seen: a socket in FIN-WAIT-1 with the request in its queue, minutes after SIGKILL, while the host was
cut from its storage). Once the cable is mended those bytes reach the disk, long after the VM was started
elsewhere. So such a VM is not gone before its host has nothing of it to send; the sockets are ended, which
throws away what they hold. What a mounted file system still has to write cannot be thrown away: the VM is
there until its server answers, or the host is fenced. Knows the kernel's table of sockets and `ss`; no libvirt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress

import structlog

from agent.sockets import read_sockets

LOOK_AGAIN_S = 0.01
LOOK_AGAIN_S_MAX = 0.5
PATIENCE_S = 0.05  # so long the last bytes of a connection that works may be on their way
KILL_S_MAX = 2.0
FIN_BYTES = 1  # the end itself stands in the queue as a byte
CLOSING = ("04", "09", "0B")  # FIN-WAIT-1, LAST-ACK, CLOSING: nobody's sockets that still send
CLOSING_WORDS = ("fin-wait-1", "last-ack", "closing")

log = structlog.get_logger(part="leftovers")


class Leftovers:
    """The VMs whose QEMU has ended and whose host still holds what it wrote.

    over is called once for each process that has ended, when nothing of it is left: mostly at once.
    """

    def __init__(self, over: Callable[[str, str], None], mount_is_lost: Callable[[str], bool]) -> None:
        self.held: dict[str, asyncio.Task[None]] = {}  # by uuid
        self._over = over
        self._mount_is_lost = mount_is_lost

    def ended(self, uuid: str, token: str, ports: Collection[int]) -> None:
        """A process has ended. ports: of the servers its disks lie on."""
        if self._is_left(uuid, ports):
            log.info("a QEMU has ended, and what it wrote still waits here to be sent", vm=uuid)
            self.held[uuid] = asyncio.get_running_loop().create_task(self._drop(uuid, token, ports))
        else:
            self._over(uuid, token)

    def _is_left(self, uuid: str, ports: Collection[int]) -> bool:
        return self._mount_is_lost(uuid) or (bool(ports) and are_left(ports))

    async def _drop(self, uuid: str, token: str, ports: Collection[int]) -> None:
        wait_s, waited_s = LOOK_AGAIN_S, 0.0
        try:
            while self._is_left(uuid, ports):
                if waited_s >= PATIENCE_S and ports:
                    await end_sockets(ports)
                await asyncio.sleep(wait_s)
                waited_s, wait_s = waited_s + wait_s, min(LOOK_AGAIN_S_MAX, 2 * wait_s)
        finally:
            del self.held[uuid]
        self._over(uuid, token)

    async def stop(self) -> None:
        """Hold nothing any more; nobody is told."""
        tasks = list(self.held.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def are_left(ports: Collection[int]) -> bool:
    """Say whether a socket that nobody holds still has something to send to one of the ports."""
    return any(
        socket.remote_port in ports and socket.state in CLOSING and socket.waiting_bytes > FIN_BYTES
        for socket in read_sockets()
    )


async def end_sockets(ports: Collection[int]) -> None:
    """Have the kernel end them (INET_DIAG_DESTROY). Where it cannot, it gives up by itself after some minutes."""
    places = " or ".join(f"dport = :{port}" for port in sorted(ports))
    states = [word for state in CLOSING_WORDS for word in ("state", state)]
    try:
        process = await asyncio.create_subprocess_exec(
            *("ss", "--kill", "--numeric", "--tcp", *states, f"( {places} )"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError as error:
        log.warning("ss cannot be run", error=error.strerror or str(error))
        return
    try:
        async with asyncio.timeout(KILL_S_MAX):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
