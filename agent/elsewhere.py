"""Deeds through the libvirtd of another host, whose agent is gone: bounded threads, a connection for each host."""

from __future__ import annotations

from agent.deeds import CODE_UNKNOWN, Elsewhere, Migrate
from agent.hypervisor import Result
from agent.libvirt_driver import Connection
from agent.workers import CrowdedError, StuckError, Workers

HOSTS_MAX = 8  # whose connections are kept
ASK_TIMEOUT_S = 5.0


class OtherHosts:
    """The libvirtds of others. Long calls and short questions have threads of their own."""

    def __init__(self) -> None:
        self._moving = Workers("rescue", 4)
        self._asking = Workers("ask elsewhere", 4)
        self._hosts: dict[str, Connection] = {}

    async def do(self, uuid: str, wanted: Elsewhere, timeout_s: float) -> Result:
        """Do one deed there; a call that does not return is RESULT_UNKNOWN."""
        host = self._hosts.pop(wanted.uri, None) or Connection(wanted.uri)
        self._hosts[wanted.uri] = host
        while len(self._hosts) > HOSTS_MAX:
            del self._hosts[next(iter(self._hosts))]
        is_move = isinstance(wanted.deed, Migrate)
        workers, limit_s = (self._moving, timeout_s) if is_move else (self._asking, min(timeout_s, ASK_TIMEOUT_S))
        try:
            return await workers.run(lambda: host.do_there(uuid, wanted.deed, wanted.host_uuid), limit_s)
        except StuckError as error:
            return Result(ok=False, code=CODE_UNKNOWN, message=str(error))
        except CrowdedError as error:
            return Result(ok=False, code="TOO_MANY_STUCK", message=str(error))
